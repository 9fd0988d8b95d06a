"""`discover` and `score`: the commands about checkpoints."""

from __future__ import annotations

import fnmatch
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TextIO

import click
from rich.console import Console

from ml_pipeline.cli.shared import (
    TextConsole,
    current_settings,
    definitions,
    print_cut_bases,
    print_scores,
    reporting,
    stderr,
    stdout,
)
from ml_pipeline.errors import SettingsError
from ml_pipeline.printable import printable, printable_lines
from ml_pipeline.settings import Settings
from ml_pipeline.source_settings import described

if TYPE_CHECKING:
    from ml_pipeline.checkpoints.checkpoint import Checkpoint


@click.command()
@click.option("--filter", "pattern", default="*", help="Shell pattern on the checkpoint's key.")
@reporting
def discover(pattern: str) -> None:
    """List the checkpoints of every source; stores nothing."""
    from ml_pipeline.checkpoints.catalogue import Catalogue
    from ml_pipeline.cli.view_parts import add_row, table_of

    settings = current_settings()
    found = Catalogue(settings).look()
    console = stdout()
    columns, folded = ["checkpoint", "label", "base model", "size"], "checkpoint|label|base model"
    table = table_of(columns, console.options, right="size", folded=folded)
    for checkpoint in _matching(found.checkpoints, pattern):
        names = [printable(name) for name in (checkpoint.key, checkpoint.label, checkpoint.base_model)]
        add_row(table, [*names, f"{checkpoint.size_bytes / 1e6:.1f} MB"], console.options)
    console.print(table)
    _print_problems(found.growing, found.problems)


@click.command()
@click.option("--filter", "pattern", default="*", help="Shell pattern on the checkpoint's key, such as 'mac.*@800'.")
@click.option("--force", is_flag=True, help="Score again what is scored or imported already.")
@click.option("--limit", type=click.IntRange(min=1), help="Score at most so many.")
@click.option("--dry-run", is_flag=True, help="Say what would be scored, and stop.")
@reporting
def score(pattern: str, force: bool, limit: int | None, dry_run: bool) -> None:
    """Score every checkpoint that has no complete scores yet, then publish the table and the report."""
    from ml_pipeline.automation import local_runs
    from ml_pipeline.automation.local_logs import read_logs
    from ml_pipeline.automation.publishing import is_published
    from ml_pipeline.automation.run_locks import recorded_crashes
    from ml_pipeline.checkpoints.catalogue import Catalogue
    from ml_pipeline.progress import RichProgress, listening
    from ml_pipeline.resources import suites_of

    settings = current_settings()
    console = _lasting_console()
    console.print("Looking for checkpoints ...", highlight=False)
    catalogue = Catalogue(settings)
    found = catalogue.look()
    _print_problems(found.growing, found.problems)
    candidates = _matching(found.checkpoints, pattern)
    with local_runs.project_instance(settings) as instance:
        states = local_runs.states(instance, [checkpoint.key for checkpoint in candidates])
        states = local_runs.mark_changed(states, candidates, settings)
        states = local_runs.mark_imported(states, candidates, settings)
        chosen = [c for c in candidates if force or states[c.key] not in ("scored", "scoring", "imported")]
        # One that ended a process is not allowed to end the next one, unless somebody asks for it.
        crashes = [] if force or pattern != "*" else recorded_crashes(instance)
        left_out = {c.key: crash.why for crash in reversed(crashes) for c in chosen if crash.is_of(c.key, c.version)}
        chosen = [c for c in chosen if c.key not in left_out][:limit]
        imported = sum(state == local_runs.State.IMPORTED for state in states.values())
        known = f" ({imported} known by imported scores)" if imported else ""
        counts = f"{len(candidates)} checkpoints{known}, {len(chosen)} to score"
        counts += f", {len(left_out)} left out after a crash" if left_out else ""
        if not candidates:
            raise SettingsError(_nothing_found(settings, pattern))
        console.print(counts, highlight=False)
        if dry_run:
            for checkpoint in chosen:
                console.print(f"  {checkpoint.key}  ({states[checkpoint.key]})", highlight=False)
            for key in left_out:
                console.print(f"  {key}  (left out after a crash)", highlight=False)
            return
        suites = suites_of(settings)
        outcome = local_runs.Outcome()
        if left_out:
            local_runs.record_left_out(candidates, left_out, settings)
        if chosen:
            with RichProgress(console) as progress, listening(progress):
                outcome = local_runs.score(definitions(), instance, chosen, settings, progress.note)
        if settings.duckdb_path.exists():
            _print_problems((), read_logs(definitions(), instance, settings, catalogue))
            if not is_published(instance, losses_too=True):
                local_runs.publish(definitions(), instance)
            print_scores(settings)
            print_cut_bases(settings, suites)
            if not chosen and not left_out:
                console.print("Nothing new to score.")
            console.print(f"Report: {settings.report_path}", highlight=False, soft_wrap=True)
    for key, reason in {**left_out, **outcome.failures}.items():
        words = printable_lines(f"failed: {key}: {reason}")
        stderr().print(words, style="red", markup=False, highlight=False, soft_wrap=True)
    if outcome.failures:
        stderr().print(f"{len(outcome.failures)} of {len(chosen)} failed; the same command tries just those again.")
    if left_out:
        stderr().print(f"{len(left_out)} left out after a crash; --force or --filter tries them again.")
    if outcome.failures or left_out:
        sys.exit(1)


def _matching(checkpoints: list[Checkpoint], pattern: str) -> list[Checkpoint]:
    """The checkpoints that fit, and the base models that they are compared with."""
    fitting = [c for c in checkpoints if fnmatch.fnmatchcase(c.key, pattern)]
    bases = {c.base_model for c in fitting}
    return [c for c in checkpoints if c in fitting or (c.is_base and c.base_model in bases)]


def _nothing_found(settings: Settings, pattern: str) -> str:
    folders = ", ".join(described(source, settings.path) for source in settings.sources.values())
    matching = "" if pattern == "*" else f" that fits --filter {pattern!r}"
    return f"no checkpoint{matching} in {folders}. Run folders are called adapters-<run>."


def _print_problems(growing: Sequence[str], problems: Sequence[str]) -> None:
    for path in growing:
        stderr().print(
            f"still being written, left for the next look: {printable(path)}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    for problem in problems:
        stderr().print(printable_lines(problem), style="yellow", markup=False, highlight=False, soft_wrap=True)


def _lasting_console() -> Console:
    """A console on a copy of standard output, since Dagster redirects the original while an op runs."""
    stream: TextIO = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    return TextConsole(file=stream)
