"""The smallest difference that a suite detects: against the exact power of the exact test, and simulated runs."""

from __future__ import annotations

from functools import cache
from math import comb

import numpy as np
import pytest

from ml_pipeline.scoring.power import detectable_difference
from ml_pipeline.scoring.statistics import exact_mcnemar
from ml_pipeline.suites import load_suites

PROBES = len(load_suites(["capability_templates"])[0].probes)


@cache
def _fewest_worse(discordant: int) -> int:
    """The most probes on the smaller side with which so many discordant ones are significant; -1 where none is."""
    return max((k for k in range(discordant // 2 + 1) if exact_mcnemar(k, discordant - k) < 0.05), default=-1)


def exact_power(pairs: int, discordance: float, difference: float) -> float:
    """How often McNemar's exact test at 5% finds the difference: by going through every count of discordant probes."""
    gain, total = (discordance + difference) / (2 * discordance), 0.0
    for count in range(pairs + 1):
        chance = comb(pairs, count) * discordance**count * (1 - discordance) ** (pairs - count)
        edge = _fewest_worse(count) if chance > 1e-9 else -1
        ways = [comb(count, k) for k in range(edge + 1)]
        total += chance * sum(
            n * (gain ** (count - k) * (1 - gain) ** k + gain**k * (1 - gain) ** (count - k))
            for k, n in enumerate(ways)
        )
    return total


@pytest.mark.parametrize(("pairs", "discordance"), [(41, 0.35), (100, 0.2), (240, 0.1), (240, 0.2), (610, 0.15)])
def test_the_exact_test_finds_it_4_times_in_5(pairs: int, discordance: float) -> None:
    least = detectable_difference(discordance, pairs)
    assert least <= discordance
    assert exact_power(pairs, discordance, least) == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize(("pairs", "points"), [(23, 35), (41, 20), (100, 9)])
def test_where_checkpoints_hardly_differ_it_still_takes_a_few_probes(pairs: int, points: int) -> None:
    # A difference of d needs at least d discordant probes, all on one side: six of them are significant (2 / 2^6).
    least = detectable_difference(0.0, pairs)
    assert round(100 * least) == points
    assert exact_power(pairs, least, least) > 0.8


def test_more_probes_and_fewer_discordant_ones_find_less() -> None:
    assert detectable_difference(0.2, 600) < detectable_difference(0.2, 240) < detectable_difference(0.3, 240)
    assert detectable_difference(0.5, 3) == pytest.approx(1.0)


@pytest.mark.parametrize(("discordance", "pairs"), [(-0.1, 5), (1.1, 5), (0.5, 0)])
def test_it_refuses(discordance: float, pairs: float) -> None:
    with pytest.raises(ValueError, match="discordance must be within"):
        detectable_difference(discordance, pairs)


def test_the_templated_suite_finds_five_points_and_the_fixed_one_does_not() -> None:
    # Two checkpoints of one run differ on 10 to 15% of the probes.
    for discordance in (0.10, 0.15):
        assert detectable_difference(discordance, PROBES) <= 0.05
        assert exact_power(PROBES, discordance, 0.05) > 0.85
        assert exact_power(41, discordance, 0.05) < 0.15


def test_simulated_checkpoints_five_points_apart_are_told_apart_and_equal_ones_are_not() -> None:
    """Every probe has a chance of its own to be passed, which a checkpoint moves: not one coin for all."""
    generator = np.random.default_rng(3)
    found = {0.0: 0, 0.05: 0}
    runs = 400
    for gained in found:
        for _ in range(runs):
            ability = generator.beta(0.15, 0.45, PROBES)
            # What the second learnt, it learnt wholly on some probes; the mean rises by `gained`.
            learnt = generator.random(PROBES) < gained / (1 - 0.25)
            first, second = generator.random(PROBES) < ability, generator.random(PROBES) < np.maximum(ability, learnt)
            p_value = exact_mcnemar(int((second & ~first).sum()), int((first & ~second).sum()))
            found[gained] += p_value < 0.05
    assert found[0.05] / runs > 0.8
    assert found[0.0] / runs <= 0.05 + 0.025
