"""Evaluates a checkpoint's asset checks as its stages are made, and keeps failures for those who want to be told."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

import dagster as dg

from ml_pipeline.assets.check_specs import ANSWERS_ARE_JUDGED, ANSWERS_ARE_SCORED
from ml_pipeline.assets.checks import (
    adapter_check,
    adapter_not_applied,
    degeneration_checks,
    regression_check,
    unscored_check,
)
from ml_pipeline.assets.failed_checks import keep_to_be_told
from ml_pipeline.checkpoints.checkpoint import Checkpoint
from ml_pipeline.checkpoints.naming import partition_key
from ml_pipeline.evaluation.evaluator import StageResult
from ml_pipeline.settings import BASE_SOURCE, Settings

Row = dict[str, Any]


class CheckpointChecks:
    """The checks of one run of the scoring op; `selected` are those that the run is to evaluate.

    `stored_rows(table, partition_key)` gives what is stored; `warn` is told what could not be kept to be told.
    `position` says the how manieth of its run a checkpoint is, from 1.
    """

    def __init__(
        self,
        settings: Settings,
        stored_rows: Callable[[str, str], list[Row]],
        selected: Collection[dg.AssetCheckKey],
        warn: Callable[[str], None],
        position: Callable[[Checkpoint], int] = lambda checkpoint: 1,
    ) -> None:
        self._settings = settings
        self._stored_rows = stored_rows
        self._selected = selected
        self._warn = warn
        self._position = position

    def after(self, checkpoint: Checkpoint, result: StageResult) -> Iterator[dg.AssetCheckEvaluation]:
        """The verdicts that follow from a stage that has just been stored."""
        yield from self._kept(self._of_stage(checkpoint, result))

    def not_applied(self, checkpoint: Checkpoint) -> Iterator[dg.AssetCheckEvaluation]:
        """The verdict on a checkpoint that has no answers because its adapter was not applied."""
        yield from self._kept([adapter_not_applied(checkpoint.key, self._settings.checks.adapter_applied)])

    def _of_stage(self, checkpoint: Checkpoint, result: StageResult) -> Iterable[dg.AssetCheckEvaluation]:
        key, checks = checkpoint.key, self._settings.checks
        if result.stage == "responses":
            return [adapter_check(key, result.tables["evaluations"], checks.adapter_applied)]
        if result.stage == "probe_results":
            rows = result.tables["probe_results"]
            return [unscored_check(ANSWERS_ARE_SCORED, key, rows, "passed", checks.unscored)]
        if result.stage == "degeneration":
            rows = result.tables["degeneration"]
            base_rows, position = self._base_rows("degeneration", checkpoint) or [], self._position(checkpoint)
            return degeneration_checks(key, rows, base_rows, checks, position, self._samples(key))
        if result.stage == "checkpoint_scores":
            results, base = self._stored_rows("probe_results", key), self._base_rows("probe_results", checkpoint)
            return [regression_check(key, results, base, checks.regression, self._position(checkpoint))]
        if result.stage == "judgements":
            return [unscored_check(ANSWERS_ARE_JUDGED, key, result.tables["judgements"], "score", checks.unscored)]
        return []

    def _samples(self, key: str) -> dict[str, int]:
        """How often each suite asked each probe."""
        asked: dict[str, int] = {}
        for row in self._stored_rows("responses", key):
            asked[row["suite"]] = max(row["sample"], asked.get(row["suite"], 1))
        return asked

    def _base_rows(self, table: str, checkpoint: Checkpoint) -> list[Row] | None:
        """The base's rows; None for the base itself, which is compared with nothing."""
        base = partition_key(BASE_SOURCE, checkpoint.base_model, 0)
        return None if checkpoint.is_base else self._stored_rows(table, base)

    def _kept(self, evaluations: Iterable[dg.AssetCheckEvaluation]) -> Iterator[dg.AssetCheckEvaluation]:
        for evaluation in evaluations:
            if evaluation.asset_check_key in self._selected:
                keep_to_be_told(self._settings, evaluation, self._warn)
                yield evaluation
