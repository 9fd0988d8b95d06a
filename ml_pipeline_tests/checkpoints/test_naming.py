"""Families, labels and partition keys. The families' expectations are the original's own list."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_pipeline.checkpoints.naming import (
    checkpoint_iteration,
    parse_partition_key,
    parse_run_partition_key,
    partition_key,
    run_name,
    run_partition_key,
)
from ml_pipeline.errors import CheckpointError
from ml_pipeline.settings_file import load_settings

SHIPPED = Path(__file__).parents[2] / "pipeline.yaml"

ORIGINAL = [
    # run, model tag, label at 0000100: worked out by hand from the original's list of prefixes
    ("deepseek-r1-7b", "deepseek-r1-7b", "R1 @0000100"),
    ("deepseek-r1-7b-lek", "deepseek-r1-7b", "R1-lek @0000100"),
    ("27b-v2", "gemma-3-27b", "G27-v2 @0000100"),
    ("27bx", "gemma-3-27b", "G27-x @0000100"),
    ("15k/gemma-3-27b", "gemma-3-27b", "G27 @0000100"),
    ("15k/gemma-3-12b", "gemma-3-12b", "G12 @0000100"),
    ("15k/gemma-3-1b", "gemma-3-1b", "G1 @0000100"),
    ("12b", "gemma-3-12b", "G12 @0000100"),
    ("1b-lek", "gemma-3-1b", "G1-lek @0000100"),
    ("1b", "gemma-3-1b", "G1 @0000100"),
    ("4b-sft", "gemma-3-4b", "G4-sft @0000100"),
    ("vi-12b-a", "gemma-3-12b", "Vi12-a @0000100"),
    ("vi", "gemma-3-1b", "Vi1 @0000100"),
    ("gpt-oss", "gpt-oss-20b", "GPT @0000100"),
    ("lem-gpt-oss-2", "gpt-oss-20b", "LGPT-2 @0000100"),
    ("bench-1b", "gemma-3-1b", "B1 @0000100"),
    ("book", "gemma-3-27b", "Book @0000100"),
    ("cross", "gemma-3-12b", "Cross @0000100"),
    ("somebody-elses-run", "somebody-elses-run", "somebody-e @0000100"),
]


@pytest.mark.parametrize(("run", "model", "label"), ORIGINAL)
def test_the_shipped_families_name_runs_as_the_original_did(run: str, model: str, label: str) -> None:
    name = run_name(run, load_settings(SHIPPED, environ={}).families)
    assert (name.model, name.label("0000100")) == (model, label)


@pytest.mark.parametrize(
    ("file_name", "iteration"),
    [
        ("0000100_adapters.safetensors", "0000100"),
        ("7_adapters.safetensors", "7"),
        ("adapters.safetensors", None),
        ("0000100_adapters.safetensors.tmp", None),
        ("x0000100_adapters.safetensors", None),
        ("0000100_adapters.safetensors\n", None),
        ("\u0661\u0660\u0660_adapters.safetensors", None),
        ("9" * 13 + "_adapters.safetensors", None),
    ],
)
def test_only_numbered_checkpoints_are_checkpoints(file_name: str, iteration: str | None) -> None:
    assert checkpoint_iteration(file_name) == iteration


@pytest.mark.parametrize(
    ("run", "key"),
    [
        ("good", "mac.good@100"),
        ("15k/gemma-3-1b", "mac.15k+gemma-3-1b@100"),
        ("a b", "mac.a=20b@100"),
        ("a+b", "mac.a=2Bb@100"),
        ("a=b@c", "mac.a=3Db=40c@100"),
        ("..", "mac.=2E=2E@100"),
        ("new\nline", "mac.new=0Aline@100"),
        ("ü", "mac.=C3=BC@100"),
        ("\udcff", "mac.=FF@100"),
    ],
)
def test_partition_keys_are_written_with_safe_characters_only(run: str, key: str) -> None:
    assert partition_key("mac", run, 100) == key
    assert parse_partition_key(key)[2] == 100


@given(st.lists(st.text(min_size=1, max_size=30), min_size=2, max_size=2, unique=True))
def test_two_runs_never_share_a_partition_key(runs: list[str]) -> None:
    try:
        first, second = (partition_key("mac", run, 1) for run in runs)
    except (CheckpointError, UnicodeEncodeError):
        return
    assert first != second
    assert parse_partition_key(first)[0] == "mac"


@pytest.mark.parametrize(
    "key", ["", "x", "a.b", "a.b@", "a.b@x", "a...b@1", "a/b.c@1", "a.b@1\n", "a." + "b" * 300 + "@1"]
)
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        parse_partition_key(key)


def test_a_run_whose_name_is_too_long_is_refused_with_the_remedy() -> None:
    with pytest.raises(CheckpointError, match="Rename it"):
        partition_key("mac", "x" * 250, 1)


@pytest.mark.parametrize(
    ("run", "key"),
    [
        ("good", "mac.good"),
        ("15k/gemma-3-1b", "mac.15k+gemma-3-1b"),
        ("a+b@1", "mac.a=2Bb=401"),
        ("..", "mac.=2E=2E"),
        ("\udcff", "mac.=FF"),
    ],
)
def test_a_training_run_is_named_as_its_checkpoints_and_found_again_by_its_key(run: str, key: str) -> None:
    assert run_partition_key("mac", run) == key
    assert partition_key("mac", run, 1) == f"{key}@1"
    assert parse_run_partition_key(key) == ("mac", run)


@given(st.text(min_size=1, max_size=30))
def test_every_run_is_found_again_or_refused(run: str) -> None:
    try:
        key = run_partition_key("mac", run)
        found = parse_run_partition_key(key)
    except (CheckpointError, UnicodeEncodeError):
        return
    assert found == ("mac", run)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "mac",
        "mac.",
        "mac.a@1",
        "mac.a/b",
        "mac.a\n",
        "mac.a+..",
        "mac.a+=2E=2E",
        "mac.a+b+c",
        "mac.=41",
        "mac.a=zz",
    ],
)
def test_what_is_no_training_run_is_refused(key: str) -> None:
    with pytest.raises(CheckpointError, match="is no training run"):
        parse_run_partition_key(key)


def test_a_run_whose_name_is_too_long_has_no_key() -> None:
    with pytest.raises(CheckpointError, match="Rename it"):
        run_partition_key("mac", "x" * 250)
