"""Suites out of data sets: files found, rows sampled, and everything wrong with them told."""

from __future__ import annotations

import gzip
from collections import Counter
from pathlib import Path

import pytest

from ml_pipeline.errors import SuiteError
from ml_pipeline.suites import data_files as files
from ml_pipeline.suites.data_probes import sampled
from ml_pipeline_tests.suites import data_sets as sets
from ml_pipeline_tests.suites.data_sets import load_data, write_jsonl, write_parquet

MANY = [sets.MMLU | {"question": f"{subject} {n}?", "subject": subject} for subject, count in
        (("law", 60), ("physics", 30), ("art", 10)) for n in range(count)]  # fmt: skip
GOOD = sets.GSM8K


def test_a_sample_is_the_same_for_any_order_of_rows_and_any_format(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "d.jsonl", MANY)
    write_parquet(tmp_path / "d.parquet", MANY[::-1])
    first = load_data(tmp_path, "file: d.jsonl, kind: mmlu, sample: 20, seed: 1")
    second = load_data(tmp_path, "file: d.parquet, kind: mmlu, sample: 20, seed: 1")
    assert first.probes == second.probes
    assert first.sha256 == second.sha256, "the file's name and form are no part of what is asked"
    assert Counter(probe.category for probe in first.probes) == {"law": 12, "physics": 6, "art": 2}
    assert len({probe.id for probe in first.probes}) == 20
    other = load_data(tmp_path, "file: d.jsonl, kind: mmlu, sample: 20, seed: 2")
    assert other.probes != first.probes
    assert other.sha256 != first.sha256
    every = load_data(tmp_path, "file: d.jsonl, kind: mmlu")
    assert len(every.probes) == 100
    assert all(probe in every.probes for probe in first.probes)


def test_a_larger_sample_holds_the_smaller_ones_and_each_category_its_share() -> None:
    categories = {
        f"{category}{n}": category for category, count in (("a", 70), ("b", 25), ("c", 5)) for n in range(count)
    }
    before: set[str] = set()
    for size in range(1, 101):
        chosen = sampled(categories, size, 7)
        assert len(chosen) == size
        assert before <= set(chosen)
        before = set(chosen)
        counts = Counter(categories[name] for name in chosen)
        assert all(abs(counts[c] - size * n / 100) <= 1 for c, n in (("a", 70), ("b", 25), ("c", 5)))
    assert sampled(categories, None, 7) == sorted(categories)


def test_the_hash_covers_what_is_asked_and_what_is_right(tmp_path: Path) -> None:
    hashes = []
    for row in (GOOD, GOOD | {"answer": "#### 13"}, GOOD | {"question": "Other?"}):
        write_jsonl(tmp_path / "d.jsonl", [row])
        hashes.append(load_data(tmp_path, "file: d.jsonl, kind: gsm8k").sha256)
    hashes.append(load_data(tmp_path, "file: d.jsonl, kind: gsm8k, instruction: Go.").sha256)
    assert len(set(hashes)) == 4


@pytest.mark.parametrize("below", ["", "data/"])
def test_folders_as_the_hub_lays_them_out(tmp_path: Path, below: str) -> None:
    rows = [GOOD | {"question": f"{n}?"} for n in range(4)]
    write_parquet(tmp_path / f"hub/{below}test-00000-of-00002.parquet", rows[:2])
    write_parquet(tmp_path / f"hub/{below}test-00001-of-00002-0ab1cd.parquet", rows[2:])
    write_parquet(tmp_path / f"hub/{below}train-00000-of-00001.parquet", [GOOD])
    (tmp_path / "hub/README.md").write_text("words")
    suite = load_data(tmp_path, "file: hub, kind: gsm8k, split: test")
    assert {probe.prompt[:2] for probe in suite.probes} == {"0?", "1?", "2?", "3?"}
    for split, message in (
        ("", "several splits; add 'split', one of: test, train"),
        (", split: dev", "no split 'dev'"),
    ):
        with pytest.raises(SuiteError, match=message):
            load_data(tmp_path, f"file: hub, kind: gsm8k{split}")


def test_bad_rows_refuse_the_suite_or_are_left_out_and_counted(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", [GOOD, GOOD, GOOD | {"question": "Else?"}])
    with path.open("ab") as file:
        file.write(b"{\n\n[1]\n\xff\xfe\n" + b"[" * 100_000 + b"\n" + b'"' + b"x" * 1_100_000 + b'"\n')
    with pytest.raises(SuiteError) as caught:
        load_data(tmp_path, "file: d.jsonl, kind: gsm8k")
    text = str(caught.value)
    assert "line 7: data: 5 bad rows; mend them, or write 'bad_rows: leave_out'" in text
    for line, message in (
        (4, "not JSON"),
        (6, "not a JSON object"),
        (7, "not UTF-8 (invalid start byte)"),
        (8, "nested too deep"),
        (9, "longer than 1,000,000 bytes"),
    ):
        assert f"{path}:{line}: {message}" in text
    suite = load_data(tmp_path, "file: d.jsonl, kind: gsm8k, bad_rows: leave_out")
    assert len(suite.probes) == 2
    assert dict(suite.left_out) == {
        "the same as a row before": 1,
        "not JSON": 1,
        "not a JSON object": 1,
        "not UTF-8 (invalid start byte)": 1,
        "nested too deep": 1,
        "longer than 1,000,000 bytes": 1,
    }


def test_of_many_bad_rows_the_first_are_shown_and_all_counted(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "d.jsonl", [{"question": "?", f"c{n}": 1} for n in range(30)] + [GOOD])
    with pytest.raises(SuiteError, match=r"30 bad rows(.|\n)*and 10 more") as caught:
        load_data(tmp_path, "file: d.jsonl, kind: gsm8k")
    assert str(caught.value).count("d.jsonl:") == 20
    suite = load_data(tmp_path, "file: d.jsonl, kind: gsm8k, bad_rows: leave_out")
    assert sum(count for _, count in suite.left_out) == 30
    assert suite.left_out[-1] == ("other reasons", 10)


def test_only_bad_rows_are_no_suite(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "d.jsonl", [{"question": "?"}])
    with pytest.raises(SuiteError, match="1 bad row"):
        load_data(tmp_path, "file: d.jsonl, kind: gsm8k, bad_rows: leave_out")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.jsonl", b"", "holds no row"),
        ("d.jsonl", "{}".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        ("d.jsonl.gz", gzip.compress(b"{}", mtime=0), "must be a .jsonl or .parquet file"),
        ("d.parquet", b"PAR1 and no more", "not a sound Parquet file"),
        ("d.parquet", b"", "not a sound Parquet file"),
        ("empty/x.txt", b"", "must be a .jsonl or .parquet file"),
    ],
)
def test_files_that_are_none(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(SuiteError) as caught:
        load_data(tmp_path, f"file: {name}, kind: gsm8k")
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_every_cut_of_a_parquet_file_is_refused(tmp_path: Path) -> None:
    whole = write_parquet(tmp_path / "d.parquet", [GOOD]).read_bytes()
    for size in range(0, len(whole), 97):
        (tmp_path / "d.parquet").write_bytes(whole[:size])
        with pytest.raises(SuiteError, match="not a sound Parquet file"):
            load_data(tmp_path, "file: d.parquet, kind: gsm8k")


def test_sizes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for write, name in ((write_jsonl, "d.jsonl"), (write_parquet, "d.parquet")):
        write(tmp_path / name, [GOOD | {"question": f"{n}?"} for n in range(9)])
        for limit, value, message in (
            ("MAX_ROWS", 8, "more than 8 rows|unpacked it is too large"),
            ("MAX_FILE_BYTES", 40, "the limit is 40"),
        ):
            with monkeypatch.context() as smaller:
                smaller.setattr(files, limit, value)
                with pytest.raises(SuiteError, match=message):
                    load_data(tmp_path, f"file: {name}, kind: gsm8k")


@pytest.mark.parametrize(
    ("data", "kind", "more", "message"),
    [
        ("file: gone.jsonl, kind: gsm8k", "capability", "", "gone.jsonl: there is no such file or folder"),
        ("file: ~no-such-user/x.jsonl, kind: gsm8k", "capability", "", "~no-such-user/x.jsonl: cannot be read"),
        ("file: d.jsonl, kind: gsm9k", "capability", "", "Did you mean 'gsm8k'?"),
        ("file: d.jsonl, kind: gsm8k, sampel: 3", "capability", "", "did you mean 'sample'?"),
        ("file: d.jsonl, kind: gsm8k, sample: 2", "capability", "", "a sample of 2 out of 1 rows"),
        ("file: d.jsonl, kind: gsm8k, split: test", "capability", "", "'split' chooses among the files of a folder"),
        ("file: d.jsonl, kind: gsm8k, prompt: q", "capability", "", "kind 'gsm8k' has no field 'prompt'; drop it"),
        ("file: d.jsonl, kind: mmlu, instruction: x", "capability", "", "its choices are scored, not answered"),
        ("file: d.jsonl, kind: table", "capability", "", "needs the names of the columns 'prompt', 'answer'"),
        ("file: d.jsonl, kind: gsm8k", "content", "rubric: truthfulqa\n", "belongs to suites of kind 'capability'"),
        ("file: d.jsonl, kind: truthfulqa", "capability", "", "belongs to suites of kind 'content'"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, data: str, kind: str, more: str, message: str) -> None:
    write_jsonl(tmp_path / "d.jsonl", [GOOD])
    with pytest.raises(SuiteError) as caught:
        load_data(tmp_path, data, kind, more)
    assert message in str(caught.value)
    assert "mine.yaml" in str(caught.value)


def test_scored_choices_go_with_neither_filters_nor_a_judge(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "d.jsonl", [sets.MMLU])
    more = "rubric: capability\nfilters: {strict: [letter], flexible: [last_letter]}\n"
    with pytest.raises(SuiteError) as caught:
        load_data(tmp_path, "file: d.jsonl, kind: mmlu", more=more)
    assert "line 7: checks of type 'log_likelihood' leave no answer to judge" in str(caught.value)
    assert "line 8: 'filters' cannot read for checks of type log_likelihood" in str(caught.value)


def test_gsm8k_with_its_own_filters(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "d.jsonl", [GOOD])
    filters = "filters: {strict: [after_hashes, number], flexible: [last_number]}\n"
    assert load_data(tmp_path, "file: d.jsonl, kind: gsm8k", more=filters).filters is not None
