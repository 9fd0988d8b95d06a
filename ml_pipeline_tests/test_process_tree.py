"""A command and everything that it started ends, with real processes that do not want to."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ml_pipeline import process_tree
from ml_pipeline.process_tree import LONGEST_S, Process, processes_of_proc, processes_of_ps

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux gives orphans to a grandparent")
CHILDREN = """
import os, signal, subprocess, sys, time
folder, name, *below = sys.argv[1:]
if "deaf" in name:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
if "orderly" in name:
    def end(*_):
        open(os.path.join(folder, name + ".asked"), "w").close()
        sys.exit(7)
    signal.signal(signal.SIGTERM, end)
if below:
    # A session of its own, as a process group that Ctrl-C does not reach.
    child = subprocess.Popen([sys.executable, sys.argv[0], folder, *below], start_new_session=True)
    while not os.path.exists(os.path.join(folder, f"{child.pid}.pid")):
        time.sleep(0.02)
open(os.path.join(folder, f"{os.getpid()}.pid"), "w").close()
if "orphaning" not in name:
    time.sleep(600)
"""
AS_ON_A_MAC = """
import sys
from pathlib import Path
from ml_pipeline import process_tree
looks = 0
def look():
    global looks
    looks += 1
    Path(sys.argv[1]).with_name("looks").write_text(str(looks))
    return process_tree.processes_of_ps()
process_tree.adopt_orphans = lambda: False
process_tree.processes_of_proc = look
process_tree._REMEMBER_EVERY_S = 0.5
sys.exit(process_tree.Keeper(Path(sys.argv[1]), sys.argv[2:]).run())
"""
"""What there is without prctl and /proc."""
COMMAND = """
import sys
from pathlib import Path
from ml_pipeline.cli.dev import KeptCommand
with Path(sys.argv[1]).with_name("lock").open("w") as lock:
    kept = KeptCommand(Path(sys.argv[1]), sys.argv[2:], lock)
    kept.wait()
print(kept.stopped_by, kept.exit_code, kept.left)
"""
"""What `ml-pipeline dev` does around its keeper."""
KEEPER = ("-I", process_tree.__file__)
DEAF_AND_DEEP = ("deaf-top", "orphaning-middle", "deaf-leaf", "orderly-lowest")


class Kept:
    """A keeper that runs CHILDREN, each the parent of the next."""

    def __init__(self, folder: Path, names: tuple[str, ...], *keeper: str) -> None:
        self.folder = folder
        self.note = folder / "note"
        script = folder / "children.py"
        script.write_text(CHILDREN)
        self.process = subprocess.Popen(
            [sys.executable, *(keeper or KEEPER), self.note, sys.executable, script, folder, *names],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        wait_for(lambda: len(self.pids()) == len(names))

    def pids(self) -> list[int]:
        return [int(path.stem) for path in self.folder.glob("*.pid")]

    def living(self) -> list[int]:
        there = {process.pid for process in processes_of_proc()}
        return [pid for pid in self.pids() if pid in there]

    def say(self, words: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(words)
        self.process.stdin.flush()

    def seconds_to_the_end(self) -> float:
        began = time.monotonic()
        wait_for(lambda: not self.living())
        return time.monotonic() - began


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def keep(tmp_path: Path) -> Iterator[Callable[..., Kept]]:
    started: list[Kept] = []

    def start(*names: str, keeper: tuple[str, ...] = ()) -> Kept:
        started.append(Kept(tmp_path, names, *keeper))
        return started[-1]

    yield start
    for kept in started:
        kept.process.kill()
        kept.process.wait()
        for stream in (kept.process.stdin, kept.process.stdout, kept.process.stderr):
            if stream is not None:
                stream.close()
        for pid in kept.living():
            os.kill(pid, signal.SIGKILL)


@LINUX
@pytest.mark.parametrize("how", ["order", "leash", "SIGTERM", "SIGHUP", "SIGINT"])
def test_deaf_orphaned_and_deep_descendants_end_in_time(keep: Callable[..., Kept], how: str) -> None:
    kept = keep(*DEAF_AND_DEEP)
    wait_for(lambda: len(kept.living()) == 3)  # the one that orphans is gone
    before = time.time()
    if how == "order":
        kept.say(b"stop\n")
    elif how == "leash":
        assert kept.process.stdin is not None
        kept.process.stdin.close()
    else:
        kept.process.send_signal(getattr(signal, how))
    assert kept.seconds_to_the_end() < LONGEST_S
    assert kept.process.wait(5) == 0
    assert (kept.folder / "orderly-lowest.asked").exists(), "asked before it is killed"
    assert before <= float(kept.note.read_text()) <= time.time()


@LINUX
def test_a_second_order_kills_at_once(keep: Callable[..., Kept]) -> None:
    kept = keep("deaf-top", "deaf-leaf")
    kept.say(b"stop\n")
    time.sleep(0.3)
    assert kept.living()
    kept.say(b"stop\n")
    assert kept.seconds_to_the_end() < 1
    assert kept.process.wait(5) == 0


@LINUX
def test_those_that_listen_are_not_killed_and_parents_are_asked_first(keep: Callable[..., Kept]) -> None:
    kept = keep("orderly-top", "orderly-below")
    kept.say(b"stop\n")
    assert kept.seconds_to_the_end() < 2
    asked = [(kept.folder / f"{name}.asked").stat().st_mtime_ns for name in ("orderly-top", "orderly-below")]
    assert asked == sorted(asked)


@LINUX
def test_a_command_that_ends_by_itself_leaves_nothing_behind(keep: Callable[..., Kept]) -> None:
    kept = keep("orphaning-top", "orderly-below")
    assert kept.seconds_to_the_end() < 2
    assert kept.process.wait(5) == 0


def test_the_exit_code_of_the_command_and_an_older_note_are_kept(tmp_path: Path) -> None:
    (tmp_path / "note").write_text("1.5")
    for code, expected in (("raise SystemExit(5)", 5), ("import os; os.kill(os.getpid(), 15)", 128 + 15)):
        note = str(tmp_path / "note")
        command = [sys.executable, "-I", process_tree.__file__, note, sys.executable, "-c", code]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
            assert process.wait(30) == expected
    assert (tmp_path / "note").read_text() == "1.5"
    assert [path.name for path in tmp_path.iterdir()] == ["note"]


@LINUX
def test_proc_and_ps_tell_the_same_of_a_process_with_an_odd_name(tmp_path: Path) -> None:
    odd = tmp_path / "a) b (c"
    odd.symlink_to(sys.executable)
    with subprocess.Popen([str(odd), "-c", "import time; time.sleep(600)"]) as process:
        try:
            for look in (processes_of_proc, processes_of_ps):
                (parent,) = [parent for found, parent in look().items() if found.pid == process.pid]
                assert parent == os.getpid()
        finally:
            process.kill()
        process.wait()
        assert all(process.pid not in {found.pid for found in look()} for look in (processes_of_proc, processes_of_ps))


@LINUX
def test_with_ps_alone_what_was_seen_ends_too_and_ps_is_not_run_all_the_time(keep: Callable[..., Kept]) -> None:
    kept = keep("deaf-top", "orderly-middle", "deaf-leaf", keeper=("-c", AS_ON_A_MAC))
    looks = kept.folder / "looks"
    wait_for(looks.exists)
    time.sleep(2)
    parents = {found.pid: parent for found, parent in processes_of_proc().items()}
    (top,) = [pid for pid in kept.pids() if parents[pid] == kept.process.pid]
    (middle,) = [pid for pid in kept.pids() if parents[pid] == top]
    os.kill(middle, signal.SIGKILL)  # now the leaf descends from the keeper no more
    before = int(looks.read_text())
    time.sleep(2)
    assert int(looks.read_text()) - before <= 2 / 0.5 + 1
    assert len(kept.living()) == 2
    kept.say(b"stop\n")
    assert kept.seconds_to_the_end() < LONGEST_S
    assert kept.process.wait(5) == 0


@LINUX
@pytest.mark.parametrize(
    ("number", "whom", "said"),
    [
        (signal.SIGTERM, "command", "15 0 False"),
        (signal.SIGHUP, "command", "1 0 False"),
        (signal.SIGINT, "command", "2 0 False"),
        (signal.SIGKILL, "command", ""),
        (signal.SIGKILL, "keeper", "None -9 False"),
    ],
)
def test_all_ends_with_the_command_and_with_its_keeper(
    keep: Callable[..., Kept], number: signal.Signals, whom: str, said: str
) -> None:
    kept = keep(*DEAF_AND_DEEP, keeper=("-c", COMMAND))
    (keeper,) = [found.pid for found, parent in processes_of_proc().items() if parent == kept.process.pid]
    os.kill(kept.process.pid if whom == "command" else keeper, number)
    assert kept.seconds_to_the_end() < LONGEST_S
    assert kept.process.communicate(timeout=5)[0].decode().strip() == said
    assert kept.note.exists()
    with (kept.folder / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody has it open any more


def test_without_a_grandparent_for_orphans_what_was_seen_is_remembered() -> None:
    """As on a Mac: a table of processes that changes, for a process that descends from this one, then from 1."""
    child, grandchild, other = Process(2_000_001, "10:00"), Process(2_000_002, "10:01"), Process(2_000_003, "9:00")
    late = Process(2_000_004, "10:05")
    table = {Process(os.getpid(), "8:00"): 1, child: os.getpid(), grandchild: child.pid, other: 1}
    tree = process_tree.ProcessTree(lambda: table)
    assert tree.living() == {child: 1, grandchild: 2}
    table = {Process(os.getpid(), "8:00"): 1, grandchild: 1, other: 1, late: grandchild.pid}
    assert tree.living() == {grandchild: 1, late: 2}
    table = {Process(os.getpid(), "8:00"): 1, Process(grandchild.pid, "11:00"): 1, other: 1}
    assert tree.living() == {}, "another process with its number"
