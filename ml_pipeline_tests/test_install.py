"""What `make setup` runs pip with: signs of life, nothing lost on failure, honest exit codes; Ctrl-C ends it all."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ml_pipeline_tests.project import REPOSITORY

EVERY_S = 0.3
RUN = """
import sys
from pathlib import Path
from install import main
sys.exit(main(Path("log"), sys.argv[2:], float(sys.argv[1])))
"""


def started(folder: Path, *command: str, every_s: float = 60) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(every_s), *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "60"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(folder: Path, script: str, every_s: float = 60) -> tuple[int, str, str]:
    process = started(folder, sys.executable, "-u", "-c", script, every_s=every_s)
    output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors


def test_the_time_and_the_last_line_are_shown_while_it_runs(tmp_path: Path) -> None:
    script = f"""
import sys, time
print("[ 1/9] Building CXX object", end="\\n\\n"); time.sleep({EVERY_S * 4})
print("\\33[2J[ 2/9] " + "x" * 99, file=sys.stderr); time.sleep({EVERY_S * 4})
"""
    code, output, errors = finished(tmp_path, script, EVERY_S)
    assert (code, errors) == (0, "")
    lines = output.splitlines()
    assert any(re.fullmatch(r"  0:\d\d  \[ 1/9\] Building CXX object", line) for line in lines)
    cut = [line for line in lines if "[ 2/9]" in line]
    assert cut
    assert all(len(line) == 60 and line.endswith("...") and "\33" not in line for line in cut)
    assert (tmp_path / "log").read_text().startswith("[ 1/9] Building CXX object\n\n\33[2J[ 2/9] xxx")


def test_nothing_is_shown_of_what_goes_well_and_is_quick(tmp_path: Path) -> None:
    assert finished(tmp_path, "print('Successfully installed')") == (0, "", "")


@pytest.mark.parametrize(
    ("last", "code"), [("raise SystemExit(3)", 3), ("import os; os.kill(os.getpid(), 9)", 128 + signal.SIGKILL)]
)
def test_a_failure_shows_the_end_names_the_file_and_keeps_everything(tmp_path: Path, last: str, code: int) -> None:
    found, output, errors = finished(tmp_path, f"for number in range(1000): print('line', number)\n{last}")
    assert (found, output) == (code, "")
    lines = errors.splitlines()
    assert lines[:40] == [f"line {number}" for number in range(960, 1000)]
    assert lines[-1].endswith("Everything that was printed: log")
    assert (tmp_path / "log").read_text().splitlines() == [f"line {number}" for number in range(1000)]


def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    process = started(tmp_path, "no-such-command")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 127
    assert "cannot run no-such-command: No such file" in errors


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_also_what_the_command_started(tmp_path: Path, number: signal.Signals) -> None:
    """A compiler that the build started, which hears of no signal that only its parents get."""
    script = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
print(child.pid, flush=True)
child.wait()
"""
    process = started(tmp_path, sys.executable, "-c", script)
    log = tmp_path / "log"
    deadline = time.monotonic() + 30
    while not (log.is_file() and log.read_text().endswith("\n")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    grandchild = int(log.read_text())
    os.kill(grandchild, 0)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Interrupted after 0:0" in errors
    with pytest.raises(ProcessLookupError):
        os.kill(grandchild, 0)
