from __future__ import annotations

import pytest

from ml_pipeline.reports.comparison import compare, compare_run


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


def test_a_run_of_one_checkpoint_is_tested_like_the_checkpoint() -> None:
    alone = compare(passes("abc"), passes("abdefghi"))
    run = compare_run(passes("abc"), [passes("abdefghi")])
    assert alone is not None
    assert run is not None
    assert (run.paired, run.delta, run.p_value) == (alone.paired, alone.delta, alone.p_value)


def test_several_checkpoints_prove_together_what_none_proves_alone() -> None:
    # Each loses five of the base's probes and gains none: 2 / 2^5. Between them they lose eight, and gain none.
    halves = [passes("fghi"), passes("abci")]
    found = compare_run(passes("abcdefghi"), halves)
    assert found is not None
    assert all(one is not None and one.p_value == 2 / 2**5 for one in (compare(passes("abcdefghi"), h) for h in halves))
    assert found.delta == pytest.approx(-0.5)
    assert found.p_value == 2 / 2**8
    assert found.verdict == "worse"


def test_a_run_is_compared_on_probes_scored_for_all() -> None:
    found = compare_run(passes("a", of="abcd"), [passes("ab", of="abce"), passes("abc", of="abcf")])
    assert found is not None
    assert (found.paired, found.delta) == (3, 0.5)
    assert compare_run(passes("a"), []) is None
    assert compare_run(passes("a", of="a"), [passes("b", of="b"), passes("b", of="b")]) is None
