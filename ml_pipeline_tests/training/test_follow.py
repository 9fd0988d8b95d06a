"""Following a run's logs into the real stores: growth, restarts, replacement, crashes."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ml_pipeline.checkpoints.catalogue import Catalogue
from ml_pipeline.errors import CheckpointError, StoreError
from ml_pipeline.settings_file import load_settings
from ml_pipeline.stores.duckdb import DuckDBStore
from ml_pipeline.stores.parquet import ParquetStore
from ml_pipeline.stores.points import ScorePoint
from ml_pipeline.stores.score_store import ScoreStore
from ml_pipeline.stores.tables import TRAINING_LOSS
from ml_pipeline.training.follow import FollowedRun, LogFollower

KEY = "mac.tiny-a"
START_NS = 1_700_000_000 * 10**9


@dataclass
class Lab:
    """A project with one training run, whose log tests write."""

    root: Path
    sent: list[ScorePoint] = field(default_factory=list)
    emptied: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        settings = {
            "sources": {"mac": {"type": "local", "path": "runs"}},
            "families": [{"prefix": "tiny", "model": "tiny-model", "short": "T"}],
            "base_models": {"tiny-model": {}},
        }
        (self.root / "pipeline.yaml").write_text(json.dumps(settings))
        self.folder.mkdir(parents=True)
        self.settings = load_settings(self.root / "pipeline.yaml", environ={})
        self.store = ScoreStore(ParquetStore(self.settings.parquet_path), DuckDBStore(self.settings.duckdb_path))

    @property
    def folder(self) -> Path:
        return self.root / "runs" / "adapters-tiny-a"

    def log(self, text: str, name: str = "training.log", *, mtime_ns: int = START_NS) -> None:
        (self.folder / name).write_text(text)
        os.utime(self.folder / name, ns=(mtime_ns, mtime_ns))

    def follow(self, **options: Any) -> FollowedRun | None:
        def send(points: Sequence[ScorePoint], emptied: Sequence[str]) -> None:
            self.sent, self.emptied = list(points), list(emptied)

        follower = LogFollower(self.settings, self.store, Catalogue(self.settings).source)
        return follower.follow(KEY, send, **options)

    def rows(self) -> list[dict[str, Any]]:
        """The stored rows, of which both stores must have the same."""
        truth: list[dict[str, Any]] = self.store.parquet.read(TRAINING_LOSS, KEY).to_pylist()
        mirror = self.store.duckdb.read("training_loss").to_pylist()
        order = [(row["kind"], row["iteration"]) for row in truth]
        assert sorted(order) == order
        assert truth == mirror
        return truth

    def losses(self) -> dict[tuple[str, int], tuple[float | None, int]]:
        return {(row["kind"], row["iteration"]): (row["loss"], row["attempt"]) for row in self.rows()}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


FIRST = "Iter 1: Val loss 3.0, Val took 1.1s\nIter 10: Train loss 2.5, It/sec 0.5, Tokens/sec 100.0, Peak mem 5.1 GB\n"


def test_a_growing_log_is_stored_as_it_grows(lab: Lab) -> None:
    lab.log(FIRST)
    first = lab.follow()
    assert first is not None
    assert (first.receipt.rows, first.new_rows, first.receipt.superseded) == (2, 2, None)
    assert [(p.suite, p.fields["loss"], p.time_ns) for p in lab.sent] == [
        ("train-0", 2.5, START_NS + 10 * 10**7),
        ("val-0", 3.0, START_NS + 10**7),
    ]
    train = lab.rows()[0]
    assert {name: train[name] for name in ("partition_key", "source", "run", "run_id", "model", "log_file")} == {
        "partition_key": KEY,
        "source": "mac",
        "run": "tiny-a",
        "run_id": "tiny-a",
        "model": "tiny-model",
        "log_file": "adapters-tiny-a/training.log",
    }
    assert (train["iterations_per_s"], train["tokens_per_s"], train["peak_memory_gb"]) == (0.5, 100.0, 5.1)
    assert lab.follow() is None
    lab.log(FIRST + "Iter 20: Train loss nan\n", mtime_ns=START_NS + 99)
    second = lab.follow()
    assert second is not None
    assert (second.receipt.rows, second.new_rows) == (3, 1)
    assert lab.losses() == {("train", 10): (2.5, 1), ("train", 20): (None, 1), ("val", 1): (3.0, 1)}
    assert [row["reason"] for row in lab.rows()] == [None, "diverged", None]
    assert {row["started_ns"] for row in lab.rows()} == {START_NS}
    assert [point.fields["iteration"] for point in lab.sent] == [10]


def test_training_resumed_into_the_same_log_counts_over_what_it_repeats(lab: Lab) -> None:
    lab.log(FIRST + "Iter 20: Train loss 2.0\n")
    lab.follow()
    lab.log(FIRST + "Iter 20: Train loss 2.0\nIter 10: Train loss 1.9\n")
    lab.follow()
    assert lab.losses() == {("train", 10): (1.9, 2), ("train", 20): (2.0, 1), ("val", 1): (3.0, 1)}


def test_a_second_log_counts_over_an_older_one(lab: Lab) -> None:
    lab.log(FIRST, "b.log")
    lab.log("Iter 10: Train loss 1.0\n", "a.log", mtime_ns=START_NS + 10)
    lab.follow()
    assert lab.losses() == {("train", 10): (1.0, 1), ("val", 1): (3.0, 1)}


def test_a_replaced_log_supersedes_the_old_rows_which_are_kept(lab: Lab) -> None:
    lab.log(FIRST + "Iter 1500: Train loss 1.0\n")
    lab.follow()
    lab.log(FIRST.replace("1.1s", "1.2s"), mtime_ns=START_NS + 5)
    replaced = lab.follow()
    assert replaced is not None
    assert replaced.receipt.superseded is not None
    assert lab.losses() == {("train", 10): (2.5, 1), ("val", 1): (3.0, 1)}
    assert {row["started_ns"] for row in lab.rows()} == {START_NS + 5}
    assert lab.emptied == ["train-1"]


def test_a_log_emptied_for_a_new_training_keeps_its_rows_until_there_are_others(lab: Lab) -> None:
    lab.log(FIRST)
    lab.follow()
    lab.log("Loading pretrained model\n")
    assert lab.follow() is None
    assert len(lab.rows()) == 2


def test_rows_of_a_log_that_is_gone_stay(lab: Lab) -> None:
    lab.log(FIRST)
    lab.follow()
    (lab.folder / "training.log").unlink()
    lab.log("Iter 20: Train loss 2.0\n", "other.txt")
    lab.follow()
    assert lab.losses() == {("train", 10): (2.5, 1), ("train", 20): (2.0, 1), ("val", 1): (3.0, 1)}


def test_a_crash_before_points_are_sent_is_made_good(lab: Lab) -> None:
    lab.log(FIRST)

    def crash(points: Sequence[ScorePoint], emptied: Sequence[str]) -> None:
        raise StoreError("the disk is full")

    follower = LogFollower(lab.settings, lab.store, Catalogue(lab.settings).source)
    with pytest.raises(StoreError, match="full"):
        follower.follow(KEY, crash)
    assert lab.follow() is not None
    assert len(lab.sent) == 2
    assert lab.follow() is None


@pytest.mark.parametrize("harm", ["lost", "damaged", "of other rows"])
def test_without_good_positions_everything_is_read_again(lab: Lab, harm: str) -> None:
    lab.log(FIRST)
    lab.follow()
    before = [{**row, "read_at": None} for row in lab.rows()]
    (saved,) = lab.settings.log_positions_path.iterdir()
    if harm == "lost":
        saved.unlink()
    elif harm == "damaged":
        saved.write_text('{"rows_sha256": 5}')
    else:
        lab.store.parquet.path(TRAINING_LOSS, KEY).unlink()
    again = lab.follow()
    assert again is not None
    assert [{**row, "read_at": None} for row in lab.rows()] == before


def test_asked_for_by_hand_everything_is_read_again(lab: Lab) -> None:
    lab.log(FIRST)
    lab.follow()
    again = lab.follow(from_start=True)
    assert again is not None
    assert (again.new_rows, len(lab.sent)) == (2, 2)
    lab.log("nothing here\n")
    with pytest.raises(CheckpointError, match=r"no file beside its adapters holds a loss.*training\.log"):
        lab.follow(from_start=True)


def test_a_log_beyond_the_limit_is_read_as_far_and_told(lab: Lab) -> None:
    (lab.root / "pipeline.yaml").write_text(
        json.dumps({**json.loads((lab.root / "pipeline.yaml").read_text()), "limits": {"training_log_bytes": 1024}})
    )
    lab.settings = load_settings(lab.root / "pipeline.yaml", environ={})
    lab.log(FIRST + "x" * 1024 + "\nIter 20: Train loss 2.0\n")
    followed = lab.follow()
    assert followed is not None
    assert followed.receipt.rows == 2
    assert "limits.training_log_bytes" in followed.problems[0]


@pytest.mark.parametrize(
    ("key", "message"),
    [("gone.tiny-a", "no source 'gone'"), ("mac.other", "cannot read"), ("mac.a@1", "is no training run")],
)
def test_a_run_that_is_not_there_is_told(lab: Lab, key: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        LogFollower(lab.settings, lab.store, Catalogue(lab.settings).source).follow(key, lambda points, emptied: None)
