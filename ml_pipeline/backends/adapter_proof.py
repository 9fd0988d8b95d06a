"""Proof that an adapter changed the model: the logits after a fixed text, with it and without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from ml_pipeline.errors import AdapterError, AdapterNotAppliedError

Logits = npt.NDArray[np.float32]

# The same text computed in the same way gives the same bits, so that any difference at all is the adapter's; this only
# asks for one that can matter to a token's choice.
_NOISE = 1e-6


def logit_difference(adapter: Path, base: Logits, adapted: Logits) -> float:
    """The largest difference between the logits (vocabulary,) without and with the adapter.

    Raises:
        AdapterError: they are not finite, or the same.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        difference = float(np.abs(adapted - base).max())
    if not np.isfinite(difference):
        raise AdapterError(
            f"{adapter}: the model's logits are NaN or infinite under this adapter. Training diverged, or the "
            "scale is wrong."
        )
    if difference <= _NOISE:
        raise AdapterNotAppliedError(
            f"{adapter}: not applied: the logits are those without it. Its weights are zero "
            "(a checkpoint from before the first step?) or its scale is."
        )
    return difference
