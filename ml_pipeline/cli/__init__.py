"""The `ml-pipeline` command. Exit codes: 0 done, 1 something failed, 2 wrong use or settings, 130 interrupted."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ml_pipeline.cli.adapters import convert, inspect
from ml_pipeline.cli.checkpoints import discover, score
from ml_pipeline.cli.config import config
from ml_pipeline.cli.dev import dev
from ml_pipeline.cli.exports import export
from ml_pipeline.cli.history import import_
from ml_pipeline.cli.influx import replay, retime
from ml_pipeline.cli.responses import responses
from ml_pipeline.cli.show import compare, show
from ml_pipeline.cli.status import status
from ml_pipeline.cli.stores import clean, compact, rebuild, report, snapshot
from ml_pipeline.cli.top import top
from ml_pipeline.cli.watch import watch
from ml_pipeline.settings_file import CONFIG_ENV


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ml_pipeline")
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    help=f"Settings file; default ${CONFIG_ENV}, else pipeline.yaml of this folder or one above.",
)
def main(config_path: Path | None) -> None:
    """Find every new LoRA checkpoint, score it, and show what got better and what got worse."""
    if config_path is not None:
        os.environ[CONFIG_ENV] = str(config_path.resolve())


for command in (
    discover,
    score,
    dev,
    status,
    top,
    show,
    compare,
    watch,
    report,
    responses,
    inspect,
    convert,
    import_,
    export,
    rebuild,
    snapshot,
    replay,
    retime,
    clean,
    compact,
    config,
):
    main.add_command(command)
