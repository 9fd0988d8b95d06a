"""Training losses beside scores: the curve that each run's log told, and the loss that belongs to a checkpoint."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

TRAIN, VALIDATION = "train", "val"


@dataclass(frozen=True, eq=False, slots=True)
class LossCurve:
    """The losses of one kind that a run printed, by ascending `iterations`; NaN where training
    had diverged, or a loss could be read in two ways."""

    iterations: npt.NDArray[np.int64]
    losses: npt.NDArray[np.float64]

    def at(self, iteration: int) -> float | None:
        """The last loss printed up to this iteration; None when that was a diverged one, or longer ago than it usually
        takes to the next print: it would be the loss of other weights."""
        before = int(np.searchsorted(self.iterations, iteration, side="right")) - 1
        if before < 0 or iteration - self.iterations[before] > self._usual_gap:
            return None
        loss = float(self.losses[before])
        return None if np.isnan(loss) else loss

    @property
    def _usual_gap(self) -> float:
        return float(np.median(np.diff(self.iterations))) if len(self.iterations) > 1 else 0.0


RunLosses = Mapping[str, LossCurve]
"""A run's curves by kind, `TRAIN` and `VALIDATION`; a kind that was never printed is absent."""


def losses_by_run(training_loss: pd.DataFrame) -> dict[tuple[str, str], RunLosses]:
    """The curves of every run in rows of table `training_loss`, by source and run."""
    found: dict[tuple[str, str], dict[str, LossCurve]] = defaultdict(dict)
    ordered = training_loss.sort_values("iteration", kind="stable")
    for key, rows in ordered.groupby(["source", "run", "kind"]):
        assert isinstance(key, tuple)
        source, run, kind = map(str, key)
        losses = rows["loss"].to_numpy(dtype=np.float64, na_value=np.nan)
        found[source, run][kind] = LossCurve(rows["iteration"].to_numpy(dtype=np.int64), losses)
    return dict(found)
