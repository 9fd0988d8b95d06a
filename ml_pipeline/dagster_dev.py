"""`dagster dev`, with our web server in the place of Dagster's: `python -m ml_pipeline.dagster_dev`.

Dagster has no way to name another web server, or to add to it. It starts it as a process of its own, and that is where
it is exchanged: `python -m dagster_webserver` becomes `python -m ml_pipeline.web_server`, its arguments as they were.
"""

from __future__ import annotations

import runpy
import subprocess
import sys
from typing import Any

ADDRESS_ENV = "ML_PIPELINE_UI_ADDRESS"
"""For the web server: `links.dagster` of pipeline.yaml, the address under which people reach it, as behind a proxy."""
_THEIRS, _OURS, _DAEMON = "dagster_webserver", "ml_pipeline.web_server", "dagster._daemon"


class _Starting(subprocess.Popen[Any]):
    """Starts ours where Dagster asks for its own."""

    exchanged = False

    def __init__(self, args: Any, *others: Any, **named: Any) -> None:
        if isinstance(args, list) and args[1:3] == ["-m", _THEIRS]:
            args = [args[0], "-m", _OURS, *args[3:]]
            _Starting.exchanged = True
        elif isinstance(args, list) and args[1:3] == ["-m", _DAEMON] and not _Starting.exchanged:
            # Of a version that starts its web server otherwise: better none than one that anybody can ask.
            raise RuntimeError(f"this version of Dagster does not start `python -m {_THEIRS}`: report it, please")
        super().__init__(args, *others, **named)


def main() -> None:
    """Run `dagster dev` with the arguments of this command."""
    subprocess.Popen = _Starting  # type: ignore[misc]
    sys.argv[1:1] = ["dev"]
    runpy.run_module("dagster", run_name="__main__")


if __name__ == "__main__":
    main()
