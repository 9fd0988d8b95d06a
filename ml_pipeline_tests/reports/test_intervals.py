from __future__ import annotations

from ml_pipeline.reports.intervals import Estimate


def test_clearly_above_needs_whole_intervals_apart() -> None:
    high, low, single = Estimate(5, 4, 6, 9), Estimate(2, 1, 3.9, 9), Estimate(9, None, None, 1)
    assert high.clearly_above(low)
    assert not low.clearly_above(high)
    assert not high.clearly_above(Estimate(2, 1, 4, 9))
    assert not single.clearly_above(low)
