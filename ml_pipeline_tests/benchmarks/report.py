"""Seconds to make the HTML report of 500 checkpoints with 223 probes each, its size, and how it loads in a browser.

    python -m ml_pipeline_tests.benchmarks.report
        [--json] [--checkpoints N] [--probes N] [--runs N ...] [--repeats N]

Once for each number of runs that the checkpoints are divided among, from the tables in memory to the file:
- ours: the report. In the context its size, and milliseconds to the first paint and to the end of loading in Chromium.
- plain_tables: the score table and the leaderboard as pandas writes them to HTML: no plots, no answers.
And a figure of three panels, 50 checkpoints with 500 losses, as SVG:
- ours: drawn and made fit for a page. usual: pyplot, margins searched for, and cut to fit.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from matplotlib import pyplot

from ml_pipeline.reports.html_report import write_report
from ml_pipeline.reports.leaderboard import leaderboard
from ml_pipeline.reports.panels import curve_panels
from ml_pipeline.reports.plots import panels_figure
from ml_pipeline.reports.render import to_svg
from ml_pipeline.reports.runs import RunCurve, run_curves
from ml_pipeline.reports.score_table import score_table
from ml_pipeline.reports.scores import Scores
from ml_pipeline.stores.tables import TRAINING_LOSS
from ml_pipeline_tests.benchmarks.result import compare, interleaved, medians, print_result
from ml_pipeline_tests.browser import chromium, visit
from ml_pipeline_tests.reports.sample_scores import Checkpoint, losses_of, tables_of

DIMENSIONS = ("avg", "reasoning", "correctness", "clarity")
CATEGORIES, PROBES_OF_A_TEMPLATE = 16, 5
LOSSES_OF_A_RUN = 500
PLOTTED_CHECKPOINTS = 50
WORDS = ("so", "the", "train", "leaves", "at", "nine", "and", "needs", "two", "hours", "which", "answers", "it")


def synthetic_scores(checkpoints: int, probes: int, runs: int) -> Scores:
    """Runs that climb from a quarter to two thirds of the probes, judged in four dimensions, most from templates."""
    parts = [tables_of([one]) for one in _checkpoints(checkpoints, probes, runs)]
    tables = {name: pa.concat_tables([part[name] for part in parts]) for name in parts[0]}
    numbers = [int(probe.rpartition("-")[2]) for probe in tables["responses"]["probe_id"].to_pylist()]
    made = [f"template-{number // PROBES_OF_A_TEMPLATE}" if number > probes // 10 else None for number in numbers]
    tables["responses"] = _with(tables["responses"], "template", pa.array(made, pa.string()))
    judged = tables["judgements"]
    tables["judgements"] = pa.concat_tables(
        [_with(judged, "dimension", pa.array([name] * len(judged), pa.string())) for name in DIMENSIONS]
    )
    last = 100 * (checkpoints // runs)
    steps = [max(1, last * step // LOSSES_OF_A_RUN) for step in range(1, LOSSES_OF_A_RUN + 1)]
    losses = [row for run in range(runs) for row in losses_of(f"run-{run}", {at: 1 + 50 / (at + 50) for at in steps})]
    tables[TRAINING_LOSS.name] = pa.Table.from_pylist(losses, schema=TRAINING_LOSS.schema)
    # As the database gives them: in few pieces.
    return Scores.from_tables({name: table.combine_chunks() for name, table in tables.items()})


def _checkpoints(checkpoints: int, probes: int, runs: int) -> Iterator[Checkpoint]:
    each = checkpoints // runs
    names = {f"probe-{index}": f"category-{index % CATEGORIES}" for index in range(probes)}
    yield _checkpoint("base", "tiny", 0, 0.25, names)
    for run in range(runs):
        for step in range(1, each + 1):
            yield _checkpoint("mac", f"run-{run}", 100 * step, 0.25 + 0.4 * step / each, names)


def _checkpoint(source: str, run: str, iteration: int, share: float, probes: dict[str, str]) -> Checkpoint:
    chance = random.Random(f"{run}@{iteration}")
    return Checkpoint(
        run=run,
        iteration=iteration,
        passed={probe: None if chance.random() < 0.01 else chance.random() < share for probe in probes},
        source=source,
        categories=probes,
        responses={probe: " ".join(chance.choices(WORDS, k=80)) for probe in probes},
        tokens={probe: chance.randint(40, 400) for probe in probes},
        judge={probe: round(chance.uniform(2, 9), 1) for probe in probes},
        lek={probe: chance.gauss(4, 2) for probe in probes},
    )


def _with(table: pa.Table, column: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(column), table.schema.field(column), values)


def seconds_of_report(scores: Scores, path: Path) -> float:
    """Seconds from the tables to the file."""
    start = time.perf_counter()
    write_report(scores, path)
    return time.perf_counter() - start


def seconds_of_plain_tables(scores: Scores, path: Path) -> float:
    """Seconds for the tables as pandas writes them."""
    start = time.perf_counter()
    path.write_text("".join(table.to_html() for table in (score_table(scores), leaderboard(scores))))
    return time.perf_counter() - start


def loading(path: Path) -> dict[str, float]:
    """How the page loads in Chromium, in the second visit: the first one starts the browser's processes."""
    with chromium() as browser:
        for _ in range(2):
            with visit(browser, path) as visited:
                visited.page.wait_for_timeout(200)
                times = visited.load_ms()
    return {name: round(value) for name, value in times.items()}


def milliseconds_of_figure(curve: RunCurve) -> float:
    """Of drawing one figure, and making it fit for a page."""
    start = time.perf_counter()
    to_svg(panels_figure(curve_panels(curve)), "figure", "three panels")
    return 1000 * (time.perf_counter() - start)


def milliseconds_the_usual_way(curve: RunCurve, folder: Path) -> float:
    """Of drawing the same lines, bands and legends with pyplot."""
    start = time.perf_counter()
    panels = curve_panels(curve)
    figure, every = pyplot.subplots(len(panels), figsize=(4.6, 6), sharex=True)
    for axes, panel in zip(every, panels, strict=True):
        for line in panel.lines:
            axes.plot(line.iterations, line.values, marker="o", label=line.name)
            if line.low:
                axes.fill_between(line.iterations, line.low, line.high, alpha=0.2)
        axes.set_title(panel.title)
        axes.grid(axis="y")
        axes.legend()
    figure.tight_layout()
    figure.savefig(folder / "usual.svg", bbox_inches="tight")
    pyplot.close(figure)
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="seconds to make the HTML report, its size, and how it loads")
    parser.add_argument("--json", action="store_true", help="print one JSON object each")
    parser.add_argument("--checkpoints", type=int, default=500)
    parser.add_argument("--probes", type=int, default=223)
    parser.add_argument("--runs", type=int, nargs="*", default=[1, 10, 100])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for runs in arguments.runs:
            scores = synthetic_scores(arguments.checkpoints, arguments.probes, runs)
            ours, plain = folder / "report.html", folder / "tables.html"
            figures = interleaved(
                {
                    "ours": partial(seconds_of_report, scores, ours),
                    "plain_tables": partial(seconds_of_plain_tables, scores, plain),
                },
                arguments.repeats,
            )
            context: dict[str, Any] = {
                "checkpoints": arguments.checkpoints,
                "probes": arguments.probes,
                "runs": runs,
                "size_mb": round(ours.stat().st_size / 1e6, 2),
                "size_of_plain_tables_mb": round(plain.stat().st_size / 1e6, 2),
                **loading(ours),
                "wanted": "500 checkpoints of 223 probes under 10 s and 5 MB",
            }
            result = compare("report", "s", medians(figures), more_is_better=False, context=context)
            print_result(result, as_json=arguments.json)
        (curve,) = run_curves(synthetic_scores(PLOTTED_CHECKPOINTS, CATEGORIES, 1))
        drawn = interleaved(
            {
                "ours": partial(milliseconds_of_figure, curve),
                "usual": partial(milliseconds_the_usual_way, curve, folder),
            },
            5 * arguments.repeats,
        )
        context = {"checkpoints": PLOTTED_CHECKPOINTS, "panels": len(curve_panels(curve)), "losses": LOSSES_OF_A_RUN}
        result = compare("report_figure", "ms", medians(drawn), more_is_better=False, context=context)
        print_result(result, as_json=arguments.json)


if __name__ == "__main__":
    main()
