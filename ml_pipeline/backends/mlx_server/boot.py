"""What runs on the training host in place of the command mlx_lm.server: the same server, with three things added.

This file is not imported there: the guard hands its text to Python. Its arguments are two descriptors, then those of
mlx_lm.server.

- It ends with the guard: only the guard holds the other end of the first descriptor.
- It writes its port to the second one once it listens. The port is of the kernel's choosing (--port 0), so nobody else
  can take it in between.
- An adapter with a tensor that the model does not have is refused. Older versions of mlx-lm load what fits and leave
  out the rest without a word.
"""

from __future__ import annotations

import os
import socketserver
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any


def end_with_the_guard(lifeline: int) -> None:
    """Wait for the guard's end in the background, and end at once then."""

    def wait() -> None:
        os.read(lifeline, 1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def report_port(descriptor: int) -> None:
    """Have every server of this process write its port once it listens."""
    kind: Any = socketserver.TCPServer
    activate = kind.server_activate

    def activate_and_report(server: Any) -> None:
        activate(server)
        os.write(descriptor, b"%d\n" % server.server_address[1])

    kind.server_activate = activate_and_report


def refuse_what_does_not_fit(utils: Any) -> None:
    """Check after each loading of an adapter that every tensor of its file is one of the model's."""
    import mlx.core as mx
    from mlx.utils import tree_flatten

    load_adapters = utils.load_adapters

    def load_and_check(model: Any, adapter_path: str) -> Any:
        loaded = load_adapters(model, adapter_path)
        names: set[Any] = {pair[0] for pair in tree_flatten(loaded.parameters())}
        weights: Any = mx.load(str(Path(adapter_path, "adapters.safetensors")))
        foreign = sorted(weights.keys() - names)
        if foreign:
            raise ValueError(f"{len(foreign)} tensors are not of this model, such as {foreign[0]}")
        return loaded

    utils.load_adapters = load_and_check


def main() -> None:
    """Run the server until it ends."""
    sys.path[:] = [folder for folder in sys.path if folder]
    end_with_the_guard(int(sys.argv[1]))
    report_port(int(sys.argv[2]))
    sys.argv[:] = ["mlx_lm.server", *sys.argv[3:]]
    from mlx_lm import server, utils

    refuse_what_does_not_fit(utils)
    run: Callable[[], None] = server.main
    run()


if __name__ == "__main__":
    main()
