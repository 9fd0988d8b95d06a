"""`export`: what is stored, in forms that other programs read."""

from __future__ import annotations

import fnmatch
from pathlib import Path

import click

from ml_pipeline.cli.shared import current_settings, reporting, score_database, stdout
from ml_pipeline.files import named_by_user

_TABLES, _ANSWERS = ("parquet", "csv"), ("lm-eval", "inspect")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--format",
    "formats",
    multiple=True,
    required=True,
    type=click.Choice((*_TABLES, *_ANSWERS)),
    help="Tables as Parquet or CSV; answers as lm-evaluation-harness or Inspect write them. May be repeated.",
)
@click.option("--filter", "pattern", default="*", help="Shell pattern on the checkpoint's key.")
@reporting
def export(folder: Path, formats: tuple[str, ...], pattern: str) -> None:
    """Write what is stored into FOLDER, below it a folder for each format."""
    from ml_pipeline.exports.evaluated import evaluated
    from ml_pipeline.exports.inspect_log import write_inspect_log
    from ml_pipeline.exports.lm_eval import write_lm_eval
    from ml_pipeline.exports.tables import TableFormat, write_tables
    from ml_pipeline.reports.scores import load_scores
    from ml_pipeline.stores.parquet import ParquetStore
    from ml_pipeline.stores.tables import EVALUATIONS

    settings = current_settings()
    parquet = ParquetStore(settings.parquet_path)
    database = score_database(settings)

    def wanted(key: str) -> bool:
        return fnmatch.fnmatchcase(key, pattern)

    written = dict.fromkeys(formats, 0)
    kinds: tuple[TableFormat, ...] = ("parquet", "csv")
    for kind in kinds:
        if kind in written:
            scores = load_scores(database)
            with named_by_user():
                written[kind] = len(write_tables(folder / kind, kind, parquet, scores, wanted))
    for key in filter(wanted, parquet.partitions(EVALUATIONS)) if set(formats) & set(_ANSWERS) else ():
        suites = list(evaluated(parquet, key))
        with named_by_user():
            if "lm-eval" in written:
                written["lm-eval"] += len(write_lm_eval(folder / "lm-eval", suites))
            if "inspect" in written:
                written["inspect"] += len([write_inspect_log(folder / "inspect", suite) for suite in suites])
    for name, count in written.items():
        stdout().print(f"{folder / name}: {count} files", markup=False, highlight=False, soft_wrap=True)
