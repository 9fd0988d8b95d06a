"""The native llama.cpp library: loaded once a process, told to be quiet, its complaints kept for error messages."""

from __future__ import annotations

import functools
import importlib
import os
from collections import deque
from typing import Any

from ml_pipeline.backends.cpu_threads import patient_threads
from ml_pipeline.errors import BackendError

_LOG_WARNING, _LOG_ERROR, _LOG_CONTINUED = 3, 4, 5
_KEPT_LOG_LINES = 40

_log_lines: deque[str] = deque(maxlen=_KEPT_LOG_LINES)


@functools.cache
def load_library() -> Any:
    """Import llama_cpp with its logging captured; the module's functions are llama.cpp's C functions.

    Raises:
        BackendError: the package is missing or its library does not load on this machine.
    """
    # libgomp reads this once, when it is loaded.
    added = patient_threads()
    os.environ.update(added)
    try:
        library: Any = importlib.import_module("llama_cpp")
    except (ImportError, OSError, RuntimeError) as error:
        raise BackendError(
            f"llama-cpp-python cannot be loaded: {error}. Install it with: pip install llama-cpp-python"
        ) from error
    finally:
        for name in added:
            del os.environ[name]
    _capture_log(library)
    library.llama_backend_init()
    return library


def _capture_log(library: Any) -> None:
    keep_continuation = False

    def on_log(level: int, text: bytes, _user_data: object) -> None:
        nonlocal keep_continuation
        if level != _LOG_CONTINUED:
            keep_continuation = level in (_LOG_WARNING, _LOG_ERROR)
        if keep_continuation and text:
            _log_lines.extend(line for line in text.decode("utf-8", "replace").splitlines() if line.strip())

    callback = library.llama_log_callback(on_log)
    library.llama_log_set(callback, None)
    # ctypes does not keep a callback alive for the C side: the cached module does.
    library.ml_pipeline_log_callback = callback


def forget_log() -> None:
    """Drop the lines kept so far, so that `last_log_lines` speaks of what comes next."""
    _log_lines.clear()


def last_log_lines(count: int = 4) -> str:
    """Return llama.cpp's last warnings and errors on one line, or a note that it gave none."""
    lines = list(_log_lines)[-count:]
    return " | ".join(lines) if lines else "llama.cpp gave no reason"
