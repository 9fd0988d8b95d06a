"""The range of figures that a judge may give, from the rubrics that it was told."""

from __future__ import annotations

import pandas as pd

from ml_pipeline.errors import SuiteError
from ml_pipeline.suites.loader import load_rubrics

Scale = tuple[float, float]
"""Lowest and highest figure."""


def judge_scales(judgements: pd.DataFrame) -> dict[str, Scale]:
    """The scale of each suite that was judged, by rows of table `judgements`.

    It is that of the rubrics where all of them come with this program; of a user's own rubric the rows name no range,
    so there it is the range of the figures given, if they differ.
    """
    scales: dict[str, Scale] = {}
    for suite, rows in judgements.dropna(subset="score").groupby("suite"):
        known = [_built_in(str(rubric)) for rubric in rows["rubric"].unique()]
        ends = [(float(rows["score"].min()), float(rows["score"].max())), *(scale for scale in known if scale)]
        if None in known:
            ends = ends[:1]
        scale = (min(low for low, _ in ends), max(high for _, high in ends))
        if scale[0] < scale[1]:
            scales[str(suite)] = scale
    return scales


def _built_in(rubric: str) -> Scale | None:
    """The scale of a rubric as rows name it, '<name> <version>'; None unless this program has that very version."""
    name, _, version = rubric.rpartition(" ")
    try:
        (found,) = load_rubrics([name])
    except SuiteError:
        return None
    if found.version != version:
        return None
    return min(d.minimum for d in found.dimensions), max(d.maximum for d in found.dimensions)
