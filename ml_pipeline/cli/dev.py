"""`dev`: the Dagster UI with its daemon, and an end of everything when it is told to stop."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING

import click

from ml_pipeline import dagster_dev, process_tree
from ml_pipeline.cli.shared import INTERRUPTED, current_settings, reporting, stderr
from ml_pipeline.cli.status import status
from ml_pipeline.errors import MlPipelineError, SettingsError
from ml_pipeline.files import lock_file, make_folder, store_errors
from ml_pipeline.settings import Settings

if TYPE_CHECKING:
    from dagster import DagsterInstance

_EVERYBODY = "0.0.0.0"
_WORKSPACE = "load_from: [{python_module: {module_name: ml_pipeline.definitions, location_name: ml_pipeline}}]"
_BETWEEN_TRIES_S = 0.2


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help=f"Address of the UI; {_EVERYBODY}: any.")
@click.option("--port", type=click.IntRange(1, 65535), default=3000, show_default=True, help="Port of the UI.")
@click.pass_context
@reporting
def dev(context: click.Context, host: str, port: int) -> None:
    """Open the Dagster UI with sensors on, and score what is new, until told to stop.

    Runs `dagster dev`, whose web server answers only requests by this machine's names or numbers and that of
    `links.dagster`, and only from its own pages. At SIGTERM, SIGINT (Ctrl-C) or SIGHUP every process that it started
    ends within 10 s, also a run under way, which goes on at the next start. Exit codes: 0 after SIGTERM or SIGHUP, 130
    after Ctrl-C, 1 when `dagster dev` ended by itself.
    """
    settings = current_settings()
    workspace = settings.root / "workspace.yaml"
    if not workspace.is_file():
        raise SettingsError(f"there is no {workspace}. Write into it:\n  {_WORKSPACE}")
    with _alone(settings.dev_lock_path) as lock:
        _check_port(host, port)
        # First by one process alone: it checks the settings, and makes Dagster's database before many ask for it.
        _mark_interrupted_runs(settings)
        context.invoke(status)
        # In the project's folder, with DAGSTER_HOME, since `project_instance` was there before.
        command = [sys.executable, "-m", dagster_dev.__name__, "--workspace", str(workspace)]
        if settings.links.dagster:
            os.environ[dagster_dev.ADDRESS_ENV] = settings.links.dagster
        kept = KeptCommand(settings.stop_note_path, [*command, "--host", host, "--port", str(port)], lock)
        kept.wait()
        _mark_interrupted_runs(settings)
    if kept.left:
        raise MlPipelineError("Processes are left that do not even end by SIGKILL: see the lines above.")
    if kept.stopped_by is None:
        raise MlPipelineError(
            f"`dagster dev` ended by itself, with exit code {kept.exit_code}. Its messages are above."
        )
    if kept.stopped_by == signal.SIGINT:
        sys.exit(INTERRUPTED)


class KeptCommand:
    """A command below a keeper, `process_tree`, which ends it with all its descendants when this process is to end.

    The keeper writes into `note` when it began to, and holds the file `lock` open as long as it lives. It is a process
    of its own, so that it can do its work also when this one is killed. Should the keeper be killed, this one does it.
    """

    def __init__(self, note: Path, command: list[str], lock: IO[str]) -> None:
        self.stopped_by: int | None = None
        self.exit_code = 0
        self.left = False
        self._note = note
        self._orders = 0
        self._leash: IO[bytes] | None = None
        process_tree.adopt_orphans()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as with nohup
                signal.signal(number, self._stop)
        self._keeper = subprocess.Popen(
            # Isolated, since its folder holds modules of ours with everyday names.
            [sys.executable, "-I", process_tree.__file__, str(note), *command],
            stdin=subprocess.PIPE,
            # Ctrl-C in the terminal is for this process alone, which passes it on in good order.
            start_new_session=True,
            pass_fds=[lock.fileno()],
        )
        self._leash = self._keeper.stdin
        if self.stopped_by is not None:
            self._order()

    def wait(self) -> None:
        """Wait until nothing is left of it."""
        self.exit_code = self._keeper.wait()
        self.left = self.exit_code == process_tree.SOME_LEFT
        if self.exit_code < 0:
            process_tree.note_the_stop(self._note)
            self.left = bool(process_tree.ProcessTree().end(self._hurry))

    def _stop(self, number: int, _frame: FrameType | None) -> None:
        first, self.stopped_by = self.stopped_by is None, self.stopped_by or number
        self._order()
        if first:
            _say("Stopping. What is finished is stored ...")

    def _order(self) -> None:
        self._orders += 1
        if self._leash is not None:
            with suppress(OSError):  # the keeper is gone
                os.write(self._leash.fileno(), b"stop\n")

    def _hurry(self, seconds: float) -> bool:
        before = self._orders
        time.sleep(seconds)
        return self._orders > before


@contextmanager
def _alone(path: Path) -> Iterator[IO[str]]:
    """Hold the lock of this project's only `ml-pipeline dev`; raises MlPipelineError if another has it.

    One that is just ending is waited for.
    """
    with store_errors("lock", path):
        make_folder(path.parent)
        descriptor = lock_file(path)
    with os.fdopen(descriptor, "r+") as file:
        deadline = time.monotonic() + process_tree.LONGEST_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    file.seek(0)
                    raise MlPipelineError(
                        f"`ml-pipeline dev` of this project runs already: {file.read().strip() or 'see ' + str(path)}. "
                        "Two of them would score everything twice; stop that one first."
                    ) from None
            time.sleep(_BETWEEN_TRIES_S)
        file.seek(0)
        file.truncate(0)
        file.write(f"process {os.getpid()}\n")
        file.flush()
        yield file


def _check_port(host: str, port: int) -> None:
    """Raise SettingsError where the UI could not be served: by Dagster that would end everything, without a reason."""
    try:
        (family, kind, protocol, _, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        with socket.socket(family, kind, protocol) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind(address)
    except OSError as error:
        raise SettingsError(
            f"the UI cannot be served at {host}:{port}: {error.strerror}. Choose others with --host and --port "
            "(`make dev` takes PORT=...)."
        ) from error


def _mark_interrupted_runs(settings: Settings) -> None:
    from ml_pipeline.automation import local_runs
    from ml_pipeline.automation.interrupted_runs import report_interrupted_runs

    def mark(instance: DagsterInstance) -> None:
        marked = report_interrupted_runs(settings.stop_note_path, settings.run_locks_path, instance)
        for run_id, goes_on in marked.items():
            then = "goes on when Dagster starts" if goes_on else "is not repeated by itself: see `ml-pipeline status`"
            _say(f"Run {run_id} was interrupted, and {then}.")

    with local_runs.project_instance(settings, first=mark):
        pass


def _say(words: str) -> None:
    with suppress(OSError):  # after SIGHUP there is no terminal any more
        stderr().print(words, highlight=False, soft_wrap=True)
