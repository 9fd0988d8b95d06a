"""What is left of a scoring run whose process dies by a signal: at which checkpoint, by which signal, and where.

Nothing in Python runs when a native library crashes. So a run writes down beforehand what it is about to do, in files
beside its lock, and Python's own fault handler writes the rest at the moment of the crash. A child that waits for the
end of the process then says what happened. A run that ends in any orderly way removes the files. No run fails because
nothing can be written down.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ml_pipeline.backends.trials import start_child
from ml_pipeline.files import make_folder
from ml_pipeline.printable import printable

_log = logging.getLogger(__name__)

_LONGEST_BYTES = 64 << 10
_FAULT, _CHECKPOINT = ".fault", ".checkpoint"
_WATCHER = "ml_pipeline.automation.crash_watcher"
_WATCHER_WAIT_S = 5.0
_ORDERLY_END = b"."
_SIGNALS = {
    "Segmentation fault": "SIGSEGV",
    "Aborted": "SIGABRT",
    "Bus error": "SIGBUS",
    "Illegal instruction": "SIGILL",
    "Floating point exception": "SIGFPE",
    "Floating-point exception": "SIGFPE",
}
_FRAME = re.compile(r'File "(?P<file>[^"]*)", line (?P<line>\d+) in (?P<function>\S+)')
_CRASHED = "A native library crashed."
_LEFT_OUT = (
    "The checkpoint is left out from now on, until training overwrites it, or `ml-pipeline score --force`, one whose "
    "--filter names it, or a backfill asks for it."
)
_FILE_LEFT_OUT = "When the run is repeated by itself, this file is left out."
_REMEDY = (
    "Where it crashes again, install another build of the library, set extra_buffers: false for a llama_cpp backend, "
    "or use another backend in pipeline.yaml."
)


@dataclass(frozen=True, slots=True)
class UnderWay:
    """The checkpoint that a run scores, by key, and the version of its files; or a file of responses that it judges,
    without one."""

    key: str
    version: str = ""

    def __str__(self) -> str:
        return f"while it {'scored' if self.version else 'judged'} {self.key}"


@dataclass(frozen=True, slots=True)
class NativeCrash:
    """How a run's process died: by which signal, in which Python function, and at which work, if at any."""

    run_id: str
    work: UnderWay | None
    signal: str
    where: str

    def __str__(self) -> str:
        at = self.work or "before it scored a checkpoint"
        left_out = "" if self.work is None else f" {_LEFT_OUT if self.work.version else _FILE_LEFT_OUT}"
        return (
            f"the process of run {self.run_id} was ended by {self.signal} {at}{self.where}. {_CRASHED}{left_out} "
            f"{_REMEDY}"
        )


class CrashNotes:
    """Written by a run as it goes on; see `crash_notes`."""

    def __init__(self, folder: Path, run_id: str) -> None:
        self._path = folder / f"{run_id}{_CHECKPOINT}"

    def under_way(self, work: UnderWay | None) -> None:
        """Write down what comes next; None between two checkpoints."""
        # A full disk is no reason to stop here: what is stored says so.
        with suppress(OSError):
            self._path.write_text("" if work is None else json.dumps([work.key, work.version]), encoding="utf-8")


@contextmanager
def crash_notes(folder: Path, run_id: str) -> Iterator[CrashNotes]:
    """Have a crash of this process leave word of it in `folder` and on standard error, as long as the context lasts."""
    was_enabled = faulthandler.is_enabled()
    try:
        make_folder(folder)
        file = (folder / f"{run_id}{_FAULT}").open("w")
    except OSError as error:
        _log.warning("Should a native library crash, nothing will say where: cannot write to %s: %s", folder, error)
        yield CrashNotes(folder, run_id)
        return
    end_watcher = _start_watcher(folder, run_id)
    with file:
        faulthandler.enable(file, all_threads=False)
        try:
            yield CrashNotes(folder, run_id)
        finally:
            faulthandler.disable()
            if was_enabled and sys.__stderr__ is not None:
                faulthandler.enable(sys.__stderr__)
            with suppress(OSError):
                forget_crash(folder, run_id)
            end_watcher()


def crash_of(folder: Path, run_id: str) -> NativeCrash | None:
    """How the process of a run that is over crashed; None where it did not, as far as is known."""
    text = _read(folder / f"{run_id}{_FAULT}")
    _, found, words = text.partition("Fatal Python error: ")
    if not found:
        return None
    words = printable(words.splitlines()[0]) if words.strip() else "an unknown signal"
    signal = f"{_SIGNALS[words]} ({words})" if words in _SIGNALS else words
    frame = _FRAME.search(text)
    where = f", in {Path(frame['file']).name}, {frame['function']}" if frame else ""
    return NativeCrash(run_id, work_of(folder, run_id), signal, printable(where))


def work_of(folder: Path, run_id: str) -> UnderWay | None:
    """What a run that ended in no orderly way was about; None where it was at nothing, or nothing is left of it."""
    try:
        key, version = json.loads(_read(folder / f"{run_id}{_CHECKPOINT}"))
    except (ValueError, TypeError):
        return None
    return UnderWay(printable(key), printable(version))


def crashed_runs(folder: Path) -> list[str]:
    """The ids of the runs of which anything is left in `folder`, going on or not."""
    return sorted(path.name.removesuffix(_FAULT) for path in folder.glob(f"*{_FAULT}"))


def forget_crash(folder: Path, run_id: str) -> None:
    """Remove what a run wrote down."""
    for suffix in (_FAULT, _CHECKPOINT):
        (folder / f"{run_id}{suffix}").unlink(missing_ok=True)


def _start_watcher(folder: Path, run_id: str) -> Callable[[], None]:
    """Start the child that tells of a crash; the function that is returned ends it, silently."""
    try:
        watcher = start_child(_WATCHER, str(folder), run_id, stdout=subprocess.DEVNULL)
    except OSError as error:  # no more processes, or no memory for one
        _log.warning("Should a native library crash, only the record of the run will say so: %s", error)
        return lambda: None
    return lambda: _end_watcher(watcher)


def _end_watcher(watcher: subprocess.Popen[bytes]) -> None:
    assert watcher.stdin is not None
    with suppress(OSError):
        watcher.stdin.write(_ORDERLY_END)
        watcher.stdin.close()
    try:
        watcher.wait(_WATCHER_WAIT_S)
    except subprocess.TimeoutExpired:
        watcher.kill()
        watcher.wait()


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_LONGEST_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
