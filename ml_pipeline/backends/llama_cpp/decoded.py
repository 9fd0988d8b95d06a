"""A copy of a base model's GGUF file with its quantised weights written out as 16-bit floats.

On a CPU llama.cpp unpacks a quantised weight anew for every token of a batch, and rounds the activations to 8 bits to
multiply them; with 16-bit weights it does neither. The weights are the same ones, so the copy answers for the original:
measured on SmolLM2-135M in Q4_1, its log-probabilities are 30 times nearer to those of float32 arithmetic, and batches
take about two thirds of the time.
"""

from __future__ import annotations

import ctypes
import logging
import os
import shutil
from math import prod
from pathlib import Path

from ml_pipeline.adapters.base_gguf import file_sha256, read_base_facts
from ml_pipeline.backends.cpu_threads import physical_cores
from ml_pipeline.backends.llama_cpp.native import forget_log, last_log_lines, load_library
from ml_pipeline.backends.trials import Death, TrialError, run_trial
from ml_pipeline.errors import BackendError, StoreFullError
from ml_pipeline.files import make_folder, replacing, store_errors

_log = logging.getLogger(__name__)

_NOT_QUANTISED = frozenset({"F32", "F16", "BF16"})
_BYTES_A_WEIGHT = 2
_WRITES = "ml_pipeline.backends.llama_cpp.trial_write"
_LIMIT_S = 12 * 3600.0


def decoded_weights(gguf: Path, folder: Path) -> Path:
    """Return the copy of `gguf` in `folder`, made now unless it is there; `gguf` itself where nothing is quantised.

    The file appears whole, under the hash of its source, and can be deleted at any time.

    Raises:
        BackendError: the file is damaged, or llama.cpp cannot decode it.
        StoreFullError: there is no room for the copy.
        StoreError: the folder cannot be written to.
    """
    facts = read_base_facts(gguf)
    if facts.quantisation in _NOT_QUANTISED:
        return gguf
    copy = folder / f"{file_sha256(gguf)}.f16.gguf"
    if not copy.is_file():
        size_bytes = _BYTES_A_WEIGHT * sum(prod(shape) for shape in facts.tensors.values())
        _check_room(gguf, size_bytes, folder)
        _log.info("%s: writing its weights out in 16 bits, once: %s bytes", gguf.name, f"{size_bytes:,}")
        with replacing(copy) as temporary:
            _write(gguf, temporary)
    return copy


def _check_room(gguf: Path, size_bytes: int, folder: Path) -> None:
    with store_errors("make", folder):
        make_folder(folder)
        free = shutil.disk_usage(folder).free
    if size_bytes > free:
        raise StoreFullError(
            f"{folder}: {gguf.name} takes {size_bytes:,} bytes with 16-bit weights, and {free:,} are free. "
            "Free some space, or set weights: stored for this backend in pipeline.yaml."
        )


def _write(gguf: Path, copy: Path) -> None:
    """Have a child write the copy: where llama.cpp crashes at it, this process goes on."""
    try:
        answer = run_trial(_WRITES, {"gguf": str(gguf), "copy": str(copy)}, limit_s=_LIMIT_S)
    except TrialError as error:
        raise BackendError(str(error)) from error
    if isinstance(answer, Death):
        if answer.was_ordered:
            raise BackendError(f"{gguf}: llama.cpp {answer}, from outside. Start again.")
        raise BackendError(
            f"{gguf}: llama.cpp {answer}. Set weights: stored for this backend in pipeline.yaml. "
            f"Its last lines:{answer.said}"
        )


def write_decoded(gguf: Path, copy: Path) -> None:
    """Write `gguf` to `copy` with its weights in 16 bits, in this process.

    Raises:
        BackendError: llama.cpp cannot decode it.
    """
    library = load_library()
    params = library.llama_model_quantize_default_params()
    params.nthread = physical_cores()
    params.allow_requantize = True
    params.ftype = library.LLAMA_FTYPE_MOSTLY_F16
    forget_log()
    if library.llama_model_quantize(os.fsencode(gguf), os.fsencode(copy), ctypes.byref(params)) != 0:
        raise BackendError(
            f"{gguf}: llama.cpp cannot write its weights out in 16 bits: {last_log_lines()}. "
            "Set weights: stored for this backend in pipeline.yaml, or fetch the file again if it is damaged."
        )
