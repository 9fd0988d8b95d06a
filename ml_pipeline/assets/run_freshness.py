"""The asset check of training runs: which of them have stalled.

A check of our own and not a freshness policy of Dagster's, which knows one deadline for an asset as a whole: the runs
of several machines write at paces of their own, and come to an end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

import dagster as dg

from ml_pipeline.assets.check_specs import RUNS_GO_ON
from ml_pipeline.assets.checks import evaluation
from ml_pipeline.assets.failed_checks import keep_to_be_told
from ml_pipeline.assets.specs import TRAINING_RUNS
from ml_pipeline.checkpoints.catalogue import Catalogue
from ml_pipeline.checkpoints.checkpoint import Checkpoint
from ml_pipeline.checkpoints.run_pace import StalledRun, planned_iterations, stalled_runs
from ml_pipeline.errors import CheckpointError
from ml_pipeline.markdown import markdown_words
from ml_pipeline.monitoring_settings import FreshnessCheck
from ml_pipeline.resources import PipelineResource
from ml_pipeline.settings import Settings

_TOLD = 5
_THROUGH: dict[tuple[str, str, int], int] = {}
"""With how many iterations silent runs are through, of those that are, by source, file and time of the newest."""


def find_stalled(catalogue: Catalogue, checkpoints: Iterable[Checkpoint], settings: FreshnessCheck) -> list[StalledRun]:
    """The stalled runs among these checkpoints; a source that cannot be asked how long a run is to be tells nothing."""

    def planned(newest: Checkpoint) -> int | None:
        name = (newest.source, newest.file, newest.mtime_ns)
        if name in _THROUGH:
            return _THROUGH[name]
        try:
            last = planned_iterations(catalogue.source(newest.source), newest)
        except CheckpointError:
            return None
        if last is not None and last <= newest.iteration:
            _THROUGH[name] = last
        return last

    return stalled_runs(checkpoints, settings, time.time_ns(), planned)


def freshness_news(
    before: Sequence[StalledRun] | None, now: Sequence[StalledRun], settings: Settings, warn: Callable[[str], None]
) -> list[dg.AssetCheckEvaluation]:
    """The verdict where it is not the one of before (None: there was none); a run that has newly stalled is kept to be
    told."""
    if before is not None and _names(before) == _names(now):
        return []
    verdict = freshness_evaluation(now, settings.checks.freshness)
    if _names(now) - _names(before or ()):
        keep_to_be_told(settings, verdict, warn)
    return [verdict]


def freshness_evaluation(stalled: Sequence[StalledRun], settings: FreshnessCheck) -> dg.AssetCheckEvaluation:
    """The verdict on all training runs."""
    told = [
        f"{markdown_words(f'{one.source}/{one.run}')}: nothing since iteration {one.iteration} at {_at(one)}, "
        f"usually every {_duration(one.interval_s)}"
        for one in stalled
    ]
    if len(told) > _TOLD:
        told[_TOLD:] = [f"and {len(told) - _TOLD} more"]
    table = [
        {
            "source": one.source,
            "run": one.run,
            "last_iteration": one.iteration,
            "written_at": _at(one),
            "usual_interval": _duration(one.interval_s),
        }
        for one in stalled
    ]
    description = "; ".join(told) or "every run goes on, is through, or has been silent for so long that it is over"
    return evaluation(RUNS_GO_ON, None, settings.severity, not stalled, description, stalled_runs=table)


@dg.asset_check(name=RUNS_GO_ON.name, asset=TRAINING_RUNS, description=RUNS_GO_ON.description)
def runs_go_on(pipeline: PipelineResource) -> dg.AssetCheckResult:
    """Looks through every source now."""
    settings = pipeline.settings()
    catalogue = Catalogue(settings)
    found = catalogue.look()
    verdict = freshness_evaluation(
        find_stalled(catalogue, found.checkpoints, settings.checks.freshness), settings.checks.freshness
    )
    return dg.AssetCheckResult(
        passed=verdict.passed,
        severity=verdict.severity,
        description="\n".join([verdict.description or "", *map(markdown_words, found.problems)]),
        metadata=verdict.metadata,
    )


def _names(stalled: Iterable[StalledRun]) -> set[tuple[str, str, int]]:
    return {(one.source, one.run, one.newest_ns) for one in stalled}


def _at(one: StalledRun) -> str:
    return datetime.fromtimestamp(one.newest_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _duration(seconds: float) -> str:
    for unit, name in ((3600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds:.0f} s"
