from __future__ import annotations

import pytest

from ml_pipeline.reports.intervals import Estimate, difference_interval


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
