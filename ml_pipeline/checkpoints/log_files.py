"""Finds the files beside a run's adapters that may be its training log."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from ml_pipeline.checkpoints.layouts import CONFIG_FILE
from ml_pipeline.checkpoints.naming import checkpoint_folder_iteration
from ml_pipeline.checkpoints.source import Entry, Source
from ml_pipeline.checkpoints.training_log import TrainingLogParser
from ml_pipeline.errors import CheckpointError

LOG_SUFFIXES = (".log", ".txt")
MOST_LOGS = 20
"""Logs of one run that are read: its newest."""
_BEGINNING_BYTES = 256 * 1024
_LATEST_NS = 2**62
"""Times beyond this (the year 2116) are taken for it: points are timed by adding to them, in 64 bits."""


@dataclass(frozen=True, slots=True)
class LogFile:
    """A file that may be the log of a training run.

    `path` is inside the source. `started_ns` is when its training began, in ns since 1970: the time of
    adapter_config.json, which mlx-lm writes before it trains, or the log's own where there is none.
    """

    source: str
    run: str
    path: str
    size_bytes: int
    mtime_ns: int
    started_ns: int


@dataclass
class LogSearch:
    """What one look found: logs by run and age, and messages about what could not be read."""

    logs: list[LogFile] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def find_logs(source: Source, pattern: str = "*") -> LogSearch:
    """Look through a source once; `pattern` is a shell pattern on the run's name."""
    found = LogSearch()
    root = _list_folders(source, [""], found.problems).get("", [])
    prefix = source.run_prefix
    tops = _list_folders(source, [top for top in _folders(root) if top.startswith(prefix)], found.problems)
    nested = [
        f"{top}/{inner}"
        for top, entries in tops.items()
        for inner in _folders(entries)
        if checkpoint_folder_iteration(inner) is None
    ]
    for folder, entries in sorted({**tops, **_list_folders(source, nested, found.problems)}.items()):
        run = folder.removeprefix(prefix)
        if fnmatch.fnmatchcase(run, pattern):
            _add(found, _candidates(source, run, entries))
    return found


def logs_of_run(source: Source, run: str) -> LogSearch:
    """The possible logs of one run, oldest first.

    Raises:
        CheckpointError: its folder cannot be read.
    """
    found = LogSearch()
    _add(found, _candidates(source, run, source.list_folder(f"{source.run_prefix}{run}")))
    return found


def looks_like_log(source: Source, log: LogFile) -> bool:
    """Whether a loss is printed in the beginning of the file.

    Raises:
        CheckpointError: it cannot be read.
    """
    with reading(log), source.open(log.path) as file:
        return bool(TrainingLogParser().feed(file.read(_BEGINNING_BYTES)))


@contextmanager
def reading(log: LogFile) -> Iterator[None]:
    """Turn what goes wrong while a log is read into a CheckpointError that names it."""
    try:
        yield
    except (OSError, EOFError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise CheckpointError(
            f"source {log.source}: reading {log.path!r} failed: {reason}. It is read again when it has grown, or when "
            "its partition is materialised."
        ) from error


def _list_folders(source: Source, paths: Sequence[str], problems: list[str]) -> dict[str, Sequence[Entry]]:
    """The entries of each folder that can be listed; why the others cannot goes to `problems`."""
    listed: dict[str, Sequence[Entry]] = {}
    try:
        found = source.list_folders(paths)
    except CheckpointError as error:  # the source as a whole
        problems.append(str(error))
        return listed
    for path, entries in found.items():
        if isinstance(entries, CheckpointError):
            problems.append(str(entries))
        else:
            listed[path] = entries
    return listed


def _folders(entries: Sequence[Entry]) -> list[str]:
    return sorted(entry.name for entry in entries if entry.is_folder)


def _candidates(source: Source, run: str, entries: Sequence[Entry]) -> list[LogFile]:
    config_ns = next((e.mtime_ns for e in entries if e.name == CONFIG_FILE and not e.is_folder and not e.trouble), None)
    logs = [
        LogFile(
            source.name,
            run,
            f"{source.run_prefix}{run}/{entry.name}",
            entry.size_bytes,
            entry.mtime_ns,
            min(max(0, entry.mtime_ns if config_ns is None else config_ns), _LATEST_NS),
        )
        for entry in entries
        if not entry.is_folder and not entry.trouble and entry.size_bytes and entry.name.lower().endswith(LOG_SUFFIXES)
    ]
    return sorted(logs, key=lambda log: (log.mtime_ns, log.path))


def _add(found: LogSearch, logs: Sequence[LogFile]) -> None:
    named = [log for log in logs if _is_text(log.path)]
    unnamed = [log for log in logs if not _is_text(log.path)]
    found.logs += named[-MOST_LOGS:]
    if unnamed:
        found.problems.append(
            f"source {unnamed[0].source}: {len(unnamed)} logs have names that are not UTF-8, and are not read: "
            f"{unnamed[0].path!r:.200}. Rename them."
        )
    if len(named) > MOST_LOGS:
        found.problems.append(
            f"source {logs[0].source}: run {logs[0].run!r:.80} has {len(named)} files that may be logs "
            f"({', '.join(LOG_SUFFIXES)}); only the newest {MOST_LOGS} are read. Move the others elsewhere."
        )


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
