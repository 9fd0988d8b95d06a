"""The asset checks of a checkpoint: what fails them and what does not, and that Dagster keeps every verdict."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from ml_pipeline.assets.check_specs import (
    ANSWERS_ARE_SCORED,
    ANSWERS_ARE_SOUND,
    ANSWERS_ARE_WHOLE,
    CHECKPOINT_CHECKS,
)
from ml_pipeline.assets.checks import (
    adapter_check,
    adapter_not_applied,
    degeneration_checks,
    regression_check,
    unscored_check,
)
from ml_pipeline.automation.partitions import CHECKPOINT_PARTITIONS, range_tags
from ml_pipeline.evaluation.mark import degeneration
from ml_pipeline.monitoring_settings import (
    AdapterCheck,
    AnswersCheck,
    ChecksSettings,
    RegressionCheck,
    UnscoredCheck,
)
from ml_pipeline.reports.passes import cut_by_protocol
from ml_pipeline.reports.runs import scored_points
from ml_pipeline_tests.evaluation.rows import evaluation, response
from ml_pipeline_tests.reports.sample_scores import Checkpoint, scores_of, tables_of
from ml_pipeline_tests.stores.samples import identity, probe_rows

PROBES = ("sum", "product", "opposite", "essay") * 3
WARN, ERROR = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR
DEFAULTS = ChecksSettings()


def signs(cut: int, text: str = "The answer is four.", **changes: Any) -> list[dict[str, Any]]:
    """Twelve answers, three to each probe, of which three times `cut` are cut."""
    reasons = ["length"] * (3 * cut) + ["stop"] * (12 - 3 * cut)
    return degeneration(
        [response(probe, text, finish_reason=reason, **changes) for probe, reason in zip(PROBES, reasons, strict=True)]
    )


def verdicts(
    rows: list[dict[str, Any]], base: list[dict[str, Any]], settings: ChecksSettings = DEFAULTS
) -> dict[str, dg.AssetCheckEvaluation]:
    return {found.check_name: found for found in degeneration_checks("k", rows, base, settings)}


def test_half_of_the_answers_cut_is_a_warning_of_the_one_check_alone() -> None:
    found = verdicts(signs(cut=2), [])
    whole = found[ANSWERS_ARE_WHOLE.name]
    assert (whole.passed, whole.severity, whole.partition) == (False, WARN, "k")
    assert whole.description == "short: 50% truncated answers"
    assert found[ANSWERS_ARE_SOUND.name].passed


@pytest.mark.parametrize(("loops", "cut"), [(0, 40), (20, 40), (21, 0)])
def test_the_check_and_the_report_agree_on_what_the_token_limit_cut(loops: int, cut: int) -> None:
    probes = [f"p{index}" for index in range(40)]
    answers = {probe: "the sun the sun. " * 60 if index < loops else "Well, " for index, probe in enumerate(probes)}
    ended = dict.fromkeys(probes, "length")
    checkpoint = Checkpoint("r", 10, dict.fromkeys(probes, False), responses=answers, finish_reasons=ended)
    rows = tables_of([checkpoint])["probe_results"].to_pylist()
    (point,) = scored_points(scores_of(checkpoint))
    assert cut_by_protocol(rows) == {("capability", "protocol-1"): point.cut}
    assert len(point.cut) == cut


def test_copies_of_an_answer_are_no_more_proof_than_one() -> None:
    # 10 of 20 probes, on each of which all of five answers are cut, against none: Fisher's exact p is 2e-4 of probes,
    # more than the 1e-6 of a fiftieth checkpoint, and 7e-19 of 100 answers. Of 20 of 20 probes it is 7e-12.
    def of(cut: int) -> list[dict[str, Any]]:
        answers = []
        for index in range(20):
            reason = "length" if index < cut else "stop"
            row = response("sum", "4", finish_reason=reason) | {"probe_id": f"p{index}"}
            answers += [row | {"sample": sample} for sample in range(1, 6)]
        return degeneration(answers)

    (whole, _) = degeneration_checks("k", of(10), of(0), DEFAULTS, position=50, samples={"short": 5})
    assert whole.passed
    (whole, _) = degeneration_checks("k", of(20), of(0), DEFAULTS, position=50, samples={"short": 5})
    assert not whole.passed


def test_loops_fail_the_other_check() -> None:
    found = verdicts(signs(cut=0, text="the sun the sun. " * 60), signs(cut=0))
    assert found[ANSWERS_ARE_WHOLE.name].passed
    sound = found[ANSWERS_ARE_SOUND.name]
    assert not sound.passed
    assert "short: 100% looping answers (0% in the base)" in (sound.description or "")


def test_a_base_that_is_cut_as_often_excuses_a_checkpoint_of_its_protocol_only() -> None:
    assert verdicts(signs(cut=2), signs(cut=1))[ANSWERS_ARE_WHOLE.name].passed
    other = signs(cut=1, protocol_id="another")
    assert not verdicts(signs(cut=2), other)[ANSWERS_ARE_WHOLE.name].passed


def test_share_and_severity_are_settings() -> None:
    lenient = ChecksSettings(truncation=AnswersCheck(share=0.75, severity="error"))
    assert verdicts(signs(cut=2), [], lenient)[ANSWERS_ARE_WHOLE.name].passed
    found = verdicts(signs(cut=3), [], lenient)[ANSWERS_ARE_WHOLE.name]
    assert (found.passed, found.severity) == (False, ERROR)


@pytest.mark.parametrize(
    ("lost", "passes"),
    [
        # McNemar's exact two-sided p of 7 losses and no gain is 2 / 2**7 = 0.0156, of 6 it is 0.0313. The first
        # checkpoint of a run may use up 53% of the 2% (either side: 2.1%) that are allowed for the whole of it.
        (7, False),
        (6, True),
        (0, True),
    ],
)
def test_a_fall_counts_only_beyond_noise(lost: int, passes: bool) -> None:
    names = [f"p{index}" for index in range(40)]
    base = probe_rows(identity(0), **dict.fromkeys(names, True))
    ours = probe_rows(identity(), **{name: index >= lost for index, name in enumerate(names)})
    found = regression_check("k", ours, base, RegressionCheck())
    assert (found.passed, found.severity) == (passes, ERROR)
    assert found.metadata["capability_delta"].value == pytest.approx(-lost / 40)
    told = (found.description or "").replace("\u00a0", " ")
    assert told.endswith("(a fall fails where p < 0.021)") == (lost == 6)
    if not passes:
        assert "−18 points" in told  # noqa: RUF001 - a minus sign
        assert told.endswith("p = 0.016")


def test_a_small_fall_that_is_no_noise_counts_from_the_drop_on() -> None:
    names = [f"p{index}" for index in range(400)]
    base = probe_rows(identity(0), **dict.fromkeys(names, True))
    ours = probe_rows(identity(), **{name: index >= 16 for index, name in enumerate(names)})
    assert regression_check("k", ours, base, RegressionCheck()).passed
    assert not regression_check("k", ours, base, RegressionCheck(drop=0.03)).passed


def test_a_gain_never_fails_even_where_every_fall_counts() -> None:
    names = [f"p{index}" for index in range(20)]
    base = probe_rows(identity(0), **dict.fromkeys(names, False))
    ours = probe_rows(identity(), **dict.fromkeys(names, True))
    assert regression_check("k", ours, base, RegressionCheck(drop=0)).passed


def test_a_base_of_another_protocol_or_none_is_no_comparison_and_says_so() -> None:
    ours = probe_rows(identity(), a=False, b=False)
    other = [row | {"protocol_id": "another"} for row in probe_rows(identity(0), a=True, b=True)]
    for base in ([], other):
        found = regression_check("k", ours, base, RegressionCheck())
        assert found.passed
        assert found.description == "no base scored in the same way to compare with"


def test_unscored_answers_count_from_their_share_on_with_the_commonest_reason() -> None:
    names = [f"p{index}" for index in range(20)]
    verdict = {name: None if index < 2 else True for index, name in enumerate(names)}
    found = unscored_check(ANSWERS_ARE_SCORED, "k", probe_rows(identity(), **verdict), "passed", UnscoredCheck())
    assert not found.passed
    assert found.description == "capability: 10% of 20 have no score; most often: the backend was away"
    verdict["p0"] = False
    found = unscored_check(ANSWERS_ARE_SCORED, "k", probe_rows(identity(), **verdict), "passed", UnscoredCheck())
    assert (found.passed, found.description) == (True, "1 of 20 have no score")
    assert unscored_check(ANSWERS_ARE_SCORED, "k", [], "passed", UnscoredCheck()).description == (
        "there was nothing to score"
    )


@pytest.mark.parametrize(
    ("effect", "passes"),
    [(1.5, True), (0.02, True), (0.01, False), (1e-5, False), (sys.float_info.min, True), (None, True)],
)
def test_an_adapter_that_changes_next_to_nothing_fails(effect: float | None, passes: bool) -> None:
    rows = [evaluation().row() | {"adapter_effect": effect}]
    found = adapter_check("k", rows, AdapterCheck())
    assert (found.passed, found.severity) == (passes, ERROR)


def test_an_adapter_that_was_not_applied_fails() -> None:
    found = adapter_not_applied("k", AdapterCheck(severity="warn"))
    assert (found.passed, found.severity) == (False, WARN)
    assert (found.description or "").startswith("the model answers as without the adapter: ")


def test_every_check_says_what_it_is_for_and_where_it_is_set() -> None:
    for spec in CHECKPOINT_CHECKS:
        name = (spec.description or "").rpartition("checks.")[2].split("`")[0]
        assert name in ChecksSettings.model_fields


def test_dagster_records_the_verdict_of_every_checkpoint_of_a_run() -> None:
    @dg.multi_asset(
        specs=[dg.AssetSpec("degeneration", skippable=True)],
        check_specs=[ANSWERS_ARE_WHOLE, ANSWERS_ARE_SOUND],
        partitions_def=CHECKPOINT_PARTITIONS,
        backfill_policy=dg.BackfillPolicy.multi_run(4),
        can_subset=True,
    )
    def scored() -> Iterator[dg.AssetMaterialization | dg.AssetCheckEvaluation]:
        for partition, cut in (("a", 3), ("b", 0)):
            yield dg.AssetMaterialization("degeneration", partition=partition)
            yield from degeneration_checks(partition, signs(cut), [], DEFAULTS)

    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("checkpoint", ["a", "b"])
        run = dg.materialize([scored], instance=instance, tags=range_tags(["a", "b"]))
        assert run.success
        logs = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
        found = [entry.dagster_event.asset_check_evaluation_data for entry in logs if entry.dagster_event is not None]
    whole, sound = ANSWERS_ARE_WHOLE.name, ANSWERS_ARE_SOUND.name
    recorded = {(one.partition, one.check_name): one.passed for one in found}
    assert recorded == {("a", whole): False, ("b", whole): True, ("a", sound): True, ("b", sound): True}
