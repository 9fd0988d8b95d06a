from __future__ import annotations

from fractions import Fraction

import pytest

from ml_pipeline.reports.comparison import adjusted, compare, compare_means, compare_run
from ml_pipeline.scoring.paired import differences_interval
from ml_pipeline.scoring.statistics import exact_mcnemar


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
    # Of three answers each, the base alone passes d and e, and with one other a, b, c, f, g and h: twice the chance
    # that it is the base which passes all of them.
    assert found.p_value == pytest.approx(2 * (1 / 3) ** 2 * (2 / 3) ** 6)
    assert found.verdict == "worse"


def test_a_run_is_compared_on_probes_scored_for_all() -> None:
    found = compare_run(passes("a", of="abcd"), [passes("ab", of="abce"), passes("abc", of="abcf")])
    assert found is not None
    assert (found.paired, found.delta) == (3, 0.5)
    assert compare_run(passes("a"), []) is None
    assert compare_run(passes("a", of="a"), [passes("b", of="b"), passes("b", of="b")]) is None


def test_several_answers_a_probe_are_compared_by_the_share_that_passed() -> None:
    reference = {"a": Fraction(1, 2), "b": Fraction(0), "c": Fraction(1), "d": Fraction(1, 3)}
    candidate = {"a": Fraction(1), "b": Fraction(1, 2), "c": Fraction(1), "d": Fraction(1)}
    found = compare(reference, candidate)
    assert found is not None
    assert (found.better, found.worse, found.paired) == (3, 0, 4)
    assert found.delta == pytest.approx((1 / 2 + 1 / 2 + 0 + 2 / 3) / 4)
    # All three differences point one way, as in 2 of the 8 ways to flip their signs.
    assert found.p_value == 2 / 8
    # In sixths they are 3, 3, 0 and 4; with p = 0.25 the interval cannot leave out 0.
    assert (found.low, found.high) == differences_interval([3, 3, 0, 4], 6)
    assert -1 < found.low < 0 < found.delta < found.high < 1


def test_templates_are_the_sample_when_it_comes_to_other_templates() -> None:
    # All twelve probes of one template are gained, and of each of eight others one of four is lost.
    templates = {f"{name}{index}": name for name in "rstuvwxyz" for index in range(12 if name == "r" else 4)}
    base = {probe: not probe.startswith("r") for probe in templates}
    candidate = {probe: probe.startswith("r") or not probe.endswith("0") for probe in templates}
    found = compare(base, candidate, templates)
    assert found is not None
    assert (found.better, found.worse, found.paired) == (12, 8, 44)
    assert found.p_value == pytest.approx(exact_mcnemar(12, 8))
    assert found.beyond is not None
    assert found.beyond.count == 9
    # By template the sums are 12 and eight times -1. The 12 outweighs the rest: every flip is at least as far from 0.
    assert found.beyond.p_value == 1.0
    assert found.beyond.low < found.delta < found.high < found.beyond.high
    alone = compare(base, candidate)
    assert alone is not None
    assert alone.beyond is None


def test_many_checkpoints_are_allowed_for() -> None:
    base, clear, chance = passes(""), passes("abcdefgh"), passes("abcdef")
    single = [compare(base, one) for one in (clear, chance, chance)]
    assert [one.p_value for one in single if one is not None] == [2 / 2**8, 2 / 2**6, 2 / 2**6]
    together = adjusted([*single, None])
    assert [one and one.p_adjusted for one in together] == [6 / 2**8, 4 / 2**6, 4 / 2**6, None]
    assert [one.verdict for one in single if one] == ["better"] * 3
    assert [one.verdict for one in together if one] == ["better", "no clear difference", "no clear difference"]


def test_means_are_compared_on_the_probes_that_have_both() -> None:
    reference, candidate = {"a": 1.0, "b": 2.0, "c": 3.0, "x": 9.0}, {"a": 2.0, "b": 4.0, "c": 6.0, "y": 0.0}
    found = compare_means(reference, candidate, {})
    assert found is not None
    # Differences 1, 2, 3: Student's margin 4.3027 / sqrt(3) = 2.4841, widened by 1 + 4 / 5.
    assert (found.paired, found.delta, found.clear) == (3, 2.0, False)
    assert (found.low, found.high) == pytest.approx((2 - 2.4841 * 1.8, 2 + 2.4841 * 1.8), abs=1e-3)
    assert compare_means({"a": 1.0}, {"a": 2.0}, {}) is None
    assert compare_means(reference, candidate, dict.fromkeys("abc", "t")) is None


def test_equal_differences_of_means_are_never_clear() -> None:
    reference = {probe: float(index) for index, probe in enumerate("abcde")}
    for shift in (0.0, 2.0, 0.1 + 0.2):
        found = compare_means(reference, {probe: value + shift for probe, value in reference.items()}, {})
        assert found is not None
        assert found.delta == pytest.approx(shift)
        assert not found.clear
    same = compare_means(dict.fromkeys("abc", 0.1 + 0.2), dict.fromkeys("abc", 0.3), {})
    assert same is not None
    assert (same.delta, same.low, same.high) == (0.0, None, None)


def test_an_interval_is_that_of_the_test_at_any_confidence() -> None:
    # 9 gained and 1 lost: p = 2 * 11 / 2^10 = 0.0215.
    found = compare(passes("a"), passes("bcdefghij"))
    assert found is not None
    assert found.p_value == pytest.approx(22 / 1024)
    assert (found.low > 0, found.at(0.978).low > 0, found.at(0.979).low > 0) == (True, True, False)
    assert found.at(0.95) == found
    assert found.at(0.99).high > found.high


def test_templates_all_alike_or_few_stay_on_the_scale() -> None:
    templates = {probe: "one" if probe < "f" else "other" for probe in "abcdefghij"}
    for candidate in ("", "abcde", "abcdefghij", "af"):
        found = compare(passes(""), passes(candidate), templates)
        assert found is not None
        assert found.beyond is not None
        assert -1 <= found.beyond.low <= 0 <= found.beyond.high <= 1
