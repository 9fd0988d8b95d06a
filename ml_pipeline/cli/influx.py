"""`replay` and `retime`: the commands about points and their server."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from ml_pipeline.addresses import shown_url
from ml_pipeline.cli.shared import TextConsole, current_settings, reporting, stderr
from ml_pipeline.errors import SettingsError, StoreError
from ml_pipeline.settings import Settings

if TYPE_CHECKING:
    from ml_pipeline.stores.influx_buffer import InfluxBuffer, Rejected
    from ml_pipeline.stores.retime import Moved, Retimer


@click.command()
@click.option("--rejected", is_flag=True, help="Send the points again that the server rejected earlier.")
@reporting
def replay(rejected: bool) -> None:
    """Send the points that wait in the Influx buffer."""
    from ml_pipeline.progress import RichProgress
    from ml_pipeline.stores.influx import make_sender

    settings = current_settings()
    sender = make_sender(settings.stores.influx)
    if sender is None:
        raise SettingsError("stores.influx.url is not set in pipeline.yaml: there is no server to send points to.")
    console, buffer = TextConsole(), _buffer(settings)
    if rejected:
        console.print(f"{buffer.requeue_rejected()} rejected batches wait again.", highlight=False)
    with RichProgress(console) as progress:
        done = buffer.flush(sender, lambda sent, total: progress.step("batches sent", sent, total))
    console.print(f"{done.sent_points} points sent, {done.remaining.points} wait.", highlight=False)
    if done.stopped_because:
        stderr().print(done.stopped_because, style="red", markup=False, soft_wrap=True)
    _end(done.rejected, failed=bool(done.stopped_because))


@click.command()
@click.option("--dry-run", is_flag=True, help="Say what would be rewritten and deleted, and change nothing.")
@click.option("--keep-old", is_flag=True, help="Leave the points at their old times where they are.")
@reporting
def retime(dry_run: bool, keep_old: bool) -> None:
    """Rewrite the points on the Influx server to the time base of pipeline.yaml, out of the stored tables."""
    from ml_pipeline.progress import RichProgress
    from ml_pipeline.stores.influx import make_sender
    from ml_pipeline.stores.influx_delete import make_deleter

    settings = current_settings()
    influx, console = settings.stores.influx, TextConsole()
    retimer = _retimer(settings, keep_old)
    sender, deleter = make_sender(influx), None
    try:
        deleter = None if keep_old else make_deleter(influx)
        old = f"deleted: {deleter.how}" if deleter else "kept" if influx.url else "none: no server is set"
    except StoreError as error:
        if not dry_run:
            raise
        old = f"in the way: {error}"
    with RichProgress(console) as progress:
        step = progress.step
        if dry_run:
            moved = retimer.preview(lambda done, total: step("runs looked at", done, total))
        else:
            moved = retimer.rewrite(
                _buffer(settings), sender, deleter, lambda done, total: step("runs rewritten", done, total)
            )
    where = shown_url(influx.url) if influx.url else "the buffer"
    console.print(
        f"{'Would rewrite' if dry_run else 'Rewrote'} {moved.points.total()} points in {where} from time base "
        f"{retimer.came_from!r} to {retimer.to!r}: {moved.runs} runs, {moved.partitions} partitions{_times(moved)}.",
        highlight=False,
        soft_wrap=True,
    )
    for measurement, count in sorted(moved.points.items()):
        console.print(f"  {measurement}: {count}", highlight=False)
    if moved.skipped_runs:
        console.print(f"  {moved.skipped_runs} runs were done before the interruption.", highlight=False)
    console.print(f"Points at their old times: {old}.", highlight=False, soft_wrap=True)
    _end(moved.rejected)


def _retimer(settings: Settings, keep_old: bool) -> Retimer:
    from ml_pipeline.stores.parquet import ParquetStore
    from ml_pipeline.stores.retime import Retimer
    from ml_pipeline.stores.tables import EVALUATIONS
    from ml_pipeline.suites import load_suites

    influx, parquet = settings.stores.influx, ParquetStore(settings.parquet_path)
    stored = parquet.read_all(EVALUATIONS)["suite"].unique().to_pylist()
    suites = load_suites(sorted(stored), [settings.path(settings.suites.folder)])
    # What was rewritten with the old points kept is not done for one who wants them deleted.
    target = f"{shown_url(influx.url or '')} {influx.api} {influx.org} {influx.bucket}{' kept' if keep_old else ''}"
    return Retimer(parquet, suites, influx.time_base, settings.retime_notes_path, target)


def _buffer(settings: Settings) -> InfluxBuffer:
    from ml_pipeline.stores.influx_buffer import InfluxBuffer

    influx = settings.stores.influx
    return InfluxBuffer(settings.influx_buffer_path, influx.buffer_bytes, influx.buffer_wait_s if influx.url else 0)


def _times(moved: Moved) -> str:
    if moved.first_ns is None or moved.last_ns is None:
        return ""
    first, last = (
        f"{datetime.fromtimestamp(ns // 10**9, UTC):%Y-%m-%d %H:%M}" for ns in (moved.first_ns, moved.last_ns)
    )
    return f", new times from {first} to {last} UTC"


def _end(rejected: Sequence[Rejected], failed: bool = False) -> None:
    """Say what was rejected, and end with the exit code that fits."""
    for one in rejected:
        stderr().print(
            f"{one.lines} points of {one.batch} were rejected and are kept in {one.path}: {one.reason}",
            style="red",
            markup=False,
            soft_wrap=True,
        )
    if rejected or failed:
        sys.exit(1)
