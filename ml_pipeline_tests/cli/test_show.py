from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from ml_pipeline.stores.tables import TRAINING_LOSS
from ml_pipeline_tests.cli.lab import Lab, eight, fits, words
from ml_pipeline_tests.reports.sample_scores import sample_checkpoints

HOSTILE = "First line\n\x1b[2Jsecond\x07 line\u202e"


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(tmp_path, monkeypatch)


@pytest.fixture
def scored(lab: Lab) -> Lab:
    tuned = eight("a", "b", "c", iteration=20, responses={"a": HOSTILE}, lek=dict.fromkeys("abcdefgh", 2.5))
    lab.put(eight("a", "h"), eight("a", iteration=10), replace(tuned, passed={**tuned.passed, "d": None}))
    return lab


def test_a_page_in_80_columns(lab: Lab) -> None:
    lab.put(*sample_checkpoints(2))
    text = lab.shown("show", "improving@200")
    assert fits(text)
    flat = words(text)
    for told in (
        "mac.lek+improving@200",
        "rank 1 of 2 in its run",
        "Better than the base:",
        "Since @100:",
        "judge: avg",
        "no sign of it",
        "Probes gained 1",
        "Q8_0",
        "llama_cpp 0.3.36",
    ):
        assert told in flat
    assert fits(lab.shown("show", "too-hot@20"))
    assert "truncated answers" in words(lab.shown("show", "too-hot@20"))
    assert fits(lab.shown("show", "base"))


def test_figures_of_the_row_over_all_are_those_of_the_sentence(lab: Lab) -> None:
    # Six of eight gained are 2 / 2**6 = 0.031, of four checkpoints 0.125.
    lab.put(eight(), eight(*"abcdef", iteration=10), *(eight("a", iteration=20 + 10 * index) for index in range(3)))
    text = words(lab.shown("show", "lek/a@10"))
    (sentence,) = re.findall(r"No clear difference from the base: \+75 points (\[.*?\])", text)
    (row,) = re.findall(r"overall 75% .*? 6 of 8 [^ ]+ \+75 (\[.*?\])", text)
    assert row == sentence
    assert sentence.startswith("[0 to ")


def test_figures_flips_and_what_is_unscored(scored: Lab) -> None:
    text = words(scored.shown("show", "lek/a@20"))
    assert "overall 43% [16–75]" in text  # noqa: RUF001 - an en dash; 3 of 7, Wilson's interval
    assert "3 of 7, 1 n/a" in text
    assert "Unscored, probe: 1, backend gave no answer: timed out after 60 s" in text
    assert "Probes gained 2, lost 1" in text
    against = words(scored.shown("show", "lek/a@20", "--against", "lek/a@10"))
    assert "No clear difference from mac.lek+a@10: +29 points" in against
    assert "Probes gained 2, lost 0" in against


def test_the_training_loss_at_that_iteration(scored: Lab) -> None:
    rows = [loss("train", 10, 1.5), loss("train", 20, 1.25), loss("train", 30, 1.0), loss("val", 15, None)]
    table = pa.Table.from_pylist(rows, schema=TRAINING_LOSS.schema)
    scored.store.write_partition("mac.lek+a", {TRAINING_LOSS.name: table})
    assert "training loss 1.250, validation loss diverged (at 15)" in scored.shown("show", "lek/a@20")
    assert scored.json("show", "lek/a@20")["training_loss"] == {
        "train": {"iteration": 20, "loss": 1.25, "reason": None},
        "val": {"iteration": 15, "loss": None, "reason": "diverged"},
    }


def test_answers_beside_those_of_the_base_and_harmless(scored: Lab) -> None:
    text = scored.shown("show", "lek/a@20", "--answers", "a")
    assert fits(text)
    assert "Question a?" in text
    assert words(text).count("base.tiny@0") == 1
    assert "mac.lek+a@20: right" in text
    answers = [line.rstrip() for line in text.splitlines() if line.startswith("    ")]
    assert answers == ["    The answer is right.", "    First line", "     [2Jsecond  line"]
    every = scored.shown("show", "lek/a@20", "--answers")
    assert every.count("Question ") == 8
    assert "mac.lek+a@20: unscored, backend gave no answer" in every
    unknown = scored.run("show", "lek/a@20", "--answers", "zz")
    assert (unknown.exit_code, "there are a, b, c" in unknown.output) == (2, True)


def test_json(scored: Lab) -> None:
    page = scored.json("show", "lek/a@20", "--answers", "d")
    assert page["checkpoint"]["key"] == "mac.lek+a@20"
    assert page["against"] == "base.tiny@0"
    (suite,) = page["suites"]
    assert suite["standing"]["rank"] == 1
    overall = next(f for f in suite["figures"] if f["metric"] == "accuracy" and f["category"] == "overall")
    assert (overall["value"], overall["count"], overall["unscored"]) == (3 / 7, 7, 1)
    assert suite["comparison"][0]["paired"] == 7
    assert [flip["probe_id"] for flip in suite["flips"]] == ["h", "b", "c"]
    assert suite["flips"][0]["before"]["text"] == "The answer is right."
    assert [row["passed"] for row in page["answers"]] == [False, None]


def test_a_wrong_name_is_wrong_use(scored: Lab) -> None:
    done = scored.run("show", "lek/a@30")
    assert done.exit_code == 2
    assert "near it: mac.lek+a@10, mac.lek+a@20" in done.output


def test_compare_in_80_columns(lab: Lab) -> None:
    lab.put(*sample_checkpoints(2))
    text = lab.shown("compare", "base", "improving@200")
    assert fits(text)
    flat = words(text)
    assert "A base.smollm2-135m@0 B mac.lek+improving@200 capability" in flat
    assert "overall 35 25% " in flat
    assert "word_problems 2 " in flat
    assert "judge" in flat


def test_compare_by_hand(scored: Lab) -> None:
    text = words(scored.shown("compare", "lek/a@10", "lek/a@20"))
    # 2 gained, none lost of 7: the exact test gives 2 / 2**2. Wilson: 2 of 7 is 8.2 to 64.1%, 0 of 7 ends at 35.4%, so
    # that the ends are 2/7 - sqrt(0.204^2 + 0.354^2) and 0.641.
    assert "+29 [−12 to +64] 0.50 unclear +2" in text  # noqa: RUF001 - a minus sign
    assert "gained b right (b) The answer is wrong. The answer is right." in text
    told = scored.json("compare", "lek/a@10", "lek/a@20")
    assert told["figures"][0]["p_value"] == 0.5
    assert [flip["change"] for flip in told["flips"]] == ["gained", "gained"]
    assert told["left_out"] == []


def test_compare_shows_both_answers(scored: Lab) -> None:
    text = scored.shown("compare", "base", "lek/a@20", "--answers")
    assert fits(text)
    flat = words(text)
    assert "h lost Question h? wanted: right (h) A (stop, read 'The answer is right.'): The answer is right." in flat
    assert scored.run("compare", "base", "lek/a@20", "--suite", "x").exit_code == 2


def loss(kind: str, iteration: int, value: float | None) -> dict[str, object]:
    filled = {column.name: None for column in TRAINING_LOSS.columns}
    return filled | {
        "partition_key": "mac.lek+a",
        "source": "mac",
        "run": "lek/a",
        "run_id": "lek-a",
        "model": "tiny",
        "kind": kind,
        "iteration": iteration,
        "loss": value,
        "reason": "diverged" if value is None else None,
        "attempt": 1,
        "log_file": "training.log",
        "log_id": "x",
        "started_ns": 1,
        "read_at": datetime(2026, 1, 1, tzinfo=UTC),
        "trained_tokens": 1,
    }
