from __future__ import annotations

import pytest

from ml_pipeline.reports.intervals import Estimate, difference_interval, mean_interval, t_quantile_95

# Two-sided 5% points of Student's t as printed in statistical tables.
PRINTED_T = [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (9, 2.262), (10, 2.228), (30, 2.042), (120, 1.980)]


@pytest.mark.parametrize(("degrees", "printed"), PRINTED_T)
def test_t_quantiles_are_those_of_printed_tables(degrees: int, printed: float) -> None:
    assert t_quantile_95(degrees) == pytest.approx(printed, abs=0.0006)


def test_t_quantile_of_many_degrees_is_the_normal_one() -> None:
    assert t_quantile_95(20_000) == pytest.approx(1.96, abs=0.001)


def test_t_quantile_needs_a_degree_of_freedom() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        t_quantile_95(0)


def test_mean_interval_by_hand() -> None:
    # 1, 2, 3: mean 2, deviation 1, margin 4.3027 / sqrt(3) = 2.4841.
    assert mean_interval(2.0, 1.0, 3) == pytest.approx((-0.4841, 4.4841), abs=1e-4)
    assert mean_interval(2.0, 1.0, 1) is None


def test_difference_interval_by_hand() -> None:
    # 6 gained and 1 lost of 10: (7 - 2) / 12 = 0.41667; margin 1.95996 * sqrt((9/12 - 0.41667^2) / 12) = 0.42955.
    assert difference_interval(6, 1, 10) == pytest.approx((-0.01289, 0.84622), abs=1e-4)


def test_difference_interval_is_symmetric_and_stays_within_one() -> None:
    low, high = difference_interval(1, 6, 10)
    assert (-high, -low) == pytest.approx(difference_interval(6, 1, 10))
    assert difference_interval(5, 0, 5)[1] == 1.0


def test_clearly_above_needs_whole_intervals_apart() -> None:
    high, low, single = Estimate(5, 4, 6, 9), Estimate(2, 1, 3.9, 9), Estimate(9, None, None, 1)
    assert high.clearly_above(low)
    assert not low.clearly_above(high)
    assert not high.clearly_above(Estimate(2, 1, 4, 9))
    assert not single.clearly_above(low)
