"""What every command shares: settings, messages, exit codes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec

from rich.console import Console

from ml_pipeline.errors import MlPipelineError, SettingsError, SuiteError, UnknownCheckpointError
from ml_pipeline.files import share_files, sharing_within
from ml_pipeline.printable import printable_lines, without_controls
from ml_pipeline.settings import Settings
from ml_pipeline.settings_file import find_config, load_settings

if TYPE_CHECKING:
    from ml_pipeline.stores.duckdb import DuckDBStore
    from ml_pipeline.suites.suite import Suite

P = ParamSpec("P")
_PIPED_WIDTH = 240
_LONGEST_ERROR = 100_000
_FAILED, _WRONG_USE = 1, 2
INTERRUPTED = 130


def reporting(command: Callable[P, None]) -> Callable[P, None]:
    """Turn what a user can mend into a message and an exit code."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            with sharing_within():
                command(*args, **kwargs)
        except KeyboardInterrupt:
            stderr().print("Interrupted. What is finished is stored; the same command goes on from here.")
            sys.exit(INTERRUPTED)
        except (SettingsError, SuiteError, UnknownCheckpointError) as error:
            _tell(error)
            sys.exit(_WRONG_USE)
        except MlPipelineError as error:
            _tell(error)
            sys.exit(_FAILED)

    return run


def _tell(error: MlPipelineError) -> None:
    words = printable_lines(str(error), _LONGEST_ERROR)
    stderr().print(words, style="red", markup=False, highlight=False, soft_wrap=True)


def current_settings() -> Settings:
    """The settings of this folder, or of $ML_PIPELINE_CONFIG, whose `shared_files` holds from now on until the command
    ends; raises SettingsError."""
    settings = load_settings(find_config(os.environ))
    share_files(settings.shared_files)
    return settings


def definitions() -> Any:
    """What Dagster loads; imported late, since it takes seconds."""
    from ml_pipeline.definitions import defs

    return defs()


def print_scores(settings: Settings) -> None:
    """Print the score table of every run."""
    from ml_pipeline.reports.scores import load_scores
    from ml_pipeline.reports.terminal import score_table_view

    TextConsole().print(score_table_view(load_scores(score_database(settings))))


def print_cut_bases(settings: Settings, suites: Sequence[Suite]) -> None:
    """Warn of base models whose answers the token limit cuts often; nothing where nothing was scored yet."""
    from ml_pipeline.cli.token_limit import cut_bases

    if settings.duckdb_path.exists():
        for cut in cut_bases(score_database(settings), settings, suites):
            stderr().print(f"warning: {cut}", style="yellow", markup=False, highlight=False, soft_wrap=True)


def score_database(settings: Settings) -> DuckDBStore:
    """The database of the settings."""
    from ml_pipeline.stores.duckdb import DuckDBStore

    return DuckDBStore(settings.duckdb_path, settings.stores.duckdb_lock_timeout_s)


class TextConsole(Console):
    """A console to which a string is text: no markup, so that a run may be called '[red]', and nothing in it moves the
    cursor."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """As Console has it."""
        super().print(*(without_controls(one) if isinstance(one, str) else one for one in objects), **options)


def stdout() -> Console:
    """Where lists go: as wide as the terminal, and wide enough for whole names when piped into another program."""
    return TextConsole() if sys.stdout.isatty() else TextConsole(width=_PIPED_WIDTH)


def stderr() -> Console:
    """Where errors go."""
    return TextConsole(stderr=True)
