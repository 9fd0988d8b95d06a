"""Files of responses in a few figures: the averages of each model, and one file against another."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from rich.table import Table
from rich.text import Text

from ml_pipeline.errors import StoreError
from ml_pipeline.reports.comparison import compare
from ml_pipeline.reports.intervals import Estimate
from ml_pipeline.reports.wording import NONE
from ml_pipeline.scoring.means import error_by_sums, lopsided, mean_by_sums, spread_count, wilson_interval
from ml_pipeline.scoring.statistics import holm_confidence
from ml_pipeline.scoring.student import t_quantile
from ml_pipeline.stores.duckdb import DuckDBStore

Floats = npt.NDArray[np.float64]
_Interval = Callable[[float], tuple[float, float] | None]
_PASSES = ("passed", "strict_passed", "flexible_passed")
_FIGURE = ("model", "suite", "dimension")
_MOST_ANSWERS = 1000
"""Of so many answers to one prompt the share that passed is told exactly."""


@dataclass(frozen=True, slots=True)
class FigureComparison:
    """One figure of two models, or of one model in two files.

    `old` and `new` are its means, `delta` their difference (new minus old), `low` and `high` its interval, which allows
    for all figures that are looked at together: None where there are too few responses for one, or no spread. Where
    prompts are in both files, only those count, each once, and `paired` says how many; where none is, `paired` is 0 and
    all responses count. `clear` says that 0 lies outside.
    """

    suite: str | None
    dimension: str
    old: float
    new: float
    delta: float
    low: float | None
    high: float | None
    paired: int
    old_count: int
    new_count: int

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low is not None and self.high is not None and not self.low <= 0 <= self.high


@dataclass(frozen=True, slots=True)
class ModelComparison:
    """All figures that both have, of a model of the old file and one of the new.

    The intervals are those of `confidence`, so that of the `looked_at` figures of all models none is clear by chance
    19 times in 20 (Holm).
    """

    old_model: str
    new_model: str
    figures: Sequence[FigureComparison]
    confidence: float
    looked_at: int


def averages(store: DuckDBStore, partition_key: str, most: int) -> list[dict[str, Any]]:
    """The first `most` rows of view response_averages of one file, each mean with its 95% interval."""
    rows = store.query(
        "SELECT model, suite, dimension, mean, scored, unscored FROM response_averages "
        "WHERE partition_key = ? ORDER BY model, suite, dimension LIMIT ?",
        [partition_key, most],
    ).to_pylist()
    by_prompt = store.query(
        "SELECT model, suite, dimension, sum(score) AS sum, count(score) AS size FROM response_figures "
        "WHERE partition_key = ? AND score IS NOT NULL GROUP BY model, suite, dimension, prompt_id ORDER BY ALL",
        [partition_key],
    )
    figures: dict[tuple[str, str | None, str], list[int]] = defaultdict(list)
    for place, key in enumerate(zip(*(by_prompt[name].to_pylist() for name in _FIGURE), strict=True)):
        figures[key].append(place)
    sums, sizes = _numbers(by_prompt, "sum"), _numbers(by_prompt, "size")
    shown = []
    for row in rows:
        places = figures.get((row["model"], row["suite"], row["dimension"]), [])
        answers = _Answers(sums[places], sizes[places])
        estimate = _estimate(row["dimension"], answers, row["unscored"]) if places else None
        ends = {"low": estimate.low if estimate else None, "high": estimate.high if estimate else None}
        named = {name: row[name] for name in (*_FIGURE, "mean")}
        shown.append({**named, **ends, "scored": row["scored"], "unscored": row["unscored"]})
    return shown


def compare_files(store: DuckDBStore, old_key: str, new_key: str) -> list[ModelComparison]:
    """Compare two files of responses: each model that both have; or, where each has one, that one with the other.

    Raises:
        StoreError: a file is not scored, or the two have no model in common and one of them has several.
    """
    old_models, new_models = _models(store, old_key), _models(store, new_key)
    pairs = [(model, model) for model in old_models if model in new_models]
    if not pairs and len(old_models) == len(new_models) == 1:
        pairs = [(old_models[0], new_models[0])]
    if not pairs:
        raise StoreError(
            f"{old_key} and {new_key} have no model in common: {_some(old_models)}; {_some(new_models)}. "
            "Files of one model each are compared whatever it is called: cut them by model."
        )
    measured = [_figures(store, (old_key, old), (new_key, new)) for old, new in pairs]
    # What has no interval at any confidence can be no find, and asks for no allowance.
    every = [figure for figures in measured for figure in figures if figure.at(0.95).low is not None]
    confidence = holm_confidence(len(every), lambda level: sum(figure.at(level).clear for figure in every))
    return [
        ModelComparison(old, new, [figure.at(confidence) for figure in figures], confidence, len(every))
        for (old, new), figures in zip(pairs, measured, strict=True)
    ]


def scored_versions(store: DuckDBStore) -> dict[str, tuple[int, int]]:
    """Size in bytes and modification time in ns of every file as it was scored, by partition."""
    rows = store.query("SELECT partition_key, size_bytes, mtime_ns FROM response_files").to_pylist()
    return {row["partition_key"]: (row["size_bytes"], row["mtime_ns"]) for row in rows}


def comparison_table(compared: ModelComparison) -> Table:
    """A comparison for the terminal; what is clearly not chance is bold."""
    same = compared.old_model == compared.new_model
    table = Table(title=Text(compared.new_model if same else f"{compared.old_model} -> {compared.new_model}"))
    if compared.looked_at > 1:
        table.caption = (
            f"intervals of {compared.confidence:.2%} each: 95% for all {compared.looked_at} figures together"
        )
    for name in ("suite", "figure", "old", "new", "delta", "interval", "responses"):
        table.add_column(name, justify="left" if name in ("suite", "figure") else "right")
    for figure in compared.figures:
        interval = NONE if figure.low is None else f"{figure.low:+.3f} to {figure.high:+.3f}"
        count = f"{figure.paired} pairs" if figure.paired else f"{figure.old_count}, {figure.new_count}"
        means = (f"{figure.old:.3f}", f"{figure.new:.3f}", f"{figure.delta:+.3f}")
        cells = (figure.suite or NONE, figure.dimension, *means, interval, count)
        table.add_row(*map(Text, cells), style="bold" if figure.clear else None)
    return table


def _models(store: DuckDBStore, partition_key: str) -> list[str]:
    rows = store.query(
        "SELECT DISTINCT model FROM response_scores WHERE partition_key = ? ORDER BY model", [partition_key]
    )
    if not rows.num_rows:
        known = store.query("SELECT partition_key FROM response_files ORDER BY 1")["partition_key"].to_pylist()
        raise StoreError(
            f"{partition_key!r} is no scored file of responses; scored are {_some(known)}. Put it into the folder "
            "`responses` of data_dir, where `make dev` scores it."
        )
    models: list[str] = rows["model"].to_pylist()
    return models


def _figures(store: DuckDBStore, old: tuple[str, str], new: tuple[str, str]) -> list[_Measured]:
    both = store.query(
        "SELECT suite, dimension FROM response_averages WHERE partition_key = ? AND model = ? AND scored > 0 "
        "INTERSECT SELECT suite, dimension FROM response_averages WHERE partition_key = ? AND model = ? AND scored > 0 "
        "ORDER BY ALL",
        [*old, *new],
    ).to_pylist()
    return [_figure(store, old, new, row["suite"], row["dimension"]) for row in both]


def _figure(
    store: DuckDBStore, old: tuple[str, str], new: tuple[str, str], suite: str | None, dimension: str
) -> _Measured:
    one = "FROM response_figures WHERE partition_key = ? AND model = ? AND suite IS NOT DISTINCT FROM ? "
    one += "AND dimension = ? AND score IS NOT NULL"
    # One value a prompt. Two prompts of one id count as one only if their texts, where both files have them, agree.
    mean = f"SELECT prompt_id, max(prompt_sha256) AS prompt, avg(score) AS score {one} GROUP BY prompt_id"
    wanted = [[*side, suite, dimension] for side in (old, new)]
    pairs = store.query(
        f"SELECT o.score AS old, n.score AS new FROM ({mean}) AS o JOIN ({mean}) AS n ON o.prompt_id = n.prompt_id "
        "AND coalesce(o.prompt = n.prompt, true)",
        [*wanted[0], *wanted[1]],
    )
    if pairs.num_rows:
        before, after = (_Answers(pairs[side].to_numpy(), np.ones(pairs.num_rows)) for side in ("old", "new"))
        return _Measured(suite, dimension, before, after, pairs.num_rows, _paired(dimension, before.sums, after.sums))
    by_prompt = f"SELECT sum(score) AS sum, count(score) AS size {one} GROUP BY prompt_id ORDER BY prompt_id"
    sides = [store.query(by_prompt, values) for values in wanted]
    before, after = (_Answers(_numbers(side, "sum"), _numbers(side, "size")) for side in sides)
    return _Measured(suite, dimension, before, after, 0, _independent(dimension, before, after))


@dataclass(frozen=True)
class _Answers:
    """Figures of the answers to each prompt: their sum and their number."""

    sums: Floats
    sizes: Floats

    @property
    def count(self) -> int:
        return round(float(self.sizes.sum()))

    @property
    def mean(self) -> float:
        return float(self.sums.sum() / self.sizes.sum())


@dataclass(frozen=True)
class _Measured:
    """A figure of the two, before it is known with how many others it is looked at."""

    suite: str | None
    dimension: str
    before: _Answers
    after: _Answers
    paired: int
    interval: _Interval

    def at(self, confidence: float) -> FigureComparison:
        means = self.before.mean, self.after.mean
        low, high = self.interval(confidence) or (None, None)
        counts = self.paired, self.before.count, self.after.count
        return FigureComparison(self.suite, self.dimension, *means, means[1] - means[0], low, high, *counts)


def _paired(dimension: str, before: Floats, after: Floats) -> _Interval:
    if dimension in _PASSES:
        reference, candidate = (
            {
                str(index): Fraction(value).limit_denominator(_MOST_ANSWERS)
                for index, value in enumerate(values.tolist())
            }
            for values in (before, after)
        )
        if compared := compare(reference, candidate):
            return compared.differences.interval
    return lambda confidence: mean_by_sums(after - before, np.ones_like(after), confidence)


def _independent(dimension: str, before: _Answers, after: _Answers) -> _Interval:
    """Interval of the difference of two means of different prompts. None without two prompts each, or without spread.

    Of passes it is that of A. Agresti and B. Caffo (The American Statistician 54, 2000), two answers of either kind
    added, with the effective counts and Student's t, and cut to -1..1; of other figures B. L. Welch's (Biometrika 34,
    1947) with the errors of the prompts' means, widened for lopsided figures as that of one mean.
    """
    if min(len(before.sums), len(after.sums)) < 2:
        return lambda confidence: None

    def of_passes(confidence: float) -> tuple[float, float]:
        counts = [min(side.count, spread_count(side.sums, side.sizes, confidence)) + 2 for side in (before, after)]
        shares = [(side.mean * (n - 2) + 1) / n for side, n in zip((before, after), counts, strict=True)]
        variance = sum(share * (1 - share) / n for share, n in zip(shares, counts, strict=True))
        margin = t_quantile(len(before.sums) + len(after.sums) - 2, confidence) * math.sqrt(variance)
        return max(-1.0, shares[1] - shares[0] - margin), min(1.0, shares[1] - shares[0] + margin)

    def of_means(confidence: float) -> tuple[float, float] | None:
        sides = [(error_by_sums(side.sums, side.sizes) or 0.0, len(side.sums)) for side in (before, after)]
        variance = sum(error**2 for error, _ in sides)
        if not variance:
            return None
        freedom = variance**2 / sum(error**4 / (groups - 1) for error, groups in sides)
        wide = lopsided(min(groups for _, groups in sides))
        margin = wide * t_quantile(max(1, math.floor(freedom)), confidence) * math.sqrt(variance)
        return after.mean - before.mean - margin, after.mean - before.mean + margin

    return of_passes if dimension in _PASSES else of_means


def _estimate(dimension: str, answers: _Answers, unscored: int) -> Estimate:
    """A mean with its interval, which allows for several answers to one prompt: Wilson's for passes."""
    if dimension in _PASSES:
        count = min(float(answers.count), spread_count(answers.sums, answers.sizes))
        ends: tuple[float | None, float | None] = wilson_interval(answers.mean * count, count)
    else:
        ends = mean_by_sums(answers.sums, answers.sizes) or (None, None)
    return Estimate(answers.mean, *ends, answers.count, unscored)


def _numbers(rows: pa.Table, column: str) -> Floats:
    numbers: Floats = rows[column].to_numpy().astype(np.float64)
    return numbers


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{', '.join(map(repr, names[:5])) or 'none'}{more}"
