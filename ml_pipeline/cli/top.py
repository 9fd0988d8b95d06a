"""`top`: the leaderboard."""

from __future__ import annotations

import click

from ml_pipeline.cli.completion import complete_run, complete_suite
from ml_pipeline.cli.shared import current_settings, reporting, score_database, stderr, stdout


@click.command()
@click.option("--run", help="Rank the checkpoints of this run: its name, or a part of it.", shell_complete=complete_run)
@click.option("--suite", help="This suite alone.", shell_complete=complete_suite)
@click.option("-n", "most", type=click.IntRange(min=1), default=10, show_default=True, help="Rows of each ranking.")
@click.option("--json", "as_json", is_flag=True, help="Print rows of the table `leaderboard` as one JSON object.")
@reporting
def top(run: str | None, suite: str | None, most: int, as_json: bool) -> None:
    """Show the best checkpoint of every run, or rank those of one, against the base and the checkpoint before."""
    from ml_pipeline.cli.json_output import print_json
    from ml_pipeline.cli.top_view import top_view
    from ml_pipeline.reports.checkpoint_names import scored_checkpoints, with_run
    from ml_pipeline.reports.failures import current_failures
    from ml_pipeline.reports.runs import run_curves
    from ml_pipeline.reports.scores import check_suite, load_scores
    from ml_pipeline.reports.standings import rankings, rankings_json

    store = score_database(current_settings())
    with stderr().status("Reading the scores ..."):
        keys = None if run is None else with_run(scored_checkpoints(store), run)
        scores = load_scores(store, keys)
        if suite is not None:
            check_suite(scores, suite)
        # Chosen after they were made: what is said of a run allows for all its suites, whichever are shown.
        curves = [curve for curve in run_curves(scores) if suite in (None, curve.suite)]
        ranked = rankings(curves, each_run=run is None)
        own = {(curve.source, curve.run) for curve in curves}
        failures = [one for one in current_failures(scores) if run is None or (one.source, one.run) in own]
    if as_json:
        print_json(rankings_json(ranked, most, failures))
    else:
        console = stdout()
        console.print(top_view(ranked, most, console.options, failures))
