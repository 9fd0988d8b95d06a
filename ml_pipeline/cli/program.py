"""The `ml-pipeline` command as a program of its own, quick to start and to end.

Importing Dagster makes over a million objects that live as long as the program. Python's collector would go through
them again and again while they come, and once more at the end: together half of the time of a command that finds
nothing new.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from contextlib import suppress

_OBJECTS_BETWEEN_COLLECTIONS = 100_000


def run() -> None:
    """Run the command, and end the process with its exit code; threads and exit handlers end as they always do."""
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS, 20, 20)
    leaving = _Leaving()
    # Registered before all others, so it runs after them.
    atexit.register(leaving.now)

    from ml_pipeline.cli import main

    try:
        main()
    except SystemExit as stop:
        leaving.exit_code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        raise
    except BaseException:
        leaving.exit_code = 1
        raise


class _Leaving:
    """Ends the process at once when everything has been said and closed."""

    exit_code = 0

    def now(self) -> None:
        for stream in (sys.stdout, sys.stderr):
            # The reader may be gone, as with `| head`.
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(self.exit_code)
