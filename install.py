"""Runs a command that says nothing for minutes, such as an installation, and shows that it is alive.

    python install.py LOG COMMAND...

Everything that the command prints goes into the file LOG; every 15 s the time so far and its last line are shown. When
it fails, the end of LOG is shown and the file is named. The exit code is the command's (128 + N when signal N ended
it), 130 after Ctrl-C or SIGTERM, which end the command and all that it started. Needs nothing that is yet to be
installed.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

from ml_pipeline.process_tree import ProcessTree, adopt_orphans

EVERY_S = 15.0
SHOWN_ON_FAILURE = 40
_LAST_BYTES = 8192


def main(log: Path, command: list[str], every_s: float = EVERY_S) -> int:
    """Run the command to its end; return the exit code."""
    adopt_orphans()
    # As Ctrl-C, so that the command does not go on alone.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = time.monotonic()
    with log.open("wb") as output:
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        except OSError as error:
            print(f"cannot run {command[0]}: {error.strerror}", file=sys.stderr)
            return 127
    try:
        while (code := _wait(process, every_s)) is None:
            say(f"  {_minutes(time.monotonic() - began)}  {last_line(log)}")
    except KeyboardInterrupt:
        ProcessTree().end(_pause)
        print(f"\nInterrupted after {_minutes(time.monotonic() - began)}. What was printed: {log}", file=sys.stderr)
        return 130
    if code:
        with log.open(errors="replace") as lines:
            print("".join(deque(lines, SHOWN_ON_FAILURE)), file=sys.stderr)
        print(f"Failed after {_minutes(time.monotonic() - began)}. Everything that was printed: {log}", file=sys.stderr)
    return code if code >= 0 else 128 - code


def say(line: str) -> None:
    """Print one line, no longer than the terminal is wide."""
    width = shutil.get_terminal_size((120, 0)).columns
    print(line if len(line) <= width else f"{line[: width - 3]}...", flush=True)


def last_line(log: Path) -> str:
    """The last line of a file that has anything in it, without what would move the cursor."""
    with log.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _LAST_BYTES))
        lines = file.read().decode(errors="replace").replace("\r", "\n").splitlines()
    full = [line.strip() for line in lines if line.strip()]
    return "".join(letter for letter in full[-1] if letter.isprintable()) if full else "..."


def _pause(seconds: float) -> bool:
    """Wait; True when Ctrl-C was pressed once more."""
    try:
        time.sleep(seconds)
    except KeyboardInterrupt:
        return True
    return False


def _wait(process: subprocess.Popen[bytes], timeout_s: float) -> int | None:
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return None


def _minutes(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
