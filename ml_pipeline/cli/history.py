"""`import`: what another program left, brought in beside what this one measures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ml_pipeline.cli.shared import current_settings, reporting, score_database, stderr, stdout
from ml_pipeline.errors import ImportFileError

if TYPE_CHECKING:
    from ml_pipeline.history.importing import ImportReport
    from ml_pipeline.history.training_data import TrainingData


@click.command("import")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--run", default="", help="Training run of lines that name none: files of capability or content scores.")
@click.option("--model", default="", help="Model tag of such lines, such as gemma-3-1b.")
@click.option(
    "--training", is_flag=True, help="The files are training data, lines with `messages`: make Parquet files."
)
@reporting
def import_(paths: tuple[Path, ...], run: str, model: str, training: bool) -> None:
    """Import scores of the original, whatever kind of file they are in; or, with --training, training data."""
    from ml_pipeline.history.importing import import_file
    from ml_pipeline.history.records import Whose
    from ml_pipeline.history.training_data import import_training_data
    from ml_pipeline.progress import RichProgress
    from ml_pipeline.stores.parquet import ParquetStore
    from ml_pipeline.stores.score_store import ScoreStore

    settings = current_settings()
    line_bytes = settings.limits.response_line_bytes
    database = score_database(settings)
    store = ScoreStore(ParquetStore(settings.parquet_path), database)
    whole = True
    for path in paths:
        try:
            if training:
                whole &= _tell_training(import_training_data(path, settings.training_data_path, line_bytes))
                continue
            with RichProgress(stdout()) as progress:
                whole &= _tell(
                    import_file(
                        store,
                        path,
                        line_bytes=line_bytes,
                        whose=Whose(run, model),
                        progress=lambda done, total: progress.step("checkpoints imported", done, total),
                    )
                )
        except ImportFileError as error:
            stderr().print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
            whole = False
    if not whole:
        sys.exit(1)


def _tell(report: ImportReport) -> bool:
    """Say what came of a file; whether all of it could be read."""
    kinds = ", ".join(f"{count} of {kind}" for kind, count in report.kinds.items())
    stdout().print(
        f"{report.file}: {kinds}: {report.new} new, {report.replaced} replaced, {report.known} known before; "
        f"{report.checkpoints} checkpoints changed, {report.bad_lines} bad lines.",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    _print_problems(report.problems)
    return not report.bad_lines


def _tell_training(made: TrainingData) -> bool:
    stdout().print(
        f"{made.path}: {made.rows} conversations, {made.bad_lines} bad lines.",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    _print_problems(made.problems)
    return not made.bad_lines


def _print_problems(problems: list[str]) -> None:
    for problem in problems:
        stderr().print(problem, style="yellow", markup=False, highlight=False, soft_wrap=True)
