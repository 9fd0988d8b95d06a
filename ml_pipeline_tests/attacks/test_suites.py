"""A stranger's suite: expressions, templates and patterns that would run for hours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ml_pipeline.errors import SuiteError
from ml_pipeline.suites.expressions import ExpressionError, parse_expression
from ml_pipeline.suites.loader import load_suites
from ml_pipeline.suites.patterns import find_first, pattern_problem
from ml_pipeline_tests.attacks.bounded import run_bounded
from ml_pipeline_tests.attacks.conftest import Held

EXPRESSIONS = [
    "round(5, -10**9)",
    "round(5.5, -10**15)",
    "round(5.5, 10**15)",
    "round(12345, 0 - 1000000000)",
    "9**9**9**9",
    "(10**15)**64",
    "(1e15)**64",
    "(-8)**0.5",
    "0x" + "f" * 480,
    "text(0x" + "f" * 480 + ")",
    "'a' * 10**12",
    "10**12 * 'a'",
    "[] * 10**15",
    "[[]] * 10**15",
    "[[]] * 1000 * 1000",
    "[[[[[[]] * 9] * 9] * 9] * 9] * 9",
    "join(['a'] * 1000, 'b' * 1000)",
    "join([[[]] * 300] * 3, 'b' * 1000)",
    "sum([[1] * 30] * 30, [])",
    "sum([[]] * 1000, [1] * 1000)",
    "sum(['a'] * 1000, '')",
    "texts([['a'] * 300] * 3)",
    "sorted([['a'] * 100] * 9)",
    "range(0, 10**15)",
    "range(-10**15, 10**15, 1)",
    "pad('a', 10**15)",
    "pad(1, -10**15)",
    "'a' * 1000 in 'a' * 999 + 'b'",
    "index(['a' * 999], 'a' * 999)",
    "gcd(10**15, 10**15 - 1)",
    "upper('ß' * 1000)",
    "text(['\U0010ffff'] * 1000)",
    "'%1000000000d' % 1",
    "difference(range(1000), range(1000)) + union(range(999), ['a'])",
    "-" * 190 + "1",
    "[" * 90 + "]" * 90,
    "1" + " if 1 else 2" * 40,
    "max([[1] * 500, [1] * 500])",
    "('a' * 1000)[::-10**15]",
]


def evaluate(sources: list[str]) -> list[str]:
    found = []
    for source in sources:
        try:
            found.append(f"value {str(parse_expression(source).value({}))[:20]}")
        except ExpressionError:
            found.append("refused")
    return found


def double(times: int) -> str:
    """Lists that are in lists twice, as variables of a template make them."""
    twice, nested = parse_expression("[x, x]"), parse_expression("[x]")
    variables: dict[str, Any] = {"x": []}
    try:
        for _ in range(times):
            variables["x"] = nested.value(variables)
    except ExpressionError as error:
        message = str(error)
    variables["x"] = []
    try:
        for _ in range(times):
            variables["x"] = twice.value(variables)
    except ExpressionError as error:
        return f"{message}; {error}"
    return "doubled"


def load(content: dict[str, Any], folder: str) -> str:
    """What is wrong with a suite of this content."""
    head = {"name": "bad", "version": "1", "kind": "capability", "description": "x", "temperature": 0, "max_tokens": 9}
    Path(folder, "bad.yaml").write_text(json.dumps(head | content))
    try:
        (suite,) = load_suites(["bad"], [Path(folder)])
    except SuiteError as error:
        return str(error)[:2000]
    return f"{len(suite.probes)} probes"


def template(name: str = "t", **fields: Any) -> dict[str, Any]:
    base = {"id": name, "category": "c", "prompt": "p {x}", "count": 1000, "check": {"type": "number", "value": 1}}
    return base | {"variables": {"x": {"type": "integer", "minimum": 1, "maximum": 10**15}}} | fields


SORTS = "len(sorted(range(1000)))" + " + len(sorted(range(1000)))" * 10
LONG = {"type": "choice", "of": ["é" * 900]}
REGEX = {"type": "regex", "pattern": r"(\pL\pN\PL){80}x"}
SUITES: dict[str, tuple[dict[str, Any], str]] = {
    "a constraint that none keeps, of long work": (
        {"templates": [template(constraints=[f"{SORTS} < 0"])]},
        "10,000,000 steps",
    ),
    "a thousand templates of a thousand probes": (
        {"templates": [template(f"t{n}", prompt="p {x} " + "y" * 15_000) for n in range(100)]},
        "10,000,000 steps",
    ),
    "prompts of long values": (
        {"templates": [template(prompt="{y}" * 6000, variables={"y": LONG})]},
        "more than 20,000 characters",
    ),
    "samples of a thousand": (
        {"templates": [template(variables={"x": {"type": "sample", "of": list(range(1000)), "size": 1000}})]},
        "1000 probes",
    ),
    "a check of thousands of expressions": (
        {"templates": [template(check={"type": "phrase", "accept": [f"{{x + {n}}}" for n in range(9000)]})]},
        "too_long|at most 200|steps",
    ),
    "round": (
        {"templates": [template(variables={"x": {"type": "computed", "value": "round(5, -10**9)"}}, count=1)]},
        "1 probes",
    ),
    "ten thousand patterns": (
        {"probes": [{"id": f"p{n}", "category": "c", "prompt": "q", "check": REGEX} for n in range(10_000)]},
        "10,000,000 steps",
    ),
    "a pattern in ten thousand probes of a template": (
        {"templates": [template(f"t{n}", check=REGEX) for n in range(10)]},
        "10,000,000 steps",
    ),
}


def test_expressions_end_soon_in_a_value_or_an_error(held: Held) -> None:
    outcome = run_bounded(evaluate, EXPRESSIONS, memory_mb=256, cpu_s=10)
    assert outcome.error is None
    found = dict(zip(EXPRESSIONS, outcome.value, strict=True))
    # By hand: what Python gives too.
    assert found["round(5, -10**9)"] == "value 0"
    assert found["round(5.5, 10**15)"] == "value 5.5"
    assert found["sum([[1] * 30] * 30, [])"].startswith("value [1, 1")
    assert found["[] * 10**15"] == "value []"
    for refused in ("[[]] * 1000 * 1000", "9**9**9**9", "join(['a'] * 1000, 'b' * 1000)", "range(0, 10**15)"):
        assert found[refused] == "refused"
    held(outcome, attack=f"{len(EXPRESSIONS)} expressions", by="bounds on every operation", seconds=2, grown_mb=30)


def test_lists_in_lists_end_soon(held: Held) -> None:
    outcome = run_bounded(double, 2000, memory_mb=256, cpu_s=10)
    assert "more than 32 deep" in outcome.value
    assert "characters or values" in outcome.value
    held(outcome, attack="expressions: lists in lists", by="empty lists count, and depth", seconds=2, grown_mb=30)


@pytest.mark.slow
@pytest.mark.parametrize("name", SUITES)
def test_a_suite_ends_soon(name: str, tmp_path: Path, held: Held) -> None:
    content, why = SUITES[name]
    outcome = run_bounded(load, content, str(tmp_path), memory_mb=2048, cpu_s=60)
    assert outcome.error is None
    assert any(word in outcome.value for word in why.split("|")), outcome.value
    held(outcome, attack=f"suite: {name}", by="10,000,000 steps for a suite", seconds=60, grown_mb=700)


PATTERNS = [
    "((a{1000}){1000}){1000}",
    r"(\pL{1,900}){1,2}x",
    r"\pL{1000}",
    r"(\pL\pN\PL){99}",
    r"(?i)" + r"\pL{50}" * 100,
    r"[\pL\pN]{200}",
    "(" * 400 + "a" + ")" * 400,
    "(a|" * 300 + "b" + ")" * 300,
    "a{1000}{1000}",
    "(x{1,30}){1,30}x",
    "[^x]{999}x",
    "(.{1,15}){1,60}x",
    "(a*)*b",
    "(?:a?){999}a{999}",
]


def match(patterns: list[str]) -> list[str]:
    found = []
    for pattern in patterns:
        problem = pattern_problem(pattern)
        if problem is None:
            find_first(pattern, "a" * 20_000)
        found.append(problem or "taken")
    return found


@pytest.mark.slow
def test_patterns_are_bounded_in_what_they_become(held: Held) -> None:
    outcome = run_bounded(match, PATTERNS, memory_mb=1024, cpu_s=60)
    assert outcome.error is None
    found = dict(zip(PATTERNS, outcome.value, strict=True))
    assert "repeats too much" in found["((a{1000}){1000}){1000}"]
    assert "repeats too much" in found[r"\pL{1000}"]
    assert found["(x{1,30}){1,30}x"] == "taken"
    held(outcome, attack=f"{len(PATTERNS)} patterns", by="their size written out, and RE2", seconds=30, grown_mb=200)
