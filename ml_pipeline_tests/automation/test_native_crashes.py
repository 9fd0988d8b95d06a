"""A process that a native library ends leaves word: at which checkpoint, and by which signal."""

from __future__ import annotations

import faulthandler
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ml_pipeline.automation.native_crashes import UnderWay, crash_notes, crash_of, crashed_runs
from ml_pipeline.automation.run_locks import record_crashes, recorded_crash, recorded_crashes, report_dead_runs
from ml_pipeline_tests.automation.test_run_locks import started_run, status

DOOMED = """
import ctypes, os, signal, sys
from pathlib import Path
from ml_pipeline.automation.native_crashes import UnderWay, crash_notes
from ml_pipeline.automation.run_locks import run_lock

def native_call():
    if sys.argv[3] == "read":
        ctypes.string_at(0)
    os.kill(os.getpid(), int(sys.argv[3]))

folder = Path(sys.argv[1])
with run_lock(folder, sys.argv[2]), crash_notes(folder, sys.argv[2]) as notes:
    notes.under_way(UnderWay("mac.run@100", "5 600"))
    notes.under_way(None if len(sys.argv) < 5 else UnderWay(*sys.argv[4:]))
    native_call()
"""


def doomed(folder: Path, run_id: str, how: str, *work: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", DOOMED, str(folder), run_id, how, *work]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("how", "signal_number", "words"),
    [
        ("read", signal.SIGSEGV, "SIGSEGV (Segmentation fault)"),
        (str(int(signal.SIGABRT)), signal.SIGABRT, "SIGABRT (Aborted)"),
        (str(int(signal.SIGBUS)), signal.SIGBUS, "SIGBUS (Bus error)"),
        (str(int(signal.SIGILL)), signal.SIGILL, "SIGILL (Illegal instruction)"),
    ],
)
def test_a_crash_is_a_sentence(tmp_path: Path, how: str, signal_number: int, words: str) -> None:
    ended = doomed(tmp_path, "r1", how, "mac.run@200", "7 800")
    assert ended.returncode == -signal_number
    assert f"The process of run r1 was ended by {words} while it scored mac.run@200, in " in ended.stderr
    crash = crash_of(tmp_path, "r1")
    assert crash is not None
    assert (crash.work, crash.signal) == (UnderWay("mac.run@200", "7 800"), words)
    assert crash.where in (", in <string>, native_call", ", in __init__.py, string_at")
    assert crashed_runs(tmp_path) == ["r1"]


def test_before_the_first_checkpoint_none_is_to_blame(tmp_path: Path) -> None:
    ended = doomed(tmp_path, "r1", "read")
    assert "was ended by SIGSEGV (Segmentation fault) before it scored a checkpoint" in ended.stderr
    crash = crash_of(tmp_path, "r1")
    assert crash is not None
    assert crash.work is None
    assert "left out" not in str(crash)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_is_killed_did_not_crash(tmp_path: Path, number: int) -> None:
    ended = doomed(tmp_path, "r1", str(int(number)), "mac.run@200")
    assert ended.returncode == -number
    assert "was ended by" not in ended.stderr
    assert crash_of(tmp_path, "r1") is None


def test_an_orderly_end_leaves_nothing(tmp_path: Path) -> None:
    was_enabled = faulthandler.is_enabled()
    with crash_notes(tmp_path, "r1") as notes:
        notes.under_way(UnderWay("mac.run@100", "5 600"))
        assert crashed_runs(tmp_path) == ["r1"]
    with pytest.raises(ZeroDivisionError), crash_notes(tmp_path, "r2"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
    assert faulthandler.is_enabled() == was_enabled


def test_a_run_that_crashed_says_so_in_its_record(tmp_path: Path) -> None:
    locks = tmp_path / "locks"
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        run, other = started_run(instance), started_run(instance)
        doomed(locks, run.run_id, "read", "mac.run@200", "7 800")
        with crash_notes(locks, other.run_id):
            assert report_dead_runs(locks, instance) == [run.run_id]
        assert status(instance, run) == dg.DagsterRunStatus.FAILURE
        found = recorded_crash(instance.get_run_by_id(run.run_id))
        assert found is not None
        assert found.is_of("mac.run@200", "7 800")
        assert not found.is_of("mac.run@200", "7 801"), "training has overwritten it since"
        assert not found.is_of("mac.run@100", "7 800")
        assert "was ended by SIGSEGV (Segmentation fault) while it scored mac.run@200" in found.why
        assert "--filter names it" in found.why
        events = [entry.dagster_event for entry in instance.all_logs(run.run_id)]
        said = " ".join(event.message or "" for event in events if event is not None)
        assert (
            "The process of this run was ended by SIGSEGV (Segmentation fault). Finished checkpoints are kept" in said
        )
        assert found.why in said
        assert recorded_crash(instance.get_run_by_id(other.run_id)) is None
        assert recorded_crashes(instance) == [found]
        assert list(locks.iterdir()) == []
        record_crashes(locks, instance)
        assert recorded_crashes(instance) == [found]


def test_a_crash_at_judging_names_the_file(tmp_path: Path) -> None:
    ended = doomed(tmp_path, "r1", "read", "answers.jsonl")
    assert "was ended by SIGSEGV (Segmentation fault) while it judged answers.jsonl, in " in ended.stderr
    assert "this file is left out" in ended.stderr
    assert "checkpoint" not in ended.stderr


def test_a_run_that_was_killed_says_where_it_was(tmp_path: Path) -> None:
    locks = tmp_path / "locks"
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        run = started_run(instance)
        doomed(locks, run.run_id, str(int(signal.SIGKILL)), "mac.run@200", "7 800")
        assert report_dead_runs(locks, instance) == [run.run_id]
        said = " ".join(
            entry.dagster_event.message or "" for entry in instance.all_logs(run.run_id) if entry.dagster_event
        )
        assert "ended without a word while it scored mac.run@200. It may have been killed (SIGKILL)" in said
        assert recorded_crashes(instance) == []


@pytest.mark.parametrize("where", ["the folder", "the watcher"])
def test_a_run_goes_on_where_nothing_can_be_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    locks = tmp_path / "locks"
    if where == "the folder":
        locks.write_text("no folder")
    else:
        monkeypatch.setattr(sys, "executable", "")
    was_enabled = faulthandler.is_enabled()
    with crash_notes(locks, "r1") as notes:
        notes.under_way(UnderWay("mac.run@100", "5 600"))
    assert faulthandler.is_enabled() == was_enabled
    assert "Should a native library crash" in caplog.text


def test_a_killed_watcher_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def starting(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(start(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", starting)
    with crash_notes(tmp_path, "r1"):
        (watcher,) = started
        watcher.kill()
        watcher.wait()
    assert list(tmp_path.iterdir()) == []
