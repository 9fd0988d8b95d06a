"""A run's curve as a small picture in Dagster's metadata."""

from __future__ import annotations

import base64

import dagster as dg

from ml_pipeline.reports.plots import accuracy_figure, judge_figure
from ml_pipeline.reports.render import to_png
from ml_pipeline.reports.runs import RunCurve

_DPI = 90
"""Dagster keeps a copy with every materialisation, so each is small: 414 pixels wide, about 15 kB."""


def curve_plot(curve: RunCurve) -> dg.MarkdownMetadataValue:
    """Accuracy over the iterations, or the judge's figures where nothing was passed or failed, as Markdown that holds
    the picture itself: Dagster's pages load nothing from elsewhere."""
    has_accuracy = any(point.accuracy is not None for point in curve.points)
    figure, what = (accuracy_figure(curve), "accuracy") if has_accuracy else (judge_figure(curve), "judge")
    png = base64.b64encode(to_png(figure, _DPI)).decode()
    return dg.MetadataValue.md(f"![{what}](data:image/png;base64,{png})")
