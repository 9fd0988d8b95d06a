"""The asset check of degeneration: by checkpoint, a warning, and beside the base where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg

from ml_pipeline.assets.checks import DEGENERATION_CHECK, degeneration_check
from ml_pipeline.automation.partitions import CHECKPOINT_PARTITIONS, range_tags
from ml_pipeline.evaluation.mark import degeneration
from ml_pipeline_tests.evaluation.rows import response

PROBES = ("sum", "product", "opposite", "essay")


def rows(cut: int, **changes: Any) -> list[dict[str, Any]]:
    reasons = ["length"] * cut + ["stop"] * (4 - cut)
    return degeneration(
        [
            response(probe, "The answer is four.", finish_reason=reason, **changes)
            for probe, reason in zip(PROBES, reasons, strict=True)
        ]
    )


def test_half_of_the_answers_cut_is_a_warning() -> None:
    found = degeneration_check("k", rows(cut=2), [])
    assert (found.passed, found.severity, found.partition) == (False, dg.AssetCheckSeverity.WARN, "k")
    assert found.description == "short: 50% truncated answers"
    assert found.metadata["compared_with_base"].value is False


def test_a_base_that_is_cut_as_often_excuses_a_checkpoint_of_its_protocol_only() -> None:
    assert degeneration_check("k", rows(cut=2), rows(cut=1)).passed
    other = rows(cut=1, protocol_id="another")
    found = degeneration_check("k", rows(cut=2), other)
    assert not found.passed
    assert found.metadata["compared_with_base"].value is False


def test_sound_answers_pass() -> None:
    found = degeneration_check("k", rows(cut=0), [])
    assert (found.passed, found.description) == (True, "no sign of degeneration")


def test_dagster_records_the_verdict_of_every_checkpoint_of_a_run() -> None:
    @dg.multi_asset(
        specs=[dg.AssetSpec("degeneration", skippable=True)],
        check_specs=[DEGENERATION_CHECK],
        partitions_def=CHECKPOINT_PARTITIONS,
        backfill_policy=dg.BackfillPolicy.multi_run(4),
        can_subset=True,
    )
    def scored() -> Iterator[dg.AssetMaterialization | dg.AssetCheckEvaluation]:
        for partition, cut in (("a", 3), ("b", 0)):
            yield dg.AssetMaterialization("degeneration", partition=partition)
            yield degeneration_check(partition, rows(cut), [])

    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("checkpoint", ["a", "b"])
        run = dg.materialize([scored], instance=instance, tags=range_tags(["a", "b"]))
        assert run.success
        logs = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
        found = [entry.dagster_event.asset_check_evaluation_data for entry in logs if entry.dagster_event is not None]
    verdicts = {evaluation.partition: evaluation.passed for evaluation in found}
    assert verdicts == {"a": False, "b": True}
