"""Files of responses in a few figures: the averages of each model, and one file against another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.table import Table
from rich.text import Text

from ml_pipeline.errors import StoreError
from ml_pipeline.reports.comparison import compare
from ml_pipeline.reports.intervals import Estimate
from ml_pipeline.reports.wording import NONE
from ml_pipeline.scoring.means import mean_interval
from ml_pipeline.scoring.statistics import wilson_interval
from ml_pipeline.scoring.student import t_quantile
from ml_pipeline.stores.duckdb import DuckDBStore

Floats = npt.NDArray[np.float64]
_PASSES = ("passed", "strict_passed", "flexible_passed")


@dataclass(frozen=True, slots=True)
class FigureComparison:
    """One figure of two models, or of one model in two files.

    `old` and `new` are its means, `delta` their difference (new minus old), `low` and `high` its 95% interval, None
    where there are too few responses for one. Where prompts are in both files, only those count, each once, and
    `paired` says how many; where none is, `paired` is 0 and all responses count. `clear` says that 0 lies outside.
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
    """All figures that both have, of a model of the old file and one of the new."""

    old_model: str
    new_model: str
    figures: Sequence[FigureComparison]


def averages(store: DuckDBStore, partition_key: str, most: int) -> list[dict[str, Any]]:
    """The first `most` rows of view response_averages of one file, each mean with its 95% interval."""
    rows = store.query(
        "SELECT model, suite, dimension, mean, standard_deviation, scored, unscored FROM response_averages "
        "WHERE partition_key = ? ORDER BY model, suite, dimension LIMIT ?",
        [partition_key, most],
    ).to_pylist()
    return [
        {
            **{name: row[name] for name in ("model", "suite", "dimension", "mean")},
            "low": estimate.low if (estimate := _estimate(row)) else None,
            "high": estimate.high if estimate else None,
            **{name: row[name] for name in ("scored", "unscored")},
        }
        for row in rows
    ]


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
    return [ModelComparison(old, new, _figures(store, (old_key, old), (new_key, new))) for old, new in pairs]


def scored_versions(store: DuckDBStore) -> dict[str, tuple[int, int]]:
    """Size in bytes and modification time in ns of every file as it was scored, by partition."""
    rows = store.query("SELECT partition_key, size_bytes, mtime_ns FROM response_files").to_pylist()
    return {row["partition_key"]: (row["size_bytes"], row["mtime_ns"]) for row in rows}


def comparison_table(compared: ModelComparison) -> Table:
    """A comparison for the terminal; what is clearly not chance is bold."""
    same = compared.old_model == compared.new_model
    table = Table(title=Text(compared.new_model if same else f"{compared.old_model} -> {compared.new_model}"))
    for name in ("suite", "figure", "old", "new", "delta", "95% interval", "responses"):
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


def _figures(store: DuckDBStore, old: tuple[str, str], new: tuple[str, str]) -> list[FigureComparison]:
    both = store.query(
        "SELECT suite, dimension FROM response_averages WHERE partition_key = ? AND model = ? AND scored > 0 "
        "INTERSECT SELECT suite, dimension FROM response_averages WHERE partition_key = ? AND model = ? AND scored > 0 "
        "ORDER BY ALL",
        [*old, *new],
    ).to_pylist()
    return [_figure(store, old, new, row["suite"], row["dimension"]) for row in both]


def _figure(
    store: DuckDBStore, old: tuple[str, str], new: tuple[str, str], suite: str | None, dimension: str
) -> FigureComparison:
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
        before, after = pairs["old"].to_numpy(), pairs["new"].to_numpy()
        interval = _paired_interval(dimension, before, after)
        paired = pairs.num_rows
    else:
        before, after = (store.query(f"SELECT score {one}", values)["score"].to_numpy() for values in wanted)
        interval = _welch_interval(before, after)
        paired = 0
    low, high = interval or (None, None)
    means = float(before.mean()), float(after.mean())
    return FigureComparison(suite, dimension, *means, means[1] - means[0], low, high, paired, len(before), len(after))


def _paired_interval(dimension: str, before: Floats, after: Floats) -> tuple[float, float] | None:
    if dimension in _PASSES and np.isin([before, after], (0, 1)).all():
        reference, candidate = ({str(i): bool(v) for i, v in enumerate(values)} for values in (before, after))
        if compared := compare(reference, candidate):
            return compared.low, compared.high
    return mean_interval(after - before)


def _welch_interval(before: Floats, after: Floats) -> tuple[float, float] | None:
    """95% interval of the difference of two independent means. Source: B. L. Welch, Biometrika 34 (1947)."""
    if min(len(before), len(after)) < 2:
        return None
    parts = [values.var(ddof=1) / len(values) for values in (before, after)]
    delta, variance = float(after.mean() - before.mean()), float(sum(parts))
    if not variance:
        return delta, delta
    freedom = variance**2 / sum(p**2 / (len(v) - 1) for p, v in zip(parts, (before, after), strict=True))
    margin = t_quantile(max(1, math.floor(freedom))) * math.sqrt(variance)
    return delta - margin, delta + margin


def _estimate(row: dict[str, Any]) -> Estimate | None:
    """The mean of a row of view response_averages with its interval: Wilson's for shares, else Student's."""
    count, mean, deviation = row["scored"], row["mean"], row["standard_deviation"]
    if not count:
        return None
    if row["dimension"] in _PASSES:
        low, high = wilson_interval(round(mean * count), count)
        return Estimate(mean, low, high, count, row["unscored"])
    if count < 2:
        return Estimate(mean, None, None, count, row["unscored"])
    margin = t_quantile(count - 1) * deviation / math.sqrt(count)
    return Estimate(mean, mean - margin, mean + margin, count, row["unscored"])


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{', '.join(map(repr, names[:5])) or 'none'}{more}"
