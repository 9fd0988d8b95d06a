"""Waits for the end of a scoring run's process, and where a native library crashed, says so on standard error.

Run as a child of that process, which holds the other end of its standard input: see `native_crashes.crash_notes`.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path


def watch(folder: Path, run_id: str) -> None:
    """Wait; the process writes something where it ends in an orderly way."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # They are for the process that is watched: what becomes of it is still to be said.
        signal.signal(number, signal.SIG_IGN)
    if sys.stdin.buffer.read():
        return
    from ml_pipeline.automation.native_crashes import crash_of

    if crash := crash_of(folder, run_id):
        print(f"\n{str(crash)[0].upper()}{str(crash)[1:]}", file=sys.stderr)


if __name__ == "__main__":
    watch(Path(sys.argv[1]), sys.argv[2])
