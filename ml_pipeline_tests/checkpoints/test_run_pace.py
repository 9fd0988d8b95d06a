"""Which runs have stalled: by their own pace, not before, not for ever, and not when they are through."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from ml_pipeline.checkpoints.checkpoint import Checkpoint
from ml_pipeline.checkpoints.run_pace import planned_iterations, stalled_runs
from ml_pipeline.checkpoints.source import LocalFolder
from ml_pipeline.monitoring_settings import FreshnessCheck
from ml_pipeline_tests.evaluation.rows import CHECKPOINT

S = 10**9
NOW_S = 1_800_000_000
SETTINGS = FreshnessCheck(intervals=4, at_least_s=900, forget_after_s=86_400)


def run(*ages_s: float, source: str = "mac", name: str = "a") -> list[Checkpoint]:
    """A run whose checkpoints were written so many seconds ago."""
    return [
        replace(CHECKPOINT, source=source, run=name, iteration=100 * number, mtime_ns=int((NOW_S - age) * S))
        for number, age in enumerate(ages_s, start=1)
    ]


def stalled(checkpoints: list[Checkpoint], planned: int | None = None) -> list[tuple[str, str, int, float]]:
    found = stalled_runs(checkpoints, SETTINGS, NOW_S * S, lambda newest: planned)
    return [(one.source, one.run, one.iteration, one.interval_s) for one in found]


@pytest.mark.parametrize(
    ("ages_s", "interval_s"),
    [
        ((2200, 1900, 1600, 1300), 300.0),  # every 5 minutes, silent for 21: more than 4 intervals and 15 minutes
        ((2000, 1700, 1400, 1100), None),  # silent for 18 minutes, which is less than 4 intervals of 5
        ((1060, 1000, 940, 880), None),  # silent for 14 intervals of a minute, but not for 15 minutes
        ((9000, 6000), None),  # two checkpoints are no pace yet
        ((5000.2, 5000.1, 5000), None),  # copied, not trained
        ((200_000, 190_000, 86_500), None),  # silent for more than a day: over
        ((3000, 2000, 1000, -50), None),  # a clock that goes before ours
    ],
)
def test_a_run_has_stalled_by_its_own_pace(ages_s: tuple[float, ...], interval_s: float | None) -> None:
    iteration = 100 * len(ages_s)
    expected = [] if interval_s is None else [("mac", "a", iteration, interval_s)]
    assert stalled(run(*ages_s)) == expected


def test_a_run_that_is_through_has_not_stalled() -> None:
    silent = run(22_000, 19_000, 16_000)
    assert stalled(silent, planned=300) == []
    assert stalled(silent, planned=250) == []
    assert stalled(silent, planned=400) == [("mac", "a", 300, 3000.0)]
    assert stalled(silent, planned=None) == [("mac", "a", 300, 3000.0)]


@pytest.mark.parametrize("last", [301, 350, 399])
def test_a_run_to_which_no_save_is_due_is_through_whatever_its_interval(last: int) -> None:
    # Saved at 100, 200, 300: the weights of the last iteration have no number of their own.
    assert stalled(run(22_000, 19_000, 16_000), planned=last) == []
    # One that was thinned out goes by its narrowest gaps, and one whose iterations are all alike by a gap of 1.
    thinned = [replace(one, iteration=i) for one, i in zip(run(22_000, 19_000, 16_000), (100, 500, 600), strict=True)]
    assert stalled(thinned, planned=700) == [("mac", "a", 600, 3000.0)]
    assert stalled(thinned, planned=699) == []


def test_every_run_is_seen_by_itself_and_a_bare_base_never_stalls() -> None:
    base = [replace(one, source="base") for one in run(22_000, 19_000, 16_000)]
    both = [*run(900, 600, 300, name="b"), *run(22_000, 19_000, 16_000, source="other"), *base]
    assert stalled(both) == [("other", "a", 300, 3000.0)]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"adapter_config.json": json.dumps({"iters": 600})}, 600),
        ({"adapter_config.json": json.dumps({"r": 8}), "trainer_state.json": json.dumps({"max_steps": 40})}, 40),
        ({"adapter_config.json": "{"}, None),
        ({"adapter_config.json": "[" * 100_000}, None),
        ({"adapter_config.json": json.dumps({"iters": "many"})}, None),
        ({"adapter_config.json": json.dumps([600])}, None),
        ({}, None),
    ],
)
def test_how_long_a_training_is_to_be_is_read_from_what_trainers_write(
    tmp_path: Path, files: dict[str, str], expected: int | None
) -> None:
    (tmp_path / "adapters-a").mkdir()
    for name, text in files.items():
        (tmp_path / "adapters-a" / name).write_text(text)
    checkpoint = replace(CHECKPOINT, file="adapters-a/0000100_adapters.safetensors")
    assert planned_iterations(LocalFolder("mac", tmp_path), checkpoint) == expected


@pytest.mark.parametrize(("age_ns", "expected"), [(0, 500), (60 * S, 500), (-S, 2000)])
def test_trainers_last_weights_in_the_runs_own_folder_end_it(tmp_path: Path, age_ns: int, expected: int) -> None:
    """Early stopping ends a training before max_steps; weights older than the checkpoint are of one before."""
    folder = tmp_path / "adapters-a" / "checkpoint-500"
    folder.mkdir(parents=True)
    (folder / "trainer_state.json").write_text(json.dumps({"max_steps": 2000, "save_steps": 500}))
    checkpoint = replace(
        CHECKPOINT, file="adapters-a/checkpoint-500/adapter_model.safetensors", iteration=500, mtime_ns=NOW_S * S
    )
    source = LocalFolder("mac", tmp_path)
    assert planned_iterations(source, checkpoint) == 2000
    final = tmp_path / "adapters-a" / "adapter_model.safetensors"
    final.touch()
    os.utime(final, ns=(NOW_S * S + age_ns, NOW_S * S + age_ns))
    assert planned_iterations(source, checkpoint) == expected
