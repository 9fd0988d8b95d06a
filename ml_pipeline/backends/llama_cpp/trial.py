"""Tries llama.cpp out in a child process before this one relies on it: a crash there is a reason, here it is the end.

A build of the library for one CPU can crash on another, or with weights of one type (seen: AMX kernels with Q4_1). So
the first time that a build, a CPU, a model file and the options that choose kernels come together, a child loads the
model and decodes in the shapes that a run uses. Where it dies, safer ways are tried in turn; see `Kernels.safer`.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shlex
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ml_pipeline.adapters.file_hash import file_sha256
from ml_pipeline.backends.kernels import Kernels, KernelTrial, ProvenKernels
from ml_pipeline.backends.llama_cpp.model import KvType
from ml_pipeline.backends.trials import Death, TrialError, TrialRecords, files_hash, run_trial
from ml_pipeline.errors import BackendError

_DECODES = "ml_pipeline.backends.llama_cpp.trial_decode"
_CONTEXT_TOKENS = 128
_LEAST_LIMIT_S = 120.0
_SLOWEST_LOAD_BYTES_A_S = 10e6


@dataclass(frozen=True, slots=True)
class ModelShape:
    """How a run loads a model: as `LoadedModel` takes it."""

    gguf: Path
    sequences: int
    context_tokens: int
    gpu_layers: int
    kv_type: KvType
    weights: Path | None


def proven_kernels(shape: ModelShape, usual: Kernels, records: Path | None) -> ProvenKernels:
    """The usual kernels, or the first of the safer ones with which a child decodes; kept in the folder `records`.

    Without a folder what was found out lasts as long as the process. Raises BackendError: see `KernelTrial.proven`.
    """
    # What chooses kernels or libraries by the environment, as GGML_CPU_... and LLAMA_CPP_LIB_PATH do.
    environment = {name: value for name, value in sorted(os.environ.items()) if name.startswith(("GGML_", "LLAMA_"))}
    trial = KernelTrial(
        program="llama.cpp",
        model=str(shape.gguf),
        build=build_name(),
        ways_out=ways_out(),
        depends_on={
            "library": files_hash(_library_folder()),
            "environment": environment,
            "model": file_sha256(shape.gguf),
            "weights": "decoded" if shape.weights not in (None, shape.gguf) else "stored",
            "options": [shape.sequences, shape.gpu_layers, shape.kv_type],
        },
    )
    return trial.proven(usual, TrialRecords(records), lambda kernels: _try_out(shape, kernels))


def ways_out() -> str:
    """What a user can do where llama.cpp crashes; the command installs the same version, into this environment."""
    return (
        "Install another build of llama-cpp-python: a prebuilt one, or one without this CPU's own instructions "
        f'(CMAKE_ARGS="-DGGML_NATIVE=OFF" {shlex.quote(sys.executable)} -m pip install --force-reinstall '
        f"--no-cache-dir --no-deps --no-binary llama-cpp-python llama-cpp-python=={_version()}). "
        "Or set weights: f16, or another backend, in pipeline.yaml."
    )


def build_name() -> str:
    """This build of the library: the package's version, and where its files lie."""
    return f"llama-cpp-python {_version()} in {_library_folder()}"


def _version() -> str:
    return importlib.metadata.version("llama-cpp-python")


def _library_folder() -> Path:
    if own := os.environ.get("LLAMA_CPP_LIB_PATH"):
        return Path(own)
    # Found without importing it, since that loads it.
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or not spec.submodule_search_locations:
        raise BackendError("llama-cpp-python is not installed. Install it with: pip install llama-cpp-python")
    return Path(next(iter(spec.submodule_search_locations))) / "lib"


def _try_out(shape: ModelShape, kernels: Kernels) -> Death | str | None:
    files: dict[str, Any] = {"gguf": str(shape.gguf), "weights": None if shape.weights is None else str(shape.weights)}
    # A long context takes seconds to be made, and no other kernels.
    context = {"context_tokens": min(shape.context_tokens, _CONTEXT_TOKENS)}
    task = {"shape": asdict(shape) | files | context, "kernels": asdict(kernels)}
    # A load from a slow disk, with weights repacked, is no hang.
    size_bytes = (shape.weights or shape.gguf).stat().st_size
    try:
        answer = run_trial(_DECODES, task, limit_s=_LEAST_LIMIT_S + size_bytes / _SLOWEST_LOAD_BYTES_A_S)
    except TrialError as error:
        return str(error)
    return answer if isinstance(answer, Death) else None
