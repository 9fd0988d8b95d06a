"""One row that the original left, whatever file it was in, as a row of this program's tables."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from ml_pipeline.checkpoints.naming import partition_key, run_id
from ml_pipeline.scoring.means import wilson_interval
from ml_pipeline.settings import IMPORTED_SOURCE
from ml_pipeline.stores.tables import CHECKPOINT_SCORES, JUDGEMENTS, PROBE_RESULTS

CAPABILITY, CONTENT = "capability", "content"
_SUITE_SUFFIX = re.compile(r"-(capability|content)-auto$")
_ITERATION = re.compile(r"@\s*(\d{1,12})$")
NOT_RECORDED = {
    CHECKPOINT_SCORES.name: "unscored is 0: the original counted an answer that could not be made as a wrong one.",
    PROBE_RESULTS.name: "expected, extracted, finish_reason: the original recorded none. response: its first 300 bytes "
    "at most. An answer that could not be made counted as a wrong one.",
    JUDGEMENTS.name: "rubric, judge_model, transcript, explanation, votes: the original recorded none.",
}
"""Why columns of imported rows are empty, by table."""


@dataclass(frozen=True)
class PastRow:
    """One row that the original left.

    `table` is where it goes, `key` names it there within checkpoint and suite, and `values` are the columns that the
    original recorded. `run_id` is written as the original did. `recorded_at` is when the original scored it, None
    where it did not say.
    """

    table: str
    suite: str
    model: str
    run_id: str
    label: str
    iteration: int
    key: tuple[str, ...]
    values: Mapping[str, Any]
    recorded_at: datetime | None = None

    @property
    def run(self) -> str:
        """The training run, as far as a run id tells: '/' in its name had become '-'."""
        return run_of(self.run_id)

    @cached_property
    def partition_key(self) -> str:
        """The imported checkpoint's partition; raises CheckpointError when the run's name is too long for one."""
        return partition_key(IMPORTED_SOURCE, self.run, self.iteration)

    @property
    def evaluation_id(self) -> str:
        """Names this evaluation; no measured one has such an id."""
        return _hash(["imported evaluation", self.partition_key, self.suite])

    def columns(self, scored_at: datetime) -> dict[str, Any]:
        """The row as its table has it; what the original did not record is None."""
        return {
            "partition_key": self.partition_key,
            "source": IMPORTED_SOURCE,
            "run": self.run,
            "run_id": run_id(self.run),
            "label": self.label,
            "model": self.model,
            "base_model": self.model,
            "iteration": self.iteration,
            "suite": self.suite,
            "evaluation_id": self.evaluation_id,
            # Never that of measured rows: those are of another suite, and base, quantisation and backend are unknown.
            "protocol_id": _hash(["imported protocol", self.model, self.suite]),
            "scored_at": scored_at,
            **_EMPTY[self.table],
            **self.values,
        }


_EMPTY: dict[str, dict[str, Any]] = {
    table.name: {column.name: None for column in table.columns if column.nullable} | present
    for table, present in ((CHECKPOINT_SCORES, {"unscored": 0}), (PROBE_RESULTS, {"sample": 1}), (JUDGEMENTS, {}))
}


def run_of(run_id: str) -> str:
    """The training run of a run id as the original wrote it, which may name a suite too."""
    return _SUITE_SUFFIX.sub("", run_id)


def accuracy_values(category: str, correct: int, total: int) -> dict[str, Any]:
    """The columns of checkpoint_scores that counts give; raises ValueError for counts that cannot be."""
    if correct > total:
        raise ValueError(f"'correct' is {correct} of a 'total' of {total}")
    low, high = wilson_interval(correct, total) if total else (None, None)
    return {
        "category": category,
        "correct": correct,
        "total": total,
        "accuracy": correct / total if total else None,
        "accuracy_low": low,
        "accuracy_high": high,
    }


def check_accuracy(accuracy: float, correct: int, total: int) -> None:
    """Refuse an accuracy (percent or share, rounded to a tenth of a percent) that its counts do not give."""
    share = correct / total if total else 0.0
    if abs(accuracy - 100 * share) > 0.051 and abs(accuracy - share) > 0.00051:
        raise ValueError(f"'accuracy' is {accuracy:g}, but {correct} of {total} is {100 * share:.1f}%")


def iteration_of(label: str) -> int:
    """The iteration at the end of a label, `G1-lek @0000100`; raises ValueError where there is none."""
    match = _ITERATION.search(label)
    if match is None:
        raise ValueError(f"the label {label!a:.60} does not end with '@' and an iteration")
    return int(match[1])


def _hash(content: list[str]) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
