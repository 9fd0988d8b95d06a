"""`watch`: what is being scored and the latest scores, as they change."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from ml_pipeline.cli.shared import INTERRUPTED, current_settings, reporting, stdout

if TYPE_CHECKING:
    from dagster import DagsterInstance

    from ml_pipeline.cli.watch_view import Moment
    from ml_pipeline.settings import Settings

_DATABASE_WAIT_S = 1.0


@click.command()
@click.option(
    "--interval", type=click.FloatRange(min=0.5), default=3.0, show_default=True, help="Seconds between two looks."
)
@click.option("-n", "most", type=click.IntRange(min=1), default=8, show_default=True, help="How many scores to show.")
@click.option("--once", is_flag=True, help="Look once, and end.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object on a line of its own at every change.")
@reporting
def watch(interval: float, most: int, once: bool, as_json: bool) -> None:
    """Show what is being scored and the latest scores, until Ctrl-C: on a terminal live, else a line a change."""
    from rich.live import Live

    from ml_pipeline.automation import local_runs
    from ml_pipeline.cli.watch_view import watch_view

    settings, console = current_settings(), stdout()
    try:
        with local_runs.project_instance(settings) as instance:
            moments = _moments(settings, instance, most, 0 if once else interval)
            if as_json:
                _each_change(moments, _json_line)
            elif once or not console.is_terminal:
                _each_change(moments, _lines(whole=once))
            else:
                with Live(console=console, auto_refresh=False) as live:
                    for moment in moments:
                        live.update(watch_view(moment, console.options), refresh=True)
    except KeyboardInterrupt:  # how a watch ends
        sys.exit(INTERRUPTED)


def _moments(settings: Settings, instance: DagsterInstance, most: int, interval_s: float) -> Iterator[Moment]:
    """What there is to see, now and every so many seconds; once without an interval."""
    from datetime import UTC, datetime

    from ml_pipeline.automation.activity import activity
    from ml_pipeline.cli.watch_view import Moment
    from ml_pipeline.errors import StoreError, StoreLockedError
    from ml_pipeline.reports.latest import LatestScore, latest_scores
    from ml_pipeline.stores.duckdb import DuckDBStore

    store = DuckDBStore(settings.duckdb_path, _DATABASE_WAIT_S)
    latest: list[LatestScore] = []
    while True:
        trouble = ""
        try:
            if settings.duckdb_path.exists():
                latest = latest_scores(store, most)
        except StoreLockedError:
            pass  # somebody writes for longer; the next look sees it
        except StoreError as error:
            trouble = str(error)
        yield Moment(datetime.now(UTC), activity(instance), tuple(latest), trouble)
        if not interval_s:
            return
        time.sleep(interval_s)


def _each_change(moments: Iterator[Moment], tell: Callable[[Moment, Moment | None], None]) -> None:
    before = None
    for moment in moments:
        if before is None or moment.seen != before.seen:
            tell(moment, before)
            sys.stdout.flush()
        before = moment


def _json_line(moment: Moment, before: Moment | None) -> None:
    from ml_pipeline.cli.json_output import print_json
    from ml_pipeline.cli.watch_view import watch_json

    print_json(watch_json(moment), indent=None)


def _lines(*, whole: bool) -> Callable[[Moment, Moment | None], None]:
    from ml_pipeline.cli.watch_view import changes, watch_view

    console = stdout()

    def tell(moment: Moment, before: Moment | None) -> None:
        if whole:
            console.print(watch_view(moment, console.options))
            return
        for line in changes(moment, before):
            console.print(line, markup=False, highlight=False, soft_wrap=True)

    return tell
