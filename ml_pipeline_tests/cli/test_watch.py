from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from ml_pipeline.automation.activity import ActiveRun, Activity
from ml_pipeline.cli.watch_view import Moment, changes
from ml_pipeline.reports.intervals import Estimate
from ml_pipeline.reports.latest import LatestScore
from ml_pipeline_tests.cli.lab import Lab, eight, fits, words
from ml_pipeline_tests.project import REPOSITORY

AT = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    lab = Lab(tmp_path, monkeypatch)
    lab.put(eight("a"), eight("a", "b", iteration=10))
    return lab


def start(lab: Lab, *arguments: str, **how: object) -> subprocess.Popen[str]:
    program = "from ml_pipeline.cli.program import run; run()"
    command = [sys.executable, "-c", program, "watch", "--interval", "0.5", *arguments]
    env = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(command, cwd=lab.root, env=env, text=True, stderr=subprocess.PIPE, **how)  # type: ignore[call-overload, no-any-return]


def test_one_look(lab: Lab) -> None:
    text = lab.shown("watch", "--once")
    assert fits(text)
    assert "nothing is being scored" in text
    assert "mac.lek+a@10 capability 25% [7–59]" in words(text)  # noqa: RUF001 - an en dash
    told = lab.json("watch", "--once")
    assert (told["active"], told["queued_runs"], told["failures"], told["trouble"]) == ([], 0, {}, None)
    assert {score["partition_key"]: score["delta_to_base"] for score in told["latest"]} == {
        "mac.lek+a@10": 1 / 8,
        "base.tiny@0": None,
    }


def test_lines_where_there_is_no_terminal_and_a_held_database_is_waited_for(lab: Lab) -> None:
    with start(lab, stdout=subprocess.PIPE) as watching:
        assert watching.stdout is not None
        first = [watching.stdout.readline() for _ in range(3)]
        assert "nothing is being scored" in first[0]
        scored = "scored mac.lek+a@10: capability 25% [7–59] of 8 answers, +12 against the base"  # noqa: RUF001
        assert any(scored in line for line in first)
        with duckdb.connect(str(lab.settings.duckdb_path)):  # as a writer of another program holds it
            time.sleep(2.5)
        lab.put(eight(*"abcd", iteration=20))
        line = watching.stdout.readline()
        assert "scored mac.lek+a@20: capability 50%" in line
        watching.send_signal(signal.SIGINT)
        rest, errors = watching.communicate(timeout=30)
    assert (watching.returncode, rest, errors) == (130, "", "")


def test_json_lines_come_with_every_change(lab: Lab) -> None:
    with start(lab, "--json", stdout=subprocess.PIPE) as watching:
        assert watching.stdout is not None
        assert len(json.loads(watching.stdout.readline())["latest"]) == 2
        lab.put(eight(*"abcd", iteration=20))
        assert len(json.loads(watching.stdout.readline())["latest"]) == 3
        watching.send_signal(signal.SIGINT)
        watching.communicate(timeout=30)


def test_a_live_page_that_ends_with_ctrl_c(lab: Lab) -> None:
    ours, theirs = pty.openpty()
    with start(lab, stdin=theirs, stdout=theirs, start_new_session=True) as watching:
        os.close(theirs)
        shown = read_until(ours, "Latest scores")
        lab.put(eight(*"abcd", iteration=20))
        shown += read_until(ours, "mac.lek+a@20")
        watching.send_signal(signal.SIGINT)
        assert watching.wait(timeout=30) == 130
        shown += read_until(ours, None)
    os.close(ours)
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l"), "the cursor is shown again"
    assert "Traceback" not in shown


def read_until(terminal: int, words: str | None, timeout_s: float = 30) -> str:
    """What the terminal shows up to these words, or to its end."""
    text, end = "", time.monotonic() + timeout_s
    while time.monotonic() < end and (words is None or words not in text):
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                text += os.read(terminal, 65536).decode(errors="replace")
            except OSError:  # how Linux says that the other end is closed
                return text
    assert words is None or words in text, text
    return text


def test_each_change_is_told_once() -> None:
    run = ActiveRun("r1", AT, (), "mac.x@1", ("mac.x@2",), "")
    later = ActiveRun("r1", AT, ("mac.x@1",), "mac.x@2", (), "")
    score = LatestScore("mac.x@1", "capability", Estimate(0.5, 0.2, 0.8, 8), 0.25, AT + timedelta(seconds=5))
    before = Moment(AT, Activity((), 0, {}), (), "")
    first = Moment(AT, Activity((run,), 0, {}), (), "")
    second = Moment(AT, Activity((later,), 0, {"mac.y@1": "no\nheader \x1b[2J"}), (score,), "")
    assert [without_time(line) for line in changes(first, before)] == [
        "2 checkpoints left to score",
        "scoring mac.x@1, 0 of 2 checkpoints done",
    ]
    assert [without_time(line) for line in changes(second, first)] == [
        "scored mac.x@1: capability 50% [20–80] of 8 answers, +25 against the base",  # noqa: RUF001 - an en dash
        "scoring mac.x@2, 1 of 2 checkpoints done",
        "failed mac.y@1: no header  [2J",
    ]
    assert list(changes(second, second)) == []


def without_time(line: str) -> str:
    time_of_day, _, told = line.partition(" ")
    assert re.fullmatch(r"\d\d:\d\d:\d\d", time_of_day)
    return told
