"""Each filter by itself, numbers and their values, whole pipelines, and texts that mean harm."""
# ruff: noqa: RUF001  letters of other scripts that look like Latin ones are what is read here

from __future__ import annotations

import re
import time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_pipeline.scoring.checks import MAX_EXTRACTED_CHARS
from ml_pipeline.scoring.exact import ExactResult, Reading, exact_results
from ml_pipeline.scoring.filter_numbers import number_values
from ml_pipeline.scoring.filters import FILTERS, extract
from ml_pipeline.scoring.heuristic import text_column
from ml_pipeline.suites.filters import FILTER_NAMES, NAMED_PIPELINES, FilterPipelines, RegexFilter


def one(name: str, text: str) -> str | None:
    found: str | None = extract(pa.array([text]), [name]).to_pylist()[0]
    return found


def test_every_name_that_a_suite_may_use_has_a_filter() -> None:
    assert set(FILTERS) == set(FILTER_NAMES)


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("strip_thinking", "<think>1</think> 2 ", "2"),
        ("strip_thinking", "a <think> never closed", "a"),
        ("strip_thinking", "<think>a<think>b</think>c</think>d", "d"),
        ("plain", r"\frac{1}{2} of \text{it}", "1/2 of it"),
        ("plain", "x \N{MINUS SIGN} 1\0", "x - 1 "),
        ("strip", " \u00a0a ", "a"),
        ("lowercase", "ÄB", "äb"),
        ("first_line", "\n \n one two \nthree", "one two"),
        ("last_line", "one\n two \n \n", "two "),
        ("after_hashes", "#### 1\n#### 42 \nbye", "42 "),
        ("after_hashes", "## 42", None),
        ("boxed", r"\boxed{1} then \boxed{42}", "42"),
        ("bold", "**1** and **42**", "42"),
        ("after_answer", "The answer is 41. No, the answer is: **42**. Bye", "42"),
        ("after_answer", "Answer: 3.5 apples\nBye", "3.5 apples"),
        ("marked", r"Answer: 1. \boxed{2} #### 3", "3"),
        ("marked", "just 42", "just 42"),
        ("number", "**-$1,234.50**.", "-1234.50"),
        ("number", "42 apples", None),
        ("letter", " (B). ", "B"),
        ("letter", "B and C", None),
        ("last_letter", "I think A, no: it is (C) a dog", "C"),
        ("last_letter", "A good one is B", "B"),
        ("last_letter", "no choice", None),
    ],
)
def test_filter(name: str, text: str, found: str | None) -> None:
    assert one(name, text) == found


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("She has 12 apples and pays $1,234.50.", "12", "1234.50"),
        ("#### 42", "42", "42"),
        ("**18**", "18", "18"),
        ("from -3 to -$5", "-3", "-5"),
        ("5-3", "5", "3"),
        ("f(2)-3", "2", "3"),
        ("€7 or $-8", "7", "-8"),
        ("1/3, then 2 1/2 hours", "1/3", "2 1/2"),
        ("33% is 0.33", "33%", "0.33"),
        ("0.5 is 50 percent", "0.5", "50%"),
        ("ünï \u0661 7\u202e", "7", "7"),
        (".5 and .25", ".5", ".25"),
        ("It is 5.", "5", "5"),
        ("none", None, None),
        ("", None, None),
    ],
)
def test_numbers(text: str, first: str | None, last: str | None) -> None:
    assert (one("first_number", text), one("last_number", text)) == (first, last)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        *(("-1234.50", -1234.5), ("2 1/2", 2.5), ("-1/4", -0.25), ("50%", 0.5), (".5", 0.5), ("1/0", None)),
        *(("9" * 400, None), ("x", None), ("", None), ("1.2.3", None), ("12.", 12), (".", None), ("1,234", 1234)),
        *(("1e-05", 1e-5), ("1e999", None), ("1.5 million", 1.5e6), ("$12", 12), ("1 1/0", None)),
    ],
)
def test_number_values(written: str, value: float | None) -> None:
    assert number_values(pa.array([written])).to_pylist() == [value]


@settings(deadline=None)
@given(
    st.decimals(-(10**9), 10**9, places=2), st.sampled_from(["{}", "x 3 = ${} ", "**{:,}**.", "{:,} apples", "1, {}"])
)
def test_any_decimal_is_read_back(value: Decimal, form: str) -> None:
    text = form.format(abs(value)) if "$" in form else form.format(value)
    found = number_values(extract(pa.array([text]), ["plain", "last_number"])).to_pylist()[0]
    assert found == pytest.approx(float(abs(value) if "$" in form else value))


def test_a_null_and_large_strings_go_through_every_filter() -> None:
    for name in FILTERS:
        assert extract(pa.array([None, "1 A"], pa.large_string()), [name]).to_pylist()[0] is None
        assert extract(pa.array([], pa.string()), [name]).to_pylist() == []


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [("total: ([0-9]+)", "total: 4, total: 5", "4"), ("[0-9]+", "a 4 5", "4"), ("(x)|4", "4", None), ("9", "a", None)],
)
def test_a_regex_takes_its_first_group_or_its_match(pattern: str, text: str, found: str | None) -> None:
    assert extract(pa.array([text]), [RegexFilter(regex=pattern)]).to_pylist() == [found]


HOSTILE = {
    "digits": "1" * 200_000,
    "groups": "1,234" * 40_000,
    "slashes": "1/" * 100_000,
    "hashes": "#" * 200_000,
    "boxes": r"\boxed{" * 20_000,
    "answers": "answer is " * 20_000,
    "stars": "*" * 200_000,
    "letters": "A " * 100_000,
    "lines": "\n" * 200_000,
    "nul": "\0" * 200_000,
    "emoji": "🙂" * 50_000,
    "think": "<think>" * 30_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_no_text_makes_a_filter_slow(text: str) -> None:
    started = time.process_time()
    for name in FILTERS:
        one(name, text)
    assert time.process_time() - started < 10


@pytest.mark.parametrize(
    ("text", "last"),
    [
        *(("$6 000", "6000"), ("13'000", "13000"), ("0,75", "0.75"), ("3 * 10^8", "300000000"), ("1e-05", "0.00001")),
        *(("minus 5", "-5"), ("= - 5", "-5"), ("2 million", "2 million"), ("3万", "30000"), ("13k", "13 thousand")),
        *(("1.2.3", None), ("7 in 1.2.3", "7"), ("at 12:15", None), ("x^18", None), ("on 2024-01-05", None)),
        *(("1.234.567", "1234567"), ("2 and 12,34,567", "1234567"), ("3 1/3 or 1.5e3", "1500")),
    ],
)
def test_the_last_number_is_read_as_a_whole(text: str, last: str | None) -> None:
    assert one("last_number", text) == last


@pytest.mark.parametrize(
    ("text", "number", "first"),
    [
        *(
            ("- 5", "-5", "-5"),
            ("3 × 10^8", "300000000", "300000000"),
            ("6 000", "6000", "6000"),
            ("2½", "2 1/2", "2 1/2"),
        ),
        *(
            ("60%", "60%", "60%"),
            ("1.2.3", None, None),
            ("18 eggs", None, "18"),
            ("1.5 million", "1.5 million", "1.5 million"),
        ),
        *(
            ("1e-05", "0.00001", "0.00001"),
            ("12:15", None, None),
            ("6 000 of 7", None, "6000"),
            ("minus 5 of 7", None, "-5"),
        ),
    ],
)
def test_the_only_and_the_first_number_too(text: str, number: str | None, first: str | None) -> None:
    texts = extract(pa.array([text]), ["plain"])
    assert extract(texts, ["number"]).to_pylist() == [number]
    assert extract(texts, ["first_number"]).to_pylist() == [first]


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("strip_thinking", "[THINK]1[/THINK]2", "2"),
        ("strip_thinking", "<think>42", ""),
        ("own_answer", "18\nQuestion: 19", "18\n"),
        *(("letter", "b", "b"), ("letter", "`(B)`", "B"), ("letter", "ab", None)),
        *(("last_letter", "答案是B。", "B"), ("last_letter", "\\boxed{C}", "C")),
    ],
)
def test_filter_of_what_models_write(name: str, text: str, found: str | None) -> None:
    assert one(name, text) == found


def _lm_eval_filter(pattern: str, group: int, text: str) -> str:
    """lm-evaluation-harness's RegexFilter, in a few lines of our own."""
    matches = re.findall(pattern, text)
    if not matches:
        return "[invalid]"
    found = matches[group]
    return str(next(part for part in found if part) if isinstance(found, tuple) else found).strip()


def _lm_eval_same(answer: str, reference: str) -> bool:
    for pattern in (",", r"\$", "(?s).*#### ", r"\.$"):
        answer, reference = re.sub(pattern, "", answer), re.sub(pattern, "", reference)
    return answer.lower() == reference.lower()


PIECES = st.sampled_from(
    ["1", "8", "18", "0", ".", ",", "$", "-", " ", "#### ", "####", "a", "\n", "é", "%", "[invalid]"]
)


@settings(deadline=None, max_examples=1500)
@given(
    st.lists(PIECES, max_size=14).map("".join) | st.text(max_size=40),
    st.sampled_from(["18", "1,800", "-18", "1.8", "0"]),
)
def test_lm_evals_own_filters_agree_with_it_on_every_text(text: str, key: str) -> None:
    (text,) = text_column([text]).to_pylist()
    check = {"type": "number", "value": float(key.replace(",", ""))}
    (result,) = exact_results(pa.array([text]), [check], NAMED_PIPELINES["lm_eval/gsm8k"])
    assert result is not None
    reference = f"First 1 + 1.\n#### {key}"
    for reading, pattern, group in (
        (result.strict, r"#### (\-?[0-9\.\,]+)", 0),
        (result.flexible, r"(-?[$0-9.,]{2,})|(-?[0-9]+)", -1),
    ):
        found = _lm_eval_filter(pattern, group, text)
        assert (reading.extracted or "[invalid]") == found
        assert reading.passed is _lm_eval_same(found, reference)


NASTY = [
    "#### 1.2.3",
    "#### .",
    "1.2.3",
    "0.25.",
    ".",
    "1/0",
    "9" * 400,
    "1e999",
    "12.",
    "1,2,3",
    "-",
    "%",
    "1 1/0",
    "٣",
    "1_0",
    "",
    "\0",
]


@pytest.mark.parametrize("kind", ["number", "choice", "phrase", "yes_no", "output"])
@pytest.mark.parametrize(
    "steps",
    [["strip"], ["last_line"], [RegexFilter(regex=r"#### (\-?[0-9\.\,]+)")], [RegexFilter(regex=r"(-?[$0-9.,]{2,})")]],
)
def test_no_answer_ends_the_marking_of_the_others(kind: str, steps: list[str | RegexFilter]) -> None:
    check = {"type": kind, "value": 12.0, "answer": "yes", "accept": ["12"], "text": "12"}
    results = exact_results(
        pa.array(["#### 12", *NASTY]), [check] * (len(NASTY) + 1), FilterPipelines(strict=steps, flexible=steps)
    )
    assert len([result for result in results if result]) == len(NASTY) + 1
    if kind == "number" and isinstance(steps[0], RegexFilter) and "####" in steps[0].regex:
        assert results[0] is not None
        assert results[0].flexible.passed
        assert [result.flexible.passed for result in results[1:] if result] == [False] * len(NASTY)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.text(alphabet="0123456789.,-+*/=$%#\\{}()eExk \nboxedansweriquto:'\"` ½٣万", max_size=60)
        | st.text(max_size=30),
        max_size=4,
    )
)
def test_every_filter_leaves_what_can_be_compared(texts: list[str]) -> None:
    column = text_column(texts)
    checks = [{"type": "number", "value": 1.0}] * len(texts)
    for name in FILTERS:
        for pipelines in (FilterPipelines.of(name, f"plain {name}"), FilterPipelines.of(f"{name} last_number", name)):
            assert len(exact_results(column, checks, pipelines)) == len(texts)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(alphabet=st.characters(), max_size=30), max_size=4))
def test_any_text_is_read_or_not_but_never_fails(texts: list[str]) -> None:
    column = text_column(texts)
    for name in FILTERS:
        assert len(extract(column, [name])) == len(texts)


def test_strict_and_flexible_readings_of_a_suite() -> None:
    number, choice = {"type": "number", "value": 42}, {"type": "choice", "answer": "B"}
    texts = ["So 40.\n#### 42", "It is 42 dollars.", "It is 41.", "<think>#### 42</think>no", "(B)", "A or B"]
    results = exact_results(pa.array(texts), [number] * 4 + [choice] * 2)
    assert results == [
        ExactResult(Reading("42", True), Reading("42", True)),
        ExactResult(Reading(None, False), Reading("42", True)),
        ExactResult(Reading(None, False), Reading("41", False)),
        ExactResult(Reading(None, False), Reading(None, False)),
        ExactResult(Reading("B", True), Reading("B", True)),
        ExactResult(Reading(None, False), Reading("B", True)),
    ]


def test_types_without_filters_are_left_out_unless_the_suite_has_some() -> None:
    checks: list[dict[str, Any]] = [
        {"type": "phrase", "accept": ["Blue"]},
        {"type": "yes_no", "answer": "yes"},
        {"type": "output", "text": "a b"},
    ]
    texts = pa.array(["blue", "YES", "a b"])
    assert exact_results(texts, checks) == [None] * 3
    results = exact_results(texts, checks, FilterPipelines.of("first_line", "last_line"))
    assert [result.flexible.passed for result in results if result] == [True] * 3


@pytest.mark.parametrize(
    ("check", "text", "passed"),
    [
        ({"value": 25, "percent": True}, "25%", True),
        ({"value": 25, "percent": True}, "25", True),
        ({"value": 0.25}, "25%", True),
        ({"value": 25}, "25%", True),
        ({"value": 0.25}, "0.25%", False),
        ({"value": 0.15, "tolerance": 0.005}, "9/60", True),
        ({"value": 0.15, "tolerance": 0.005}, "9/59", False),
        ({"value": 18, "tolerance": 0.01}, "18.009", True),
        ({"value": 18, "tolerance": 0.01}, "18.02", False),
    ],
)
def test_numbers_agree_within_their_tolerance(check: dict[str, float], text: str, passed: bool) -> None:
    (result,) = exact_results(pa.array([text]), [{"type": "number", **check}])
    assert result is not None
    assert result.flexible.passed is passed


def test_the_last_number_is_that_of_the_plain_pattern_on_plain_prose() -> None:
    texts = [f"She buys {n} for ${n * 3:,}.{n % 90 + 10} and {n + 1} more." for n in range(1, 4000, 37)]
    pattern = re.compile(r"\d[\d,]*(?:\.\d+)?")
    expected = [float(pattern.findall(text)[-1].replace(",", "")) for text in texts]
    assert number_values(extract(pa.array(texts), ["last_number"])).to_pylist() == expected


def test_a_long_reading_is_cut_as_a_checks_is() -> None:
    check = {"type": "phrase", "accept": ["a" * 400]}
    (result,) = exact_results(pa.array(["a" * 400]), [check], FilterPipelines.of("strip", "strip"))
    assert result is not None
    assert (result.strict.passed, result.strict.extracted) == (True, "a" * (MAX_EXTRACTED_CHARS - 1) + "…")


@pytest.mark.parametrize(
    ("answer", "strict", "flexible"),
    [("9/60", True, True), ("3/20", True, True), ("0.15", True, True), ("It is 9/59.", False, False)],
)
def test_filters_compare_fractions_as_the_checks_do(answer: str, strict: bool, flexible: bool) -> None:
    check = {"type": "number", "value": "9/60", "tolerance": 0.005, "percent": False, "variable": None}
    (found,) = exact_results(text_column([answer]), [check])
    assert found is not None
    assert (found.strict.passed, found.flexible.passed) == (strict, flexible)
