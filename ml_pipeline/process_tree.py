"""Runs a command, and ends it with everything that it started, however deep and in whatever session.

A program of its own, which imports nothing but the standard library:

    python process_tree.py NOTE COMMAND...

Its standard input is its leash. At a line "stop" there, at the end of the input (whoever started it is gone, even by
SIGKILL), or at SIGTERM, SIGINT or SIGHUP, the command and all its descendants are ended within `LONGEST_S`: the command
first, which knows best how to end its own children; then whatever is left, parents before children; then by SIGKILL. At
a second line or signal, by SIGKILL at once. The same is done when the command ends and leaves processes behind.

NOTE is a file into which the time is written, in s since 1970, before the first process is asked: whoever finds work
that was cut short knows by it that this was on purpose. A note that is there already stays as it is.

Exit code: 0 when it was told to stop and nothing is left, `SOME_LEFT` when processes are left, else the command's.

On Linux no descendant escapes: orphans become children of this program (prctl(2), PR_SET_CHILD_SUBREAPER). Elsewhere
processes are looked up every few seconds, and one that leaves its parents between two looks may be missed.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

FIRST_S = 2.0
"""How long the command has to end its own before its descendants are asked as well."""
KILL_AFTER_S = 5.5
LONGEST_S = 8.0
"""After this, what does not even end by SIGKILL (it hangs in the kernel) is given up."""

SOME_LEFT = 97

_BETWEEN_GENERATIONS_S = 0.25
_BETWEEN_LOOKS_S = 0.05
_REMEMBER_EVERY_S = 5.0
_PR_SET_CHILD_SUBREAPER = 36
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Process:
    """A process; the moment of its start tells it from a later one with the same number."""

    pid: int
    started: str


def processes_of_proc(proc: Path = _PROC) -> dict[Process, int]:
    """Every process that has not ended, with the number of its parent, as Linux tells it: see proc(5)."""
    found = {}
    for folder in proc.iterdir():
        if not folder.name.isdecimal():
            continue
        with suppress(OSError, IndexError):  # it ended in the meantime
            # The name of the program is in brackets, and may itself hold brackets and spaces.
            state, parent, *rest = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
            if state not in "ZX":
                found[Process(int(folder.name), rest[17])] = int(parent)
    return found


def processes_of_ps() -> dict[Process, int]:
    """Every process that has not ended, with the number of its parent, as ps tells it on any Unix."""
    ps = subprocess.Popen(
        ["ps", "-axo", "pid=,ppid=,state=,lstart="],
        stdout=subprocess.PIPE,
        text=True,
        errors="replace",
        env={**os.environ, "LC_ALL": "C"},
    )
    listed, _ = ps.communicate()
    if ps.returncode:
        raise subprocess.CalledProcessError(ps.returncode, ps.args)
    found = {}
    for line in listed.splitlines():
        pid, parent, state, started = line.split(None, 3)
        if not state.startswith("Z") and int(pid) != ps.pid:
            found[Process(int(pid), started)] = int(parent)
    return found


def adopt_orphans() -> bool:
    """Make orphaned descendants children of this process; False where the system has no such thing."""
    if not sys.platform.startswith("linux"):
        return False
    return bool(ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def reap() -> dict[int, int]:
    """Let go of children that have ended, orphans among them; return their exit codes by number.

    As in `subprocess`, a process that a signal ended has its number, negative.
    """
    ended = {}
    with suppress(ChildProcessError):  # there are no children
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            ended[found[0]] = os.waitstatus_to_exitcode(found[1])
    return ended


class ProcessTree:
    """The descendants of this process: those that descend from it now, and those that once did."""

    def __init__(self, look: Callable[[], dict[Process, int]] | None = None) -> None:
        self._look = look or (processes_of_proc if sys.platform.startswith("linux") else processes_of_ps)
        self._known: set[Process] = set()

    def living(self) -> dict[Process, int]:
        """The descendants that have not ended, with their generation: 1 for children and for orphans."""
        parents = self._look()
        by_pid = {process.pid: process for process in parents}
        generations: dict[Process, int] = {}
        for process in parents:
            line = [process]
            while (parent := by_pid.get(parents[line[-1]])) is not None and parent not in line:
                line.append(parent)
            ours = [place for place, ancestor in enumerate(line) if ancestor.pid == os.getpid()]
            # Elsewhere than on Linux an orphan descends from us no more; what was seen once is known.
            lost = [place + 1 for place, ancestor in enumerate(line) if ancestor in self._known]
            if generation := ours[0] if ours else max(lost, default=0):
                generations[process] = generation
        self._known = set(generations)
        return generations

    def end(self, hurry: Callable[[float], bool]) -> list[Process]:
        """End all descendants; `hurry` waits so many s, or less, and says whether to kill at once. Returns those left.

        A child is asked after its parent, which may end it in an orderly way by itself.
        """
        began, hurried = time.monotonic(), False
        asked: set[Process] = set()
        while living := self._reaped():
            passed = time.monotonic() - began
            if passed > LONGEST_S:
                break
            killing = hurried or passed > KILL_AFTER_S
            for process, generation in living.items():
                due_s = 0.0 if generation == 1 else FIRST_S + (generation - 2) * _BETWEEN_GENERATIONS_S
                if killing:
                    _signal(process, signal.SIGKILL)
                elif passed >= due_s and process not in asked:
                    asked.add(process)
                    _signal(process, signal.SIGTERM)
            hurried = hurry(_BETWEEN_LOOKS_S) or hurried
        return list(living)

    def _reaped(self) -> dict[Process, int]:
        reap()
        return self.living()


class Keeper:
    """Runs the command and waits for what ends it."""

    def __init__(self, note: Path, command: Sequence[str]) -> None:
        self._note = note
        self._command = command
        self._tree = ProcessTree()
        self._leash = True
        self._woken, self._wake = os.pipe()

    def run(self) -> int:
        """Run the command to its end; return the exit code of this program."""
        adopted = adopt_orphans()
        os.set_blocking(self._wake, False)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        # Where ps tells of processes, each look would end with a SIGCHLD of its own: there the end is seen at a look.
        for number in (*_STOP_SIGNALS, *([signal.SIGCHLD] if adopted else [])):
            # Handlers and not SIG_IGN, which the command would inherit.
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, lambda *_: None)
        child = subprocess.Popen(self._command, stdin=subprocess.DEVNULL)
        while child.returncode is None and not self._told(None if adopted else _REMEMBER_EVERY_S):
            child.returncode = reap().get(child.pid)
            if not adopted:
                with suppress(OSError, subprocess.SubprocessError):  # ps could not run now
                    self._tree.living()
        code = child.returncode
        note_the_stop(self._note)
        left = self._tree.end(self._told)
        for process in left:
            print(f"process {process.pid} does not end, not even by SIGKILL", file=sys.stderr)
        if left:
            return SOME_LEFT
        return 0 if code is None else code if code >= 0 else 128 - code

    def _told(self, timeout_s: float | None) -> bool:
        """Wait until something happens, at most so long; whether it was an order to stop."""
        ready, _, _ = select.select([self._woken, *([sys.stdin] if self._leash else [])], [], [], timeout_s)
        stop = False
        if sys.stdin in ready:
            said = os.read(sys.stdin.fileno(), 1024)
            self._leash = bool(said)
            stop = True
        if self._woken in ready:
            stop |= any(number in _STOP_SIGNALS for number in os.read(self._woken, 1024))
        return stop


def note_the_stop(path: Path) -> None:
    """Write the time into the note, unless there is one already."""
    try:
        with path.open("x", encoding="ascii") as file:
            file.write(repr(time.time()))
    except FileExistsError:
        pass
    except OSError as error:  # a full disk must not keep processes alive
        print(f"cannot write {path}: {error.strerror}", file=sys.stderr)


def _signal(process: Process, number: int) -> None:
    with suppress(OSError):  # it ended in the meantime, or belongs to somebody else
        os.kill(process.pid, number)


if __name__ == "__main__":
    sys.exit(Keeper(Path(sys.argv[1]), sys.argv[2:]).run())
