"""What is worth showing of each stage's result: plain numbers, texts and small tables, for logs and for the UI."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from ml_pipeline.adapters.adapter import Adapter
from ml_pipeline.backends.interface import AdapterFile, AppliedProof, Backend
from ml_pipeline.checkpoints.checkpoint import Checkpoint
from ml_pipeline.scoring.degeneration import NOTABLE_SHARE, UNSOUND

Row = dict[str, Any]
Facts = dict[str, Any]
_SHOWN_FAILURES = 8


def adapter_facts(checkpoint: Checkpoint, adapter: Adapter | None) -> Facts:
    """Shape and hash of an adapter."""
    if adapter is None:
        return {"label": checkpoint.label, "adapter": "none: this is the bare base model"}
    return {
        "label": checkpoint.label,
        "sha256": adapter.sha256,
        "kind": adapter.kind,
        "rank": adapter.rank,
        "scale": adapter.scale,
        "layers": len(adapter.layers),
        "modules": ", ".join(adapter.modules),
        "size_bytes": adapter.size_bytes,
    }


def converted_facts(converted: AdapterFile | None) -> Facts:
    """Where the converted adapter lies; one that stays on its host has its path there."""
    if converted is None:
        return {"adapter": "none: this is the bare base model"}
    facts: Facts = {"path": str(converted.path)}
    if converted.path.is_file():
        facts["size_bytes"] = converted.path.stat().st_size
    return facts


def response_facts(rows: Sequence[Row], proof: AppliedProof | None, backend: Backend) -> Facts:
    """How the answers ended, the proof that the adapter was applied, and what answered."""
    endings = Counter(row["finish_reason"] for row in rows)
    facts: Facts = {
        "answers": len(rows),
        "completion_tokens": sum(row["completion_tokens"] for row in rows),
        "cut_at_the_token_limit": endings["length"],
        "ended_by_an_error": endings["error"] + endings["cancelled"],
        "backend": backend.identity().backend_version,
        **({"remarks": " ".join(backend.remarks)} if backend.remarks else {}),
        "examples": [
            {"probe": row["probe_id"], "prompt": row["prompt"], "answer": row["response"]} for row in rows[:5]
        ],
    }
    if proof is not None:
        facts["adapter_effect_on_logits"] = proof.max_abs_logit_difference
        facts["adapter_tensors_matched"] = proof.tensors_matched
    return facts


def score_facts(stage: str, rows: Sequence[Row]) -> Facts:
    """Headline figures of a scoring stage."""
    return {
        "probe_results": _probe_facts,
        "heuristic_scores": _heuristic_facts,
        "degeneration": _degeneration_facts,
        "checkpoint_scores": _checkpoint_facts,
        "judgements": _judgement_facts,
    }[stage](rows)


def soundness_facts(degeneration: Sequence[Row]) -> Facts:
    """What heuristic and judges' figures are to be read with, out of rows of `degeneration`: how many of the answers to
    each suite are empty, looping, cut or word salad, and a word where they are many."""
    facts: Facts = {}
    for row in degeneration:
        if row["signal"] == UNSOUND and row["share"] is not None:
            facts[f"{row['suite']}_unsound_answers"] = row["share"]
            if row["share"] >= NOTABLE_SHARE:
                facts[f"{row['suite']}_note"] = (
                    f"{row['hits']} of {row['answers']} answers are empty, looping, cut or word salad: LEK and judges' "
                    "figures say nothing of those."
                )
    return facts


def _probe_facts(rows: Sequence[Row]) -> Facts:
    failed = [row for row in rows if row["passed"] is False]
    return {
        "passed": sum(row["passed"] is True for row in rows),
        "failed": len(failed),
        "unscored": sum(row["passed"] is None for row in rows),
        "passed_strict": sum(row["strict_passed"] is True for row in rows),
        "passed_flexible": sum(row["flexible_passed"] is True for row in rows),
        "read_by_filters": sum(row["flexible_passed"] is not None for row in rows),
        "choices_scored": sum(row["passed_normalised"] is not None for row in rows),
        "passed_normalised_by_length": sum(row["passed_normalised"] is True for row in rows),
        "first_failures": [
            {"probe": row["probe_id"], "expected": row["expected"], "answer": row["response"]}
            for row in failed[:_SHOWN_FAILURES]
        ],
    }


def _heuristic_facts(rows: Sequence[Row]) -> Facts:
    facts: Facts = {"unscored": sum(row["lek"] is None for row in rows)}
    for suite, values in _by(rows, "suite", "lek").items():
        facts[f"{suite}_mean_lek"] = sum(values) / len(values)
    return facts


def _degeneration_facts(rows: Sequence[Row]) -> Facts:
    facts: Facts = {f"{row['suite']}_{row['signal']}": row["share"] for row in rows if row["share"] is not None}
    facts["by_signal"] = [
        {name: row[name] for name in ("suite", "signal", "hits", "answers", "unscored", "share")} for row in rows
    ]
    return facts


def _checkpoint_facts(rows: Sequence[Row]) -> Facts:
    facts: Facts = {}
    for row in rows:
        if row["category"] == "overall":
            if row["accuracy"] is not None:
                facts[f"{row['suite']}_accuracy"] = row["accuracy"]
                facts[f"{row['suite']}_interval_95"] = f"{row['accuracy_low']:.1%} to {row['accuracy_high']:.1%}"
            facts[f"{row['suite']}_unscored"] = row["unscored"]
    facts["by_category"] = [
        {name: row[name] for name in ("suite", "category", "correct", "total", "unscored", "accuracy")} for row in rows
    ]
    return facts


def _judgement_facts(rows: Sequence[Row]) -> Facts:
    missing = [row for row in rows if row["score"] is None]
    facts: Facts = {
        "unscored": len(missing),
        "unscored_reasons": [
            {"reason": reason, "count": count}
            for reason, count in Counter(row["unscored_reason"] for row in missing).most_common(5)
        ],
        "judge": ", ".join(sorted({row["judge_model"] for row in rows})) or "none",
    }
    for suite in dict.fromkeys(row["suite"] for row in rows):
        of_suite = [row for row in rows if row["suite"] == suite]
        for dimension, values in _by(of_suite, "dimension", "score").items():
            facts[f"{suite}_{dimension}"] = sum(values) / len(values)
    return facts


def _by(rows: Sequence[Row], name: str, value: str) -> dict[str, list[float]]:
    groups: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row[value] is not None:
            groups[row[name]].append(row[value])
    return groups
