"""A training run's losses in a few figures and one line, for those who glance at it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_SHOWN_ROWS = 10
_CURVE_WIDTH = 60
_BLOCKS = "▁▂▃▄▅▆▇█"
_GAP = "x"
_COLUMNS = ("iteration", "kind", "loss", "reason", "learning_rate", "tokens_per_s", "trained_tokens", "attempt")


@dataclass(frozen=True, slots=True)
class LossSummary:
    """`figures` by name (those that there are), the training loss as one line of blocks, and the last rows."""

    figures: Mapping[str, float]
    curve: str
    last: Sequence[Mapping[str, Any]]


def loss_summary(rows: Sequence[Mapping[str, Any]]) -> LossSummary:
    """Sum up rows of table training_loss of one run."""
    by_kind = {kind: [row for row in _in_order(rows) if row["kind"] == kind] for kind in ("train", "val")}
    figures = {
        f"last_{kind}_loss": of_kind[-1]["loss"]
        for kind, of_kind in by_kind.items()
        if of_kind and of_kind[-1]["loss"] is not None
    }
    if validated := [row["loss"] for row in by_kind["val"] if row["loss"] is not None]:
        figures["best_val_loss"] = min(validated)
    last = _in_order(rows)[-_SHOWN_ROWS:]
    return LossSummary(
        figures,
        loss_curve([row["loss"] for row in by_kind["train"]]),
        [{name: row[name] for name in _COLUMNS} for row in last],
    )


def loss_curve(losses: Sequence[float | None]) -> str:
    """Losses as one line of blocks between their lowest and highest, thinned to its width; x is a diverged one."""
    thinned = [losses[i * len(losses) // _CURVE_WIDTH] for i in range(_CURVE_WIDTH)] if losses else []
    shown = losses if len(losses) <= _CURVE_WIDTH else [*thinned[:-1], losses[-1]]
    finite = [loss for loss in shown if loss is not None]
    if not finite:
        return _GAP * len(shown)
    low, span = min(finite), max(finite) - min(finite)
    return "".join(
        _GAP if loss is None else _BLOCKS[round((loss - low) / span * (len(_BLOCKS) - 1)) if span else 0]
        for loss in shown
    )


def _in_order(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return sorted(rows, key=lambda row: (row["iteration"], row["kind"]))
