"""`responses`: files of responses scored, and one compared with another."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ml_pipeline.cli.shared import current_settings, definitions, reporting, score_database, stderr, stdout


@click.group()
def responses() -> None:
    """Score files of responses, and compare them."""


@responses.command()
@reporting
def score() -> None:
    """Score the files of responses in data_dir's folder `responses` that are new or have changed."""
    import time

    from ml_pipeline.automation import local_runs
    from ml_pipeline.reports.response_files import scored_versions
    from ml_pipeline.responses.files import find_response_files

    settings = current_settings()
    store = score_database(settings)
    # Who calls this by hand knows that the file is finished.
    found = find_response_files(settings.responses_path, now_ns=time.time_ns(), settle_s=0)
    for problem in found.problems:
        stderr().print(problem, style="red", markup=False, soft_wrap=True)
    store.migrate()
    scored = scored_versions(store)
    keys = [f.key for f in found.files if scored.get(f.key) != (f.size_bytes, f.mtime_ns)]
    console = stdout()
    console.print(f"{len(found.files)} files in {settings.responses_path}, {len(keys)} to score.", soft_wrap=True)
    failures: dict[str, str] = {}
    if keys:
        with local_runs.project_instance(settings) as instance:
            failures = local_runs.score_files(definitions(), instance, keys, settings, console.print).failures
    for key, reason in failures.items():
        stderr().print(f"{key}: {reason}", style="red", markup=False, soft_wrap=True)
    if failures or found.problems:
        sys.exit(1)


@responses.command()
@click.argument("old")
@click.argument("new")
@reporting
def compare(old: str, new: str) -> None:
    """Compare two scored files of responses, by name or path: old, new, difference and its interval, 95% for all
    figures together."""
    from ml_pipeline.reports.response_files import compare_files, comparison_table
    from ml_pipeline.responses.files import file_partition_key

    settings = current_settings()
    store = score_database(settings)
    keys = [file_partition_key(Path(name).name) for name in (old, new)]
    for compared in compare_files(store, *keys):
        stdout().print(comparison_table(compared))
