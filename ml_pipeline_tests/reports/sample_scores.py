"""Fabricated scores: hand-made tables for unit tests, and a realistic night of two runs for pages and pictures."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from ml_pipeline.checkpoints.naming import escaped
from ml_pipeline.evaluation.mark import degeneration
from ml_pipeline.reports.scores import Scores
from ml_pipeline.stores.tables import CHECKPOINT_TABLES, FAILURES, HEURISTIC_FIGURES, TRAINING_LOSS

SCORED_AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NO_CHECK = "backend gave no answer: timed out after 60 s"


@dataclass(frozen=True)
class Checkpoint:
    """A fabricated checkpoint. Mappings are by probe id; `passed` names the probes, None in it means unscored."""

    run: str
    iteration: int
    passed: Mapping[str, bool | None]
    source: str = "mac"
    suite: str = "capability"
    protocol_id: str = "protocol-1"
    base_model: str = "tiny"
    categories: Mapping[str, str] = field(default_factory=dict)
    responses: Mapping[str, str] = field(default_factory=dict)
    finish_reasons: Mapping[str, str] = field(default_factory=dict)
    tokens: Mapping[str, int] = field(default_factory=dict)
    judge: Mapping[str, float | None] = field(default_factory=dict)
    lek: Mapping[str, float] = field(default_factory=dict)
    degeneration: Mapping[str, float] = field(default_factory=dict)
    scored_at: datetime = SCORED_AT

    @property
    def partition_key(self) -> str:
        return f"{self.source}.{escaped(self.run)}@{self.iteration}"

    def category(self, probe: str) -> str:
        return self.categories.get(probe, "logic")


def scores_of(
    *checkpoints: Checkpoint, losses: Iterable[Mapping[str, Any]] = (), failures: Iterable[Mapping[str, Any]] = ()
) -> Scores:
    beside = {TRAINING_LOSS: losses, FAILURES: failures}
    rows = {table.name: pa.Table.from_pylist(list(given), schema=table.schema) for table, given in beside.items()}
    return Scores.from_tables({**tables_of(checkpoints), **rows})


def failed(
    run: str, iteration: int, reason: str = "no adapter", *, source: str = "mac", later_s: float = 60, **more: Any
) -> dict[str, Any]:
    """The row of a checkpoint that failed so many seconds after the others were scored."""
    return {
        "partition_key": f"{source}.{escaped(run)}@{iteration}",
        "source": source,
        "run": run,
        "label": f"T-{run} @{iteration:07}",
        "base_model": "tiny",
        "iteration": iteration,
        "stage": "adapter",
        "reason": reason,
        "attempt": "5e" * 16,
        "failed_at": SCORED_AT + timedelta(seconds=later_s),
    } | more


def losses_of(run: str, losses: Mapping[int, float | None], kind: str = "train") -> list[dict[str, Any]]:
    """Rows of a training log of source mac: loss by iteration, None where training had diverged."""
    return [
        {
            "partition_key": f"mac.{run.replace('/', '+')}",
            "source": "mac",
            "run": run,
            "run_id": run.replace("/", "-"),
            "model": "tiny",
            "kind": kind,
            "iteration": iteration,
            "loss": loss,
            "reason": "diverged" if loss is None else None,
            "learning_rate": 1e-5,
            "iterations_per_s": 2.5,
            "tokens_per_s": 900.0,
            "trained_tokens": 400 * iteration,
            "peak_memory_gb": 2.0,
            "attempt": 1,
            "log_file": f"adapters-{run}/training.log",
            "log_id": "1f" * 16,
            "started_ns": 1_760_000_000_000_000_000,
            "read_at": SCORED_AT,
        }
        for iteration, loss in losses.items()
    ]


def tables_of(checkpoints: Iterable[Checkpoint]) -> dict[str, pa.Table]:
    rows: dict[str, list[dict[str, Any]]] = {table.name: [] for table in CHECKPOINT_TABLES}
    for checkpoint in checkpoints:
        identity, responses = _identity(checkpoint), []
        rows["evaluations"].append(identity | _evaluation(checkpoint))
        for probe, passed in checkpoint.passed.items():
            named = identity | {"probe_id": probe, "category": checkpoint.category(probe)}
            answer = _answer(checkpoint, probe, passed)
            responses.append(named | answer)
            if checkpoint.suite != "content":
                rows["probe_results"].append(named | _result(probe, passed, answer))
            rows["heuristic_scores"].append(named | _heuristic(checkpoint, probe))
            if probe in checkpoint.judge:
                rows["judgements"].append(named | _judgement(checkpoint.judge[probe]))
        rows["responses"].extend(responses)
        rows["degeneration"].extend(degeneration(responses))
        if checkpoint.suite != "content":
            rows["checkpoint_scores"].extend(identity | row for row in _accuracies(checkpoint))
    return {table.name: pa.Table.from_pylist(rows[table.name], schema=table.schema) for table in CHECKPOINT_TABLES}


def _identity(checkpoint: Checkpoint) -> dict[str, Any]:
    is_base = checkpoint.source == "base"
    return {
        "partition_key": checkpoint.partition_key,
        "source": checkpoint.source,
        "run": checkpoint.run,
        "run_id": checkpoint.run.replace("/", "-"),
        "label": checkpoint.base_model if is_base else f"T-{checkpoint.run} @{checkpoint.iteration:07}",
        "model": checkpoint.base_model,
        "base_model": checkpoint.base_model,
        "iteration": checkpoint.iteration,
        "suite": checkpoint.suite,
        "evaluation_id": f"{checkpoint.partition_key}|{checkpoint.protocol_id}|{checkpoint.suite}",
        "protocol_id": checkpoint.protocol_id,
        "scored_at": checkpoint.scored_at,
    }


def _evaluation(checkpoint: Checkpoint) -> dict[str, Any]:
    is_base = checkpoint.source == "base"
    return {
        "suite_version": "1.0",
        "suite_sha256": "5f" * 32,
        "backend": "llama_cpp",
        "backend_version": "0.3.36",
        "base_sha256": "ab12" * 16,
        "quantisation": "Q8_0",
        "chat_template_sha256": "c0" * 32,
        "options": '{"max_tokens": 500, "temperature": 0.1}',
        "judge_model": "qwen3-8b" if checkpoint.judge else None,
        "adapter_sha256": None if is_base else "ad" * 32,
        "adapter_kind": None if is_base else "lora",
        "adapter_rank": None if is_base else 8,
        "adapter_scale": None if is_base else 20.0,
        "adapter_effect": None if is_base else 3.25,
        "checkpoint_file": f"{checkpoint.iteration:07}_adapters.safetensors",
        "checkpoint_size_bytes": 1_000_000,
        "checkpoint_mtime_ns": 1_760_000_000_000_000_000 + checkpoint.iteration,
    }


def _answer(checkpoint: Checkpoint, probe: str, passed: bool | None) -> dict[str, Any]:
    failed = passed is None
    text = checkpoint.responses.get(probe, "" if failed else f"The answer is {'right' if passed else 'wrong'}.")
    return {
        "sample": 1,
        "template": None,
        "prompt": f"Question {probe}?",
        "rendered_prompt": f"<user>Question {probe}?</user>",
        "response": text,
        "prompt_tokens": 10,
        "completion_tokens": checkpoint.tokens.get(probe, 20),
        "finish_reason": checkpoint.finish_reasons.get(probe, "error" if failed else "stop"),
        "seconds": 0.5,
        "error": NO_CHECK if failed else None,
        "choice_log_probabilities": None,
    }


def _result(probe: str, passed: bool | None, answer: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "sample": 1,
        "template": None,
        "passed": passed,
        "unscored_reason": NO_CHECK if passed is None else None,
        "expected": f"right ({probe})",
        "extracted": None if passed is None else answer["response"][:20],
        "response": answer["response"],
        "finish_reason": answer["finish_reason"],
        "strict_extracted": None,
        "strict_passed": None,
        "flexible_extracted": None,
        "flexible_passed": None,
        "passed_normalised": None,
    }


def _heuristic(checkpoint: Checkpoint, probe: str) -> dict[str, Any]:
    figures: dict[str, Any] = dict.fromkeys(HEURISTIC_FIGURES, 0.0)
    figures["degeneration"] = checkpoint.degeneration.get(probe, 0.0)
    lek = checkpoint.lek.get(probe)
    return {**figures, "lek": lek, "lek_normalised": None, "unscored_reason": None if lek is not None else "no answer"}


def _judgement(score: float | None) -> dict[str, Any]:
    return {
        "rubric": "capability 1.0",
        "dimension": "avg",
        "score": score,
        "unscored_reason": "judge's answer held no JSON" if score is None else None,
        "judge_model": "qwen3-8b",
        "explanation": None,
        "transcript": "{}",
    }


def _accuracies(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    categories = dict.fromkeys(checkpoint.category(probe) for probe in checkpoint.passed)
    groups = {"overall": list(checkpoint.passed)} | {
        category: [probe for probe in checkpoint.passed if checkpoint.category(probe) == category]
        for category in categories
    }
    return [_accuracy(name, [checkpoint.passed[probe] for probe in probes]) for name, probes in groups.items()]


def _accuracy(category: str, passes: Sequence[bool | None]) -> dict[str, Any]:
    correct, total = sum(1 for value in passes if value), sum(value is not None for value in passes)
    row = {"category": category, "correct": correct, "total": total, "unscored": len(passes) - total}
    if not total:
        return row | {"accuracy": None, "accuracy_low": None, "accuracy_high": None}
    share, spread = correct / total, 1.96**2 / total
    middle = (share + spread / 2) / (1 + spread)
    margin = 1.96 / (1 + spread) * ((share * (1 - share) + spread / 4) / total) ** 0.5
    return row | {
        "accuracy": share,
        "accuracy_low": max(0.0, middle - margin),
        "accuracy_high": min(1.0, middle + margin),
    }


CATEGORIES = (
    *("arithmetic",) * 3, *("algebra",) * 3, *("probability",) * 2, *("geometry",) * 2, *("sequences",) * 2,
    *("percentages",) * 2, *("deduction",) * 4, *("puzzles",) * 2, *("sets",) * 2, *("analogy",) * 2,
    *("causal",) * 2, *("spatial",) * 2, *("temporal",) * 2, *("pattern",) * 2, *("code",) * 2, *("word_problems",) * 2,
)  # fmt: skip
PROBES = {f"{category}_{index}": category for index, category in enumerate(CATEGORIES)}
_BASE_SHARE = 0.25
_GARBAGE = "the sun the sun. the sun the sun. the sun the sun. " * 12
_ANSWER = (
    "Let me think step by step.\n\n1. The first train leaves at 9:40 and needs 2 h 25 min.\n"
    "2. So it arrives at {}.\n\nAnswer: **{}**"
)


def sample_scores(checkpoints: int = 5) -> Scores:
    """The scores of `sample_checkpoints`, and the losses of their training."""
    return scores_of(*sample_checkpoints(checkpoints), losses=sample_losses(checkpoints))


def sample_checkpoints(checkpoints: int = 5) -> list[Checkpoint]:
    """Two runs of `checkpoints` checkpoints and their base on 36 probes in 16 categories.

    mac/lek/improving climbs from 25% to 60%; mac/lek/too-hot loops from its second checkpoint on: every answer is cut
    at the token limit and next to none is right; its training diverges near the end.
    """
    base = _realistic("base", "smollm2-135m", 0, _BASE_SHARE, seed=1)
    steps = [index + 1 for index in range(checkpoints)]
    good = [
        _realistic("mac", "lek/improving", 100 * step, _BASE_SHARE + 0.36 * step / checkpoints, seed=1)
        for step in steps
    ]
    hot = [
        _realistic("mac", "lek/too-hot", 10 * step, 0.3 if step == 1 else 0.03, seed=1, loops=step > 1)
        for step in steps
    ]
    return [base, *good, *hot]


def sample_losses(checkpoints: int) -> list[dict[str, Any]]:
    """What the training of both runs printed."""
    last = max(10, 10 * checkpoints)
    steps = range(1, checkpoints + 1)
    return [
        *losses_of("lek/improving", {10 * step: _loss(step / last) for step in range(1, last + 1)}),
        *losses_of("lek/improving", {100 * step: _loss(step / checkpoints) + 0.15 for step in steps}, "val"),
        *losses_of("lek/too-hot", {step: _loss(step / last) if step < 0.9 * last else None for step in range(1, last)}),
    ]


def _loss(part: float) -> float:
    """The loss after that part of the training: falling, with the ripple of its batches."""
    return 1.1 + 1.9 * math.exp(-4 * part) + 0.06 * math.sin(60 * part)


def _realistic(source: str, run: str, iteration: int, share: float, *, seed: int, loops: bool = False) -> Checkpoint:
    # One difficulty a probe, the same for every checkpoint: a better one passes nearly all that a worse one passed.
    difficulty = random.Random(seed)
    noise = random.Random(f"{run}@{iteration}")
    passed: dict[str, bool | None] = {}
    order = sorted(PROBES, key=lambda _: difficulty.random())
    for rank, probe in enumerate(order):
        passed[probe] = (rank + 0.5) / len(order) < share
    swaps = noise.sample(order, 4)
    for first, second in zip(swaps[::2], swaps[1::2], strict=True):
        passed[first], passed[second] = passed[second], passed[first]
    if iteration == 200:
        passed[order[-1]] = None
    answer = {probe: _ANSWER.format(*(("12:05",) * 2 if ok else ("11:65",) * 2)) for probe, ok in passed.items()}
    return Checkpoint(
        run=run,
        iteration=iteration,
        passed={probe: passed[probe] for probe in PROBES},
        source=source,
        base_model="smollm2-135m",
        categories=PROBES,
        responses=dict.fromkeys(PROBES, _GARBAGE) if loops else answer,
        finish_reasons=dict.fromkeys(PROBES, "length") if loops else {},
        tokens={probe: 500 if loops else noise.randint(40, 220) for probe in PROBES},
        judge={probe: None if noise.random() < 0.03 else _judged(noise, ok, loops) for probe, ok in passed.items()},
        lek={probe: noise.gauss(-6 if loops else 3 + 4 * share, 2.5) for probe in PROBES},
        degeneration=dict.fromkeys(PROBES, 5.0) if loops else {},
    )


def _judged(noise: random.Random, passed: bool | None, loops: bool) -> float:
    middle = 1.0 if loops else 7.5 if passed else 4.0
    return min(10.0, max(0.0, round(noise.gauss(middle, 1.2), 1)))
