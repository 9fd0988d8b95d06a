"""Which checks follow from which stage of a checkpoint, and that failed ones are kept for those who want to know."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ml_pipeline.alerts.outbox import Outbox
from ml_pipeline.assets.check_specs import CHECKPOINT_CHECKS
from ml_pipeline.assets.checkpoint_checks import CheckpointChecks
from ml_pipeline.evaluation.evaluator import StageResult
from ml_pipeline.evaluation.mark import degeneration
from ml_pipeline.settings import Settings
from ml_pipeline.settings_file import load_settings
from ml_pipeline_tests.evaluation.rows import CHECKPOINT, evaluation, response
from ml_pipeline_tests.stores.samples import identity, judgement_rows, probe_rows

ALL = [spec.key for spec in CHECKPOINT_CHECKS]
NAMES = [f"p{index}" for index in range(10)]
BASE = "base.gemma-3-1b@0"
Rows = list[dict[str, Any]]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    path = tmp_path / "pipeline.yaml"
    sections = {
        "sources": {"mac": {"type": "local", "path": "runs"}},
        "base_models": {"gemma-3-1b": {}},
        "alerts": {"webhook": "https://hooks.example/T0SECRET"},
    }
    path.write_text(json.dumps(sections))
    return load_settings(path, environ={})


def stored(table: str, key: str) -> Rows:
    assert table in ("probe_results", "degeneration", "responses")
    passed = key == BASE
    if table == "responses":
        return [response("sum", "four")]
    if table == "probe_results":
        return probe_rows(identity(), **dict.fromkeys(NAMES, passed))
    return twelve("stop" if passed else "length")


def twelve(finish_reason: str) -> Rows:
    """The signs of three answers to each of four probes."""
    return degeneration(
        [response(name, "four", finish_reason=finish_reason) for name in ("sum", "product", "opposite", "essay") * 3]
    )


def checks(settings: Settings, selected: list[dg.AssetCheckKey] = ALL) -> CheckpointChecks:
    return CheckpointChecks(settings, stored, selected, print)


STAGES: dict[str, tuple[dict[str, Rows], dict[str, bool]]] = {
    "adapter": ({}, {}),
    "responses": ({"evaluations": [evaluation().row()]}, {"adapter_is_applied": True}),
    "probe_results": (
        {"probe_results": probe_rows(identity(), a=True, b=None)},
        {"answers_are_scored": False},
    ),
    "degeneration": (
        {"degeneration": twelve("length")},
        {"answers_are_whole": False, "answers_are_sound": True},
    ),
    "checkpoint_scores": ({"checkpoint_scores": []}, {"not_worse_than_base": False}),
    "judgements": (
        {"judgements": judgement_rows(identity(), "a", reasoning=None, avg=None)},
        {"answers_are_judged": False},
    ),
}


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_is_followed_by_its_checks_and_failures_are_kept(settings: Settings, stage: str) -> None:
    tables, expected = STAGES[stage]
    found = list(checks(settings).after(CHECKPOINT, StageResult(stage, tables)))
    assert {one.check_name: one.passed for one in found} == expected
    assert {one.partition for one in found} <= {CHECKPOINT.key}
    kept = Outbox(settings.alerts_path).waiting(10)
    assert sorted(one.check for one in kept.values()) == sorted(name for name, passed in expected.items() if not passed)


def test_every_check_follows_from_a_stage() -> None:
    assert {name for _, expected in STAGES.values() for name in expected} == {spec.name for spec in CHECKPOINT_CHECKS}


def test_the_base_itself_is_compared_with_nothing(settings: Settings) -> None:
    base = replace(CHECKPOINT, source="base", run="gemma-3-1b", iteration=0)
    (found,) = checks(settings).after(base, StageResult("checkpoint_scores", {"checkpoint_scores": []}))
    assert (found.passed, found.description) == (True, "the bare base model itself")


def test_an_adapter_that_was_not_applied_is_a_failed_check(settings: Settings) -> None:
    (found,) = checks(settings).not_applied(CHECKPOINT)
    assert (found.check_name, found.passed, found.severity) == (
        "adapter_is_applied",
        False,
        dg.AssetCheckSeverity.ERROR,
    )
    assert len(Outbox(settings.alerts_path).waiting(10)) == 1


def test_checks_that_were_not_asked_for_are_neither_made_nor_told(settings: Settings) -> None:
    assert list(checks(settings, []).after(CHECKPOINT, StageResult("degeneration", STAGES["degeneration"][0]))) == []
    assert Outbox(settings.alerts_path).waiting(10) == {}
