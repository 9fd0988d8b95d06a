"""Logs as Inspect (inspect_ai) writes them, one a checkpoint and suite, for `inspect view` and its Python API.

Scores of a sample: `passed` (C or I), the judge's dimensions, and `lek`. A figure that could not be made is absent, and
the sample's metadata says why. Format: inspect_ai's EvalLog, version 2, as JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_pipeline.exports.evaluated import Answered, Evaluated, file_part, mean_and_error
from ml_pipeline.files import write_atomically

_VERSION = 2
_STOP_REASONS = {"stop": "stop", "length": "max_tokens"}
_SCORERS = {"acc": "passed", "acc_norm": "passed_normalised"}


def write_inspect_log(folder: Path, suite: Evaluated) -> Path:
    """Write one log; return its path. The same scores give the same file.

    Raises:
        StoreError, StoreFullError: the file cannot be written.
    """
    row = suite.evaluation
    time = row["scored_at"].isoformat(timespec="seconds").replace(":", "-")
    # Inspect reads time, task and id out of the name: '_' parts them, and '.' ends the last.
    task, name = (re.sub("[._]", "-", file_part(row[part])) for part in ("suite", "partition_key"))
    path = folder / f"{time}_{task}_{name}-{file_part(row['evaluation_id'])}.json"
    write_atomically(path, json.dumps(_log(suite), indent=1, ensure_ascii=False).encode())
    return path


def _log(suite: Evaluated) -> dict[str, Any]:
    row, model = suite.evaluation, _model(suite)
    created = row["scored_at"].isoformat()
    settings = _generation(suite.options)
    usage = {
        "input_tokens": sum(answer.response["prompt_tokens"] for answer in suite.answers),
        "output_tokens": sum(answer.response["completion_tokens"] for answer in suite.answers),
    }
    return {
        "version": _VERSION,
        "status": "success",
        "eval": {
            "eval_id": row["evaluation_id"],
            "run_id": row["evaluation_id"],
            "created": created,
            "task": row["suite"],
            "task_id": row["protocol_id"],
            "task_version": row["suite_version"],
            "dataset": {
                "name": row["suite"],
                "samples": len({answer.response["probe_id"] for answer in suite.answers}),
                "sample_ids": list(dict.fromkeys(answer.response["probe_id"] for answer in suite.answers)),
                "shuffled": False,
            },
            "model": model,
            "model_generate_config": settings,
            "model_args": {},
            "config": {"epochs": suite.options.get("samples", 1)},
            "metadata": {name: _plain(value) for name, value in row.items()},
        },
        "plan": {"name": "plan", "steps": [{"solver": "generate", "params": {}}], "config": settings},
        "results": _results(suite),
        "stats": {"completed_at": created, "model_usage": {model: _usage(**usage)}},
        "samples": [_sample(suite, answer) for answer in suite.answers],
    }


def _model(suite: Evaluated) -> str:
    """The model's name as Inspect has it, provider first."""
    return f"{suite.evaluation['backend']}/{suite.evaluation['partition_key']}"


def _generation(options: Mapping[str, Any]) -> dict[str, Any]:
    names = {"max_tokens": "max_tokens", "temperature": "temperature", "top_p": "top_p", "seed": "seed"}
    found = {theirs: options[ours] for ours, theirs in names.items() if ours in options}
    return {**found, "stop_seqs": options["stop"]} if options.get("stop") else found


def _results(suite: Evaluated) -> dict[str, Any]:
    scores = []
    for metric, values in suite.values().items():
        mean, error = mean_and_error(values)
        kind = "accuracy" if metric in _SCORERS else "mean"
        figures = {kind: mean} if error is None else {kind: mean, "stderr": error}
        scores.append(
            {
                "name": _score_name(metric),
                "scorer": _score_name(metric),
                "scored_samples": len(values),
                "unscored_samples": sum(metric in answer.unscored() for answer in suite.answers),
                "params": {},
                "metrics": {name: {"name": name, "value": value, "params": {}} for name, value in figures.items()},
            }
        )
    ended = [answer for answer in suite.answers if answer.response["error"] is None]
    return {"total_samples": len(suite.answers), "completed_samples": len(ended), "scores": scores}


def _sample(suite: Evaluated, answer: Answered) -> dict[str, Any]:
    row, result, model = answer.response, answer.result, _model(suite)
    said = {"role": "assistant", "content": row["response"], "source": "generate", "model": model}
    usage = _usage(row["prompt_tokens"], row["completion_tokens"])
    sample = {
        "id": row["probe_id"],
        "epoch": row["sample"],
        "input": row["prompt"],
        "target": "" if result is None else result["expected"] or "",
        "messages": [{"role": "user", "content": row["prompt"], "source": "input"}, said],
        "output": {
            "model": model,
            "choices": [{"message": said, "stop_reason": _STOP_REASONS.get(row["finish_reason"], "unknown")}],
            "usage": usage,
            "time": row["seconds"],
            "error": row["error"],
        },
        "scores": _scores(answer),
        "metadata": {
            "category": row["category"],
            "template": row["template"],
            "rendered_prompt": row["rendered_prompt"],
            "choice_log_probabilities": row["choice_log_probabilities"],
            "unscored": answer.unscored(),
        },
        "model_usage": {model: usage},
        "total_time": row["seconds"],
    }
    if row["error"] is not None:
        sample["error"] = {"message": row["error"], "traceback": "", "traceback_ansi": ""}
    return sample


def _scores(answer: Answered) -> dict[str, Any]:
    explanations = {f"judge_{row['dimension']}": row["explanation"] for row in answer.judged}
    found = {}
    for metric, value in answer.metrics().items():
        score: dict[str, Any] = {"value": ("C" if value else "I") if metric in _SCORERS else value}
        if metric in _SCORERS and answer.result is not None:
            score["answer"] = answer.result["extracted"]
        if explanations.get(metric):
            score["explanation"] = explanations[metric]
        found[_score_name(metric)] = score
    return found


def _score_name(metric: str) -> str:
    return _SCORERS.get(metric, metric)


def _usage(input_tokens: int, output_tokens: int) -> dict[str, int]:
    total = input_tokens + output_tokens
    return {"input_tokens": input_tokens, "output_tokens": output_tokens, "total_tokens": total}


def _plain(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else value
