from __future__ import annotations

import pytest

from ml_pipeline.reports.comparison import compare


def passes(right: str, of: str = "abcdefghij") -> dict[str, bool]:
    return {probe: probe in right for probe in of}


def test_paired_figures_by_hand() -> None:
    found = compare(passes("abc"), passes("abdefghi"))
    assert found is not None
    assert (found.paired, found.better, found.worse) == (10, 6, 1)
    assert found.delta == pytest.approx(0.5)
    # Two-sided: 2 * (C(7,0) + C(7,1)) / 2^7.
    assert found.p_value == pytest.approx(0.125)
    assert found.verdict == "no clear difference"


@pytest.mark.parametrize(
    ("base", "candidate", "verdict"),
    [
        ("", "abcdefgh", "better"),
        ("abcdefgh", "", "worse"),
        ("", "abcde", "no clear difference"),
        ("ab", "ab", "no clear difference"),
    ],
)
def test_verdicts(base: str, candidate: str, verdict: str) -> None:
    found = compare(passes(base), passes(candidate))
    assert found is not None
    assert found.verdict == verdict


def test_only_probes_scored_for_both_count() -> None:
    found = compare(passes("ab", of="abcd"), passes("abc", of="abce"))
    assert found is not None
    assert (found.paired, found.better, found.worse) == (3, 1, 0)
    assert compare(passes("a", of="a"), passes("b", of="b")) is None
