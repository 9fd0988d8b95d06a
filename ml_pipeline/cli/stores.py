"""`report`, `rebuild`, `snapshot`, `clean` and `compact`: the commands about what is stored."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import click

from ml_pipeline.cli.shared import (
    TextConsole,
    current_settings,
    definitions,
    print_scores,
    reporting,
    score_database,
    stdout,
)

if TYPE_CHECKING:
    from ml_pipeline.stores.store_folder import StoredFile


@click.command()
@reporting
def report() -> None:
    """Make the score table, the leaderboard and the HTML report anew from the stored scores."""
    from ml_pipeline.automation import local_runs

    settings = current_settings()
    with local_runs.project_instance(settings) as instance:
        local_runs.publish(definitions(), instance)
    print_scores(settings)
    TextConsole().print(f"Report: {settings.report_path}", highlight=False, soft_wrap=True)


@click.command()
@reporting
def rebuild() -> None:
    """Make the DuckDB file again out of the Parquet files; tables of your own are carried over."""
    from ml_pipeline.stores.parquet import ParquetStore

    settings = current_settings()
    store = score_database(settings)
    made = store.rebuild(ParquetStore(settings.parquet_path))
    rows = ", ".join(f"{name} {count}" for name, count in made.rows.items())
    console = TextConsole()
    console.print(f"{settings.duckdb_path}: {made.partitions} partitions in {made.seconds:.1f} s", soft_wrap=True)
    console.print(f"  rows: {rows}", highlight=False)
    if made.carried_over:
        console.print(f"  carried over: {', '.join(made.carried_over)}", highlight=False)


@click.command()
@reporting
def snapshot() -> None:
    """Copy the DuckDB file for analysts, who may hold the copy open: publishing does so too after every run."""
    from ml_pipeline.stores.duckdb import DuckDBStore

    settings = current_settings()
    made = DuckDBStore(settings.duckdb_path, settings.stores.duckdb_lock_timeout_s).snapshot()
    what = f"copied in {made.seconds:.1f} s" if made.is_new else "has all rows already"
    TextConsole().print(f"{made.path}: {what}, {made.size_bytes:,} bytes", highlight=False, soft_wrap=True)


@click.command()
@click.option(
    "--older-than", "days", type=click.IntRange(min=0), default=30, show_default=True, help="Age of what goes, in days."
)
@click.option("--delete", "really", is_flag=True, help="Delete it; without this it is only listed.")
@reporting
def clean(days: int, really: bool) -> None:
    """List or delete the raw answers of earlier evaluations, which newer ones replaced; every score stays."""
    from datetime import UTC, datetime, timedelta

    from ml_pipeline.stores.parquet import ParquetStore
    from ml_pipeline.stores.retention import old_answers, old_scores

    settings = current_settings()
    parquet = ParquetStore(settings.parquet_path)
    files = old_answers(parquet, datetime.now(UTC) - timedelta(days=days))
    console = TextConsole()
    for file in files:
        console.print(f"{file.place}  {file.size_bytes:,} bytes", markup=False, highlight=False, soft_wrap=True)
    total = _total(files)
    if really:
        parquet.files.remove(file.name for file in files)
        console.print(f"Deleted: {total}.", highlight=False)
    elif files:
        console.print(f"{total}. The same command with --delete deletes them.", highlight=False)
    else:
        console.print(f"No superseded answers are older than {days} days.", highlight=False)
    if kept := old_scores(parquet):
        console.print(f"Superseded scores stay: {_total(kept)}.", highlight=False)


def _total(files: Sequence[StoredFile]) -> str:
    return f"{len(files)} files, {sum(file.size_bytes for file in files):,} bytes"


@click.command()
@reporting
def compact() -> None:
    """Put the many small Parquet files of each table together into few; scoring may go on meanwhile."""
    from ml_pipeline.errors import StoreError
    from ml_pipeline.progress import RichProgress
    from ml_pipeline.stores.compaction import Compaction
    from ml_pipeline.stores.parquet import ParquetStore
    from ml_pipeline.stores.tables import TABLES

    console, problems, partitions = stdout(), [], 0
    compaction = Compaction(ParquetStore(current_settings().parquet_path))
    with RichProgress(console) as progress:
        for table in TABLES.values():
            try:
                done = compaction.compact(table, partial(progress.step, f"partitions of {table.name}"))
            except StoreError as error:
                problems.append(str(error))
                continue
            partitions += done.partitions
            if done.partitions:
                console.print(
                    f"{table.name}: {done.partitions} partitions, {done.files_before} files before, "
                    f"{done.files_after} after",
                    highlight=False,
                )
    if problems:
        raise StoreError("\n".join(problems))
    if not partitions:
        console.print("There is nothing to put together.")
