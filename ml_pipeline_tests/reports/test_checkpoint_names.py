from __future__ import annotations

from pathlib import Path

import pytest

from ml_pipeline.errors import UnknownCheckpointError
from ml_pipeline.reports.checkpoint_names import ScoredCheckpoint, find_checkpoint, scored_checkpoints, with_run
from ml_pipeline.stores.duckdb import DuckDBStore
from ml_pipeline_tests.reports.sample_scores import Checkpoint, tables_of


def known(*named: tuple[str, str, int]) -> list[ScoredCheckpoint]:
    return [
        ScoredCheckpoint(
            f"{source}.{run.replace('/', '+')}@{iteration}",
            source,
            run,
            iteration,
            f"T @{iteration:07}",
            "tiny",
            ("capability",),
        )
        for source, run, iteration in named
    ]


KNOWN = known(
    ("base", "tiny", 0),
    ("mac", "lek/tuned", 80),
    ("mac", "lek/tuned", 800),
    ("mac", "lek/tuned-more", 80),
    ("gpu", "other", 80),
)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("mac.lek+tuned@80", "mac.lek+tuned@80"),
        ("mac.lek/tuned@80", "mac.lek+tuned@80"),
        ("mac/lek/tuned@80", "mac.lek+tuned@80"),
        ("lek/tuned@80", "mac.lek+tuned@80"),
        ("lek/tuned@0000080", "mac.lek+tuned@80"),
        ("tuned@80", "mac.lek+tuned@80"),
        ("tuned@800", "mac.lek+tuned@800"),
        ("MORE", "mac.lek+tuned-more@80"),
        ("800", "mac.lek+tuned@800"),
        ("ther", "gpu.other@80"),
        ("tiny", "base.tiny@0"),
        ("base.", "base.tiny@0"),
    ],
)
def test_a_checkpoint_has_many_names(name: str, key: str) -> None:
    assert find_checkpoint(name, KNOWN).key == key


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("lek@80", ["may be any of 2", "mac.lek+tuned@80", "mac.lek+tuned-more@80"]),
        ("lek", ["may be any of 3"]),
        (
            "lek/tuned@90",
            ["no scored checkpoint is called 'lek/tuned@90'; near it: mac.lek+tuned@80, mac.lek+tuned@800"],
        ),
        ("mac.lek+tunde@800", ["near it: mac.lek+tuned@800"]),
        ("\x1b[2Jxyz", ["' [2Jxyz'", "scored are base.tiny@0"]),
    ],
)
def test_a_name_of_none_or_several_tells_what_there_is(name: str, told: list[str]) -> None:
    with pytest.raises(UnknownCheckpointError) as raised:
        find_checkpoint(name, KNOWN)
    for words in told:
        assert words in str(raised.value)


def test_without_scores_the_message_says_how_to_get_some() -> None:
    with pytest.raises(UnknownCheckpointError, match="ml-pipeline score"):
        find_checkpoint("x", [])


def test_runs_are_found_by_name_before_part() -> None:
    assert with_run(KNOWN, "lek/tuned") == ["base.tiny@0", "mac.lek+tuned@80", "mac.lek+tuned@800"]
    assert with_run(KNOWN, "TUNED") == ["base.tiny@0", "mac.lek+tuned@80", "mac.lek+tuned@800", "mac.lek+tuned-more@80"]
    with pytest.raises(UnknownCheckpointError, match=r"no scored run is called 'base'; scored runs: .*gpu/other"):
        with_run(KNOWN, "base")


def test_checkpoints_come_out_of_the_database_with_their_suites(tmp_path: Path) -> None:
    store = DuckDBStore(tmp_path / "scores.duckdb")
    two = [Checkpoint("lek/x", 20, {"a": True}, suite=suite) for suite in ("content", "capability")]
    store.write_partition("mac.lek+x@20", tables_of(two))
    store.write_partition("base.tiny@0", tables_of([Checkpoint("tiny", 0, {"a": None}, source="base")]))
    base, trained = scored_checkpoints(store)
    assert (base.key, base.is_base, base.suites) == ("base.tiny@0", True, ("capability",))
    assert (trained.key, trained.run, trained.suites) == ("mac.lek+x@20", "lek/x", ("capability", "content"))
