"""Results and samples as lm-evaluation-harness writes them, for programs that read its files.

<folder>/<partition key>/results_<time>.json              the figures of every suite, each a task
<folder>/<partition key>/samples_<suite>_<time>.jsonl     one line an answer and filter

Metrics: acc (`passed`), acc_norm, judge_<dimension> and lek. A figure that could not be made is left out of sample and
mean. Standard errors are worked out as lm-eval does, answers taken as independent; our intervals do not, see the
score table. Format: lm_eval/result_schema.py and evaluation_tracker.py of lm-eval 0.4.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_pipeline.exports.evaluated import Answered, Evaluated, file_part, mean_and_error
from ml_pipeline.files import write_atomically

_FILTERS = {"none": "", "strict-match": "strict_", "flexible-extract": "flexible_"}
"""lm-eval's name of each filter, and how the columns of probe_results that it gave begin."""
_PROVENANCE = "ml_pipeline"


def write_lm_eval(folder: Path, suites: Sequence[Evaluated]) -> list[Path]:
    """Write one checkpoint's files, of at least one suite; return their paths. The same scores give the same files.

    Raises:
        StoreError, StoreFullError: a file cannot be written.
    """
    key = suites[0].evaluation["partition_key"]
    newest = max(suite.evaluation["scored_at"] for suite in suites)
    time = newest.replace(tzinfo=None).isoformat(timespec="microseconds").replace(":", "-")
    written = []
    hashes = {}
    for suite in suites:
        samples = list(_samples(suite))
        together = "".join(s["doc_hash"] + s["prompt_hash"] + s["target_hash"] for s in samples)
        hashes[suite.evaluation["suite"]] = _hash(together)
        path = folder / file_part(key) / f"samples_{file_part(suite.evaluation['suite'])}_{time}.jsonl"
        write_atomically(path, "".join(f"{json.dumps(one, ensure_ascii=False)}\n" for one in samples).encode())
        written.append(path)
    path = folder / file_part(key) / f"results_{time}.json"
    content = {**_results(suites), "date": newest.timestamp(), "task_hashes": hashes}
    write_atomically(path, json.dumps(content, indent=2, ensure_ascii=False).encode())
    return [path, *written]


def _results(suites: Sequence[Evaluated]) -> dict[str, Any]:
    first = suites[0].evaluation
    key = first["partition_key"]
    by_name = {suite.evaluation["suite"]: suite for suite in suites}
    return {
        "results": {name: _task(suite) for name, suite in by_name.items()},
        "group_subtasks": {name: [] for name in by_name},
        "configs": {name: _task_config(suite) for name, suite in by_name.items()},
        "versions": {name: suite.evaluation["suite_version"] for name, suite in by_name.items()},
        "n-shot": dict.fromkeys(by_name, 0),
        "higher_is_better": {
            name: {metric: True for metric in suite.values() if not metric.startswith("judge_")}
            for name, suite in by_name.items()
        },
        "n-samples": {
            name: {"original": len(suite.answers), "effective": sum(bool(one.metrics()) for one in suite.answers)}
            for name, suite in by_name.items()
        },
        "config": {
            "model": first["backend"],
            "model_args": {"pretrained": first["base_model"], "model": key},
            "gen_kwargs": {name: suite.options for name, suite in by_name.items()},
        },
        "git_hash": None,
        "model_source": first["backend"],
        "model_name": key,
        "model_name_sanitized": key,
        "system_instruction": None,
        "chat_template": None,
        "chat_template_sha": first["chat_template_sha256"],
        _PROVENANCE: {name: _plain(suite.evaluation) for name, suite in by_name.items()},
    }


def _task(suite: Evaluated) -> dict[str, Any]:
    task: dict[str, Any] = {"name": suite.evaluation["suite"], "alias": suite.evaluation["suite"]}
    task["sample_len"] = len(suite.answers)
    for metric, values in suite.values().items():
        _add(task, metric, "none", values)
    for name, prefix in _FILTERS.items():
        found = [a.result[f"{prefix}passed"] for a in suite.answers if a.result is not None]
        scored = [float(value) for value in found if value is not None]
        if prefix and scored:
            _add(task, "acc", name, scored)
    return task


def _add(task: dict[str, Any], metric: str, filter_name: str, values: Sequence[float]) -> None:
    mean, error = mean_and_error(values)
    task[f"{metric},{filter_name}"] = mean
    task[f"{metric}_stderr,{filter_name}"] = "N/A" if error is None else error


def _task_config(suite: Evaluated) -> dict[str, Any]:
    return {
        "task": suite.evaluation["suite"],
        "output_type": "multiple_choice" if _chooses(suite) else "generate_until",
        "num_fewshot": 0,
        "repeats": suite.options.get("samples", 1),
        "generation_kwargs": _generation(suite.options),
        "metadata": {"version": suite.evaluation["suite_version"], "sha256": suite.evaluation["suite_sha256"]},
    }


def _chooses(suite: Evaluated) -> bool:
    return any(answer.response["choice_log_probabilities"] is not None for answer in suite.answers)


def _generation(options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "until": options["stop"],
        "max_gen_toks": options["max_tokens"],
        "temperature": options["temperature"],
        "do_sample": options["temperature"] > 0,
    }


def _samples(suite: Evaluated) -> Iterator[dict[str, Any]]:
    """One an answer and filter; a probe that is asked several times is one document of several answers."""
    numbers: dict[str, int] = {}
    for answer in suite.answers:
        number = numbers.setdefault(answer.response["probe_id"], len(numbers))
        for name, prefix in _FILTERS.items():
            if not prefix or (answer.result is not None and answer.result[f"{prefix}passed"] is not None):
                yield _sample(suite, answer, number, name, prefix)


def _sample(suite: Evaluated, answer: Answered, number: int, filter_name: str, prefix: str) -> dict[str, Any]:
    row, result = answer.response, answer.result
    target = "" if result is None else result["expected"] or ""
    read = result[f"{prefix}extracted"] if result is not None else None
    doc = {
        name: row[name] for name in ("probe_id", "category", "template", "sample", "prompt", "finish_reason", "error")
    }
    if row["choice_log_probabilities"] is not None:
        doc["choice_log_probabilities"] = json.loads(row["choice_log_probabilities"])
    metrics = {"acc": float(result[f"{prefix}passed"])} if prefix and result is not None else answer.metrics()
    return {
        "doc_id": number,
        "doc": doc,
        "target": target,
        "arguments": {"gen_args_0": {"arg_0": row["rendered_prompt"], "arg_1": _generation(suite.options)}},
        "resps": [[row["response"]]],
        "filtered_resps": [row["response"] if read is None else read],
        "filter": filter_name,
        "metrics": list(metrics),
        "doc_hash": _hash(json.dumps(doc, indent=2, ensure_ascii=False)),
        "prompt_hash": _hash(row["rendered_prompt"]),
        "target_hash": _hash(target),
        **metrics,
    }


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as JSON has it."""
    return {name: value.isoformat() if hasattr(value, "isoformat") else value for name, value in row.items()}


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
