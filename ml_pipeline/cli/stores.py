"""`report`, `rebuild` and `clean`: the commands about what is stored."""

from __future__ import annotations

import click
from rich.console import Console

from ml_pipeline.cli.shared import current_settings, definitions, print_scores, reporting, score_database


@click.command()
@reporting
def report() -> None:
    """Make the score table, the leaderboard and the HTML report anew from the stored scores."""
    from ml_pipeline.automation import local_runs

    settings = current_settings()
    with local_runs.project_instance(settings) as instance:
        local_runs.publish(definitions(), instance)
    print_scores(settings)
    Console().print(f"Report: {settings.report_path}", highlight=False, soft_wrap=True)


@click.command()
@reporting
def rebuild() -> None:
    """Make the DuckDB file again out of the Parquet files; tables of your own are carried over."""
    from ml_pipeline.stores.parquet import ParquetStore

    settings = current_settings()
    store = score_database(settings)
    made = store.rebuild(ParquetStore(settings.parquet_path))
    rows = ", ".join(f"{name} {count}" for name, count in made.rows.items())
    console = Console()
    console.print(f"{settings.duckdb_path}: {made.partitions} partitions in {made.seconds:.1f} s", soft_wrap=True)
    console.print(f"  rows: {rows}", highlight=False)
    if made.carried_over:
        console.print(f"  carried over: {', '.join(made.carried_over)}", highlight=False)


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
    from ml_pipeline.stores.retention import delete, old_answers

    settings = current_settings()
    files = old_answers(ParquetStore(settings.parquet_path), datetime.now(UTC) - timedelta(days=days))
    console = Console()
    for file in files:
        console.print(f"{file.path}  {file.size_bytes:,} bytes", markup=False, highlight=False, soft_wrap=True)
    total = f"{len(files)} files, {sum(file.size_bytes for file in files):,} bytes"
    if really:
        delete(files)
        console.print(f"Deleted: {total}.", highlight=False)
    elif files:
        console.print(f"{total}. The same command with --delete deletes them.", highlight=False)
    else:
        console.print(f"No superseded answers are older than {days} days.", highlight=False)
