"""llama-cpp-python's own class, with the kernels that do not crash on this machine, as the backend chooses them."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import patch

import llama_cpp
from llama_cpp import llama_cpp as native

from ml_pipeline.backends.cpu_threads import physical_cores
from ml_pipeline.backends.kernels import Kernels
from ml_pipeline.backends.llama_cpp.trial import ModelShape, proven_kernels


def high_level_model(
    gguf: Path,
    *,
    n_ctx: int,
    n_threads: int | None = None,
    flash_attn: bool = False,
    kernels: Kernels | None = None,
    **options: Any,
) -> llama_cpp.Llama:
    """`llama_cpp.Llama` of this file with `kernels`, by default those that were proven here.

    Its constructor has no option for extra buffers: it takes the library's default.
    """
    if kernels is None:
        shape = ModelShape(gguf, sequences=1, context_tokens=n_ctx, gpu_layers=0, kv_type="f16", weights=None)
        kernels = proven_kernels(shape, Kernels(n_threads or physical_cores()), records=None).kernels
    extra_buffers = kernels.extra_buffers

    def params() -> Any:
        made = default()
        made.use_extra_bufts = extra_buffers
        return made

    default = native.llama_model_default_params
    with patch.object(native, "llama_model_default_params", params):
        return llama_cpp.Llama(
            str(gguf),
            n_ctx=n_ctx,
            n_threads=kernels.threads,
            n_threads_batch=kernels.threads,
            flash_attn=flash_attn and kernels.flash_attention,
            verbose=False,
            **options,
        )
