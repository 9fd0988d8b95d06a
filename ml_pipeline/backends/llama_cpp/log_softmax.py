"""Logits to log-probabilities."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def log_softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Natural logarithms of the probabilities that `logits` (vocabulary,) stand for, summed in double precision."""
    shifted = logits - logits.max()
    result: npt.NDArray[np.float32] = shifted - np.log(np.exp(shifted, dtype=np.float64).sum())
    return result.astype(np.float32)
