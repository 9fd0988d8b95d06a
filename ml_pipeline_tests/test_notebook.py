"""`import ml_pipeline` in a notebook: frames of what is stored."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import ml_pipeline
from ml_pipeline.errors import SettingsError, StoreError, SuiteError, UnknownCheckpointError
from ml_pipeline.reports.pairs import PAIR_COLUMNS
from ml_pipeline.reports.response_table import RESPONSE_COLUMNS
from ml_pipeline.reports.score_table import SCORE_TABLE_COLUMNS
from ml_pipeline_tests.cli.lab import Lab, eight
from ml_pipeline_tests.reports.sample_scores import Checkpoint


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    lab = Lab(tmp_path, monkeypatch)
    judged = Checkpoint("lek/a", 10, {"q": False}, suite="content", judge={"q": 6.0})
    lab.put(eight("a"), eight("a", "b", iteration=10), judged, eight("c", iteration=20))
    return lab


def test_scores(lab: Lab) -> None:
    scores = ml_pipeline.load_scores()
    assert list(scores.columns) == SCORE_TABLE_COLUMNS
    assert set(scores["partition_key"]) == {"base.tiny@0", "mac.lek+a@10", "mac.lek+a@20"}
    assert set(scores["suite"]) == {"capability", "content"}
    accuracy = scores.query("metric == 'accuracy' and category == 'overall'").set_index("iteration")["value"]
    assert accuracy.to_dict() == {0: 1 / 8, 10: 2 / 8, 20: 1 / 8}
    assert set(ml_pipeline.load_scores("mac.*", suite="capability")["iteration"]) == {10, 20}
    assert set(ml_pipeline.load_scores(["a@10", "base"])["iteration"]) == {0, 10}


def test_responses(lab: Lab) -> None:
    answers = ml_pipeline.load_responses("a@10", suite="capability")
    assert list(answers.columns) == RESPONSE_COLUMNS
    assert answers.set_index("probe_id")["passed"].to_dict() == {probe: probe in "ab" for probe in "abcdefgh"}


def test_two_checkpoints(lab: Lab) -> None:
    table = ml_pipeline.compare("base", "a@10")
    assert list(table.columns) == list(PAIR_COLUMNS)
    assert table.iloc[0][["suite", "category", "delta", "better", "worse"]].tolist() == [
        "capability",
        "overall",
        1 / 8,
        1,
        0,
    ]
    with pytest.raises(SuiteError, match="did you mean 'content'"):
        ml_pipeline.compare("base", "a@10", suite="contents")
    with pytest.raises(UnknownCheckpointError, match=r"only mac\.lek\+a@10 was scored on it"):
        ml_pipeline.compare("base", "a@10", suite="content")


def test_it_works_from_any_folder(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "pipeline.yaml").rename(tmp_path / "other.yaml")
    monkeypatch.delenv("ML_PIPELINE_CONFIG")
    monkeypatch.chdir(elsewhere)
    with pytest.raises(SettingsError, match=r"no pipeline\.yaml"):
        ml_pipeline.load_scores()
    assert len(ml_pipeline.load_scores(config="../other.yaml")) > 0
    assert len(ml_pipeline.load_responses(config=tmp_path / "other.yaml")) == 25


def test_without_scores_the_error_is_the_projects_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Lab(tmp_path, monkeypatch)
    with pytest.raises(StoreError, match="Score a checkpoint first"):
        ml_pipeline.load_scores()


def test_importing_the_package_imports_nothing_else() -> None:
    told = "import sys, ml_pipeline; print(dir(ml_pipeline)); print(*({'pandas', 'duckdb'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, timeout=60, check=True)
    assert "'compare', 'load_responses', 'load_scores'" in done.stdout
    assert done.stdout.splitlines()[-1] == ""
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ml_pipeline.nothing
