"""What the plots of a run show: the lines of each panel with their bands and limits, and the same in words.

Nothing here draws; see `plots`. Every function takes one `RunCurve`, which holds one protocol by construction: scores
of different bases, quantisations or suite versions cannot meet in one panel.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ml_pipeline.reports.intervals import Estimate
from ml_pipeline.reports.losses import TRAIN, VALIDATION
from ml_pipeline.reports.runs import RunCurve
from ml_pipeline.reports.score_table import JUDGE_PREFIX
from ml_pipeline.reports.wording import evenly, percent

_MOST_BANDS = 2
_MOST_LOSSES = 400
_SPOKEN_POINTS = 8
_MOST_RINGS = 4
_MARGIN = 0.02
_LOSS_NAMES = {TRAIN: "training loss", VALIDATION: "validation loss"}


@dataclass(frozen=True, slots=True)
class Line:
    """A line over the iterations. A value of NaN breaks it; `low` and `high`, if there, are the ends of its band."""

    name: str
    iterations: tuple[int, ...]
    values: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Panel:
    """One pair of axes: its lines, the level of the base, and the limits of the vertical axis where they are fixed.

    `best` are the places of the best checkpoints, iteration and value; of more than four that tie, of the first. `gaps`
    are the iterations of checkpoints that failed or have no figure here, `unsound` the places of figures over texts of
    which many are unsound. Shares are written in percent.
    """

    title: str
    lines: tuple[Line, ...]
    base: Estimate | None = None
    best: tuple[tuple[int, float], ...] = ()
    limits: tuple[float, float] | None = None
    shares: bool = False
    gaps: tuple[int, ...] = ()
    unsound: tuple[tuple[int, float], ...] = ()

    @property
    def spoken(self) -> str:
        """The panel in words for a screen reader: the base and a few points of its first line."""
        line = self.lines[0]
        named = [] if self.base is None else [f"base {self._figure(self.base.value)}"]
        for index in evenly(len(line.values), _SPOKEN_POINTS):
            if not math.isnan(line.values[index]):
                named.append(f"iteration {line.iterations[index]} {self._figure(line.values[index])}")
        if self.unsound:
            named.append(f"many answers unsound at {', '.join(_few(sorted({at for at, _ in self.unsound})))}")
        if self.gaps:
            named.append(f"no figure at {', '.join(_few(self.gaps))}")
        told = self.title if len(self.lines) == 1 else f"{self.title}, {line.name}"
        return f"{told}: {', '.join(named)}"

    def _figure(self, value: float) -> str:
        return percent(value) if self.shares else f"{value:.2f}"


def curve_panels(curve: RunCurve) -> list[Panel]:
    """How good the run is: accuracy, the judge's figures and beneath them the losses, as far as there are any."""
    return _found(accuracy_panel(curve), judge_panel(curve), loss_panel(curve))


def health_panels(curve: RunCurve) -> list[Panel]:
    """Whether its answers are sound: LEK, and the shares of answers with a sign of trouble."""
    return _found(metrics_panel(curve, "LEK", {"lek": "LEK"}), trouble_panel(curve))


def accuracy_panel(curve: RunCurve) -> Panel | None:
    """Accuracy with its interval, and the base's; None when no probe was scored."""
    return metrics_panel(curve, "Accuracy", {"accuracy": "accuracy"}, limits=(0.0, 1.0), shares=True)


def judge_panel(curve: RunCurve) -> Panel | None:
    """The judge's means: where there is an average, that alone, else every dimension. None when nothing was judged."""
    judged = curve.judge_metrics
    chosen = {metric: name.replace("_", " ") for metric, name in judged.items()}
    if "judge:avg" in judged:
        chosen = {"judge:avg": "judge, average"}
    return metrics_panel(
        curve, "Judge (average)" if "judge:avg" in judged else "Judge", chosen, limits=curve.judge_scale
    )


def loss_panel(curve: RunCurve) -> Panel | None:
    """Training and validation loss as the log printed them; None without a log."""
    lines = []
    for kind, name in _LOSS_NAMES.items():
        if (found := curve.losses.get(kind)) is not None:
            at = evenly(len(found.iterations), _MOST_LOSSES)
            lines.append(Line(name, tuple(map(int, found.iterations[at])), tuple(map(float, found.losses[at]))))
    return Panel("Loss", tuple(lines)) if lines else None


def trouble_panel(curve: RunCurve) -> Panel | None:
    """Shares of answers that show a sign of degeneration, as far as any does, and of probes left unscored."""
    shown = {**curve.signal_metrics, "unscored_share": "unscored"}
    limits = (-_MARGIN, 1 + _MARGIN)  # else a share of 0 would lie hidden on the axis
    return metrics_panel(curve, "Signs of trouble", shown, limits=limits, shares=True)


def metrics_panel(
    curve: RunCurve,
    title: str,
    metrics: Mapping[str, str],
    *,
    limits: tuple[float, float] | None = None,
    shares: bool = False,
) -> Panel | None:
    """Any metrics of the score table (metric -> name of its line); None where no checkpoint has one.

    One or two have 95% bands, cut to the limits; a single one its base as well: more of either could not be told apart.
    """
    with_band = len(metrics) <= _MOST_BANDS
    lines = [line for metric, name in metrics.items() if (line := _line(curve, metric, name, with_band, limits))]
    if not lines:
        return None
    single = next(iter(metrics)) if len(metrics) == 1 else None
    ringed = curve.best[: _MOST_RINGS if len(curve.best) <= _MOST_RINGS else 1] if single == "accuracy" else ()
    return Panel(
        title,
        tuple(lines),
        base=_cut(curve.base.overall(single), limits) if single and curve.base is not None else None,
        best=tuple((point.iteration, point.accuracy.value) for point in ringed if point.accuracy is not None),
        limits=limits,
        shares=shares,
        gaps=_gaps(curve, metrics),
        unsound=_unsound(curve, metrics),
    )


def _unsound(curve: RunCurve, metrics: Collection[str]) -> tuple[tuple[int, float], ...]:
    """The places of those of the metrics that are figures of texts, at the checkpoints whose texts are unsound."""
    of_texts = [metric for metric in metrics if metric == "lek" or metric.startswith(JUDGE_PREFIX)]
    return tuple(
        (point.iteration, found.value)
        for metric in of_texts
        for point in curve.points
        if point.is_unsound and (found := point.overall(metric)) is not None
    )


def _gaps(curve: RunCurve, metrics: Collection[str]) -> tuple[int, ...]:
    """The iterations of checkpoints that have none of the metrics: those that failed, and those without such scores."""
    there = {p.partition_key for p in curve.points if any(p.overall(metric) is not None for metric in metrics)}
    every = [(p.partition_key, p.iteration) for p in curve.points]
    every += [(failure.partition_key, failure.iteration) for failure in curve.failures]
    return tuple(sorted({iteration for key, iteration in every if key not in there}))


def _few(iterations: Sequence[int]) -> list[str]:
    return [str(iterations[at]) for at in evenly(len(iterations), _SPOKEN_POINTS)]


def _line(curve: RunCurve, metric: str, name: str, with_band: bool, limits: tuple[float, float] | None) -> Line | None:
    found = [(p.iteration, cut) for p in curve.points if (cut := _cut(p.overall(metric), limits)) is not None]
    if not found:
        return None
    # Nothing is drawn through a checkpoint that has no figure.
    missing = Estimate(math.nan, math.nan, math.nan, 0, 0)
    known = {iteration for iteration, _ in found}
    found += [(gap, missing) for gap in _gaps(curve, [metric]) if gap not in known]
    found.sort(key=lambda pair: pair[0])
    estimates = [estimate for _, estimate in found]
    ends = [(e.value if e.low is None else e.low, e.value if e.high is None else e.high) for e in estimates]
    return Line(
        name,
        tuple(iteration for iteration, _ in found),
        tuple(estimate.value for estimate in estimates),
        tuple(low for low, _ in ends) if with_band else (),
        tuple(high for _, high in ends) if with_band else (),
    )


def _cut(estimate: Estimate | None, limits: tuple[float, float] | None) -> Estimate | None:
    """The estimate with an interval that does not leave the scale, as Student's t on a few answers may."""
    if estimate is None or limits is None or estimate.low is None or estimate.high is None:
        return estimate
    low, high = max(limits[0], estimate.low), min(limits[1], estimate.high)
    return Estimate(estimate.value, low, high, estimate.count, estimate.unscored)


def _found(*panels: Panel | None) -> list[Panel]:
    return [panel for panel in panels if panel is not None]
