"""Checkpoints whose newest attempt to be scored failed, and why."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ml_pipeline.printable import printable, printable_line
from ml_pipeline.settings import BASE_SOURCE

if TYPE_CHECKING:
    from ml_pipeline.reports.scores import Scores

_REASON_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Failure:
    """A checkpoint that could not be scored: at which stage, and why."""

    partition_key: str
    source: str
    run: str
    label: str
    iteration: int
    stage: str
    reason: str
    failed_at: datetime

    @property
    def is_base(self) -> bool:
        """Whether it is a bare base model."""
        return self.source == BASE_SOURCE

    @property
    def name(self) -> str:
        """The checkpoint as a reader knows it: its run and iteration, or the base model."""
        run = printable(f"{self.source}/{self.run}", 100)
        return run if self.is_base else f"{run} @{self.iteration}"

    @property
    def words(self) -> str:
        """Why, on one line, cut where it is long."""
        return printable_line(self.reason, _REASON_CHARACTERS)


def current_failures(scores: Scores) -> tuple[Failure, ...]:
    """The failures that no later scores have made out of date, by source, run and iteration.

    A checkpoint that failed and has scores is there with both: its scores are those of an earlier version or attempt.
    """
    if scores.failures.empty:
        return ()
    newest: Mapping[Any, Any] = scores.identities().groupby("partition_key")["scored_at"].max().to_dict()
    found = [_failure(row) for row in scores.failures.to_dict("records")]
    standing = [one for one in found if not (at := newest.get(one.partition_key)) or at <= one.failed_at]
    return tuple(sorted(standing, key=lambda one: (not one.is_base, one.source, one.run, one.iteration)))


def failures_by_run(failures: Iterable[Failure]) -> dict[tuple[str, str], tuple[Failure, ...]]:
    """The failures of each run, by source and run."""
    by_run: dict[tuple[str, str], list[Failure]] = defaultdict(list)
    for failure in failures:
        by_run[failure.source, failure.run].append(failure)
    return {run: tuple(found) for run, found in by_run.items()}


def _failure(row: Mapping[Any, Any]) -> Failure:
    label = row["label"]
    known = label is not None and not (isinstance(label, float) and math.isnan(label))
    return Failure(
        partition_key=str(row["partition_key"]),
        source=str(row["source"]),
        run=str(row["run"]),
        label=str(label) if known else "",
        iteration=int(row["iteration"]),
        stage=str(row["stage"]),
        reason=str(row["reason"]),
        failed_at=row["failed_at"],
    )
