"""Trial runs in a child process, for native libraries that may crash: there, a crash costs one answer and no run.

`run_trial` has a module of this package do a small piece of work in a process of its own, and returns what it found or
how it died. `TrialRecords` keeps what was found out, so that the next run need not try again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import resource
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_pipeline.errors import StoreError
from ml_pipeline.files import make_folder, store_errors, write_atomically
from ml_pipeline.printable import printable

_log = logging.getLogger(__name__)

_CPU_INFO, _NVIDIA_DRIVER = Path("/proc/cpuinfo"), Path("/proc/driver/nvidia/version")
_SYSCTL = ("/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string")
_LAST_LINES = 6
_ORDERS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
_PACKAGE_ROOT = str(Path(__file__).parents[2])

Stage = Callable[[str], None]
"""Takes what the child does next, in words that follow "while"."""


@dataclass(frozen=True, slots=True)
class Death:
    """How a child ended that gave no answer: in which words, while doing what, and the last lines that it wrote.

    `signal` is its number, None where the child was not ended by one; `too_slow` says that its time was over.
    """

    how: str
    during: str
    last_lines: tuple[str, ...]
    signal: int | None = None
    too_slow: bool = False

    @property
    def looks_like_memory(self) -> bool:
        """Whether it ended as processes do when the system runs out of memory: it says nothing of the library."""
        return self.signal == signal.SIGKILL

    @property
    def was_ordered(self) -> bool:
        """Whether somebody told it to end: Ctrl-C, or the end of everything that `ml-pipeline dev` started."""
        return self.signal in _ORDERS

    @property
    def may_pass(self) -> bool:
        """Whether the machine may be the reason, and not the library: want of memory, or of time on a busy one."""
        return self.looks_like_memory or self.too_slow

    @property
    def said(self) -> str:
        """Its last lines, indented, for the end of an error message."""
        return "".join(f"\n    {line}" for line in self.last_lines) or " nothing"

    def __str__(self) -> str:
        return f"{self.how} while {self.during}"


class TrialError(Exception):
    """The child's work failed in an orderly way; the message says why."""


def exit_words(returncode: int) -> str:
    """How a process ended, in words: "was ended by SIGSEGV (Segmentation fault)", "ended with exit code 1"."""
    if returncode >= 0:
        return f"ended with exit code {returncode}"
    return f"was ended by {signal_words(-returncode)}"


def signal_words(number: int) -> str:
    """A signal by its name and what the system calls it: "SIGSEGV (Segmentation fault)"."""
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
    description = signal.strsignal(number)
    return f"{name} ({description})" if description else name


def start_child(module: str, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """Run a module of this package in a process of its own; `options` are those of Popen. Raises OSError.

    As multiprocessing does it: the child finds the package wherever this process has found it.
    """
    path = os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), _PACKAGE_ROOT])
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    # An unset `sys.executable` is no program either.
    command = [sys.executable or "", "-P", "-m", module, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, **options)


def run_trial(module: str, task: Mapping[str, Any], *, limit_s: float) -> dict[str, Any] | Death:
    """Have `module`, which calls `answer_trial` when it is run, do a task; return its answer, or how it died.

    Raises:
        TrialError: it failed in an orderly way, or no child can be started.
    """
    if not sys.executable:
        raise TrialError("no child process can be started: this Python does not know where its program is")
    try:
        child = start_child(module, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except OSError as error:
        raise TrialError(f"no child process can be started: {error.strerror}") from error
    # What other code in the child prints, before the trial has its streams apart, is not taken for its words.
    mark, too_slow = secrets.token_hex(8), False
    with child:
        try:
            output, errors = child.communicate(json.dumps({"mark": mark, "task": task}).encode(), timeout=limit_s)
            how = exit_words(child.returncode)
        except subprocess.TimeoutExpired:
            child.kill()
            output, errors = child.communicate()
            how, too_slow = f"did not end within {limit_s:g} s", True
        except BaseException:
            child.kill()
            raise
    during = "starting"
    for line in output.decode("utf-8", "replace").splitlines():
        message = _message(line, mark)
        if "answer" in message:
            answer: dict[str, Any] = message["answer"]
            return answer
        if "error" in message:
            raise TrialError(message["error"])
        during = message.get("stage", during)
    last_lines = [printable(line) for line in errors.decode("utf-8", "replace").splitlines() if line.strip()]
    number = -child.returncode if child.returncode < 0 and not too_slow else None
    return Death(how, during, tuple(last_lines[-_LAST_LINES:]), number, too_slow)


def answer_trial(work: Callable[[dict[str, Any], Stage], dict[str, Any]], *expected: type[Exception]) -> None:
    """In the child: do the task on standard input and answer it; errors of the types `expected` are orderly ones."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    # The library writes to standard output as it likes; the answers go where standard output was.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(**message: Any) -> None:
        answers.write(json.dumps({"mark": mark, **message}) + "\n")
        answers.flush()

    given = json.load(sys.stdin)
    mark, task = given["mark"], given["task"]
    try:
        say(answer=work(task, lambda stage: say(stage=stage)))
    except expected as error:
        say(error=str(error))
    # Nothing more to lose: a library that crashes on its way out has answered.
    os._exit(0)


_OF_PROCESS: dict[tuple[Path | None, str], dict[str, Any]] = {}


class TrialRecords:
    """What trials found out, one small file each in `folder`, by all that a finding depends on.

    Without a folder, or where that cannot be written to, findings last as long as the process.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def get(self, depends_on: Mapping[str, Any]) -> dict[str, Any] | None:
        """What was found out under just these circumstances; None where nothing was, or its file is damaged."""
        if (of_process := _OF_PROCESS.get(self._name(depends_on))) is not None or self.folder is None:
            return of_process
        try:
            record = json.loads((self.folder / f"{_key(depends_on)}.json").read_bytes())
        except (OSError, ValueError):
            return None
        found = record.get("found") if isinstance(record, dict) else None
        return found if isinstance(found, dict) else None

    def keep(self, depends_on: Mapping[str, Any], found: Mapping[str, Any]) -> None:
        """Keep a finding, with what it depends on beside it for people to read."""
        text = json.dumps({"found": found, "depends_on": depends_on}, indent=1, default=str)
        try:
            if self.folder is not None:
                with store_errors("make", self.folder):
                    make_folder(self.folder)
                write_atomically(self.folder / f"{_key(depends_on)}.json", text.encode())
                return
        except StoreError as error:
            # What was found out is true all the same; it costs the next run the seconds of another trial.
            _log.warning("What a trial of a native library found out cannot be kept: %s", error)
        _OF_PROCESS[self._name(depends_on)] = dict(found)

    def _name(self, depends_on: Mapping[str, Any]) -> tuple[Path | None, str]:
        return self.folder, _key(depends_on)


def this_cpu() -> str:
    """The processor by name and by what it can do, as far as the system tells: other kernels run on another one."""
    try:
        text = _CPU_INFO.read_text(errors="replace").partition("\n\n")[0]
    except OSError:
        return _cpu_of_a_mac() or f"{platform.machine()} {platform.processor()}"
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    facts = {name.strip(): value.strip() for name, value in fields.items()}
    features = facts.get("flags") or facts.get("Features") or ""
    name = facts.get("model name") or facts.get("CPU part") or platform.machine()
    return f"{name}, {hashlib.sha256(features.encode()).hexdigest()[:12]}"


def this_system() -> str:
    """The system and the driver of an Nvidia GPU, by version: with either, what a GPU is given to do changes."""
    try:
        driver = _NVIDIA_DRIVER.read_text(errors="replace").partition("\n")[0]
    except OSError:
        driver = "no Nvidia driver"
    return f"{platform.system()} {platform.release()}, {driver}"


def _cpu_of_a_mac() -> str:
    """As "Apple M3 Max"; "" where there is no such program."""
    try:
        named = subprocess.run(_SYSCTL, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    except OSError:
        return ""
    return printable(named.stdout.strip())


def files_hash(folder: Path) -> str:
    """Of name, size and time of each file of a folder: what changes when a library is built or installed again."""
    files = [file for file in sorted(folder.glob("*")) if file.is_file()]
    facts = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _key(depends_on: Mapping[str, Any]) -> str:
    text = json.dumps(depends_on, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _message(line: str, mark: str) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) and message.get("mark") == mark else {}
