import time

import pytest

from ml_pipeline.suites.patterns import find_first, pattern_problem


@pytest.mark.parametrize("pattern", ["a", r"(?i)\bab\b|(c)", r"\d{2,4}", "(?P<name>x+)", "(a+)+b", "é|🙂"])
def test_patterns_that_are_taken(pattern: str) -> None:
    assert pattern_problem(pattern) is None


@pytest.mark.parametrize(
    "pattern",
    ["(a", "a**", r"(a)\1", "(?=a)b", "(?<!a)b", "(a{1000}){1000}", "", "a?", "a" * 1001, "\ud800", "["],
)
def test_patterns_that_are_refused(pattern: str) -> None:
    assert pattern_problem(pattern) is not None


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("b+", "abbc bbb", "bb"),
        ("x|b\n", "a\nb\nb", "b\n"),
        ("(?i)AB|c", "xx\nab c", "ab"),
        ("(a)(b)?", "cab", "ab"),
        ("^b", "a\nb", None),
        ("(?m)^b", "a\nb", "b"),
        ("🙂", "a🙂b", "🙂"),
        ("a", "", None),
        ("a.b", "a\0b", "a\0b"),
    ],
)
def test_find_first(pattern: str, text: str, found: str | None) -> None:
    assert find_first(pattern, text) == found


def test_a_pattern_that_hangs_a_backtracking_engine() -> None:
    started = time.perf_counter()
    assert find_first("((a+)+)+c", "a" * 1_000_000) is None
    assert time.perf_counter() - started < 5
