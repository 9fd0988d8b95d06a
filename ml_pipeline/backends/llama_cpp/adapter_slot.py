"""The one place where an adapter sits: swapped over the loaded base, and proven to have changed the model."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from ml_pipeline.backends.gguf_adapter_check import check_gguf_adapter
from ml_pipeline.backends.interface import PROBE_TEXT, AdapterFile, AppliedProof
from ml_pipeline.backends.llama_cpp.batch import TokenBatch
from ml_pipeline.backends.llama_cpp.memory import SequenceMemory
from ml_pipeline.backends.llama_cpp.model import LoadedModel
from ml_pipeline.backends.llama_cpp.native import forget_log, last_log_lines
from ml_pipeline.errors import AdapterError, BackendError

Logits = npt.NDArray[np.float32]

# The same batch decodes to the same bits, so that any difference at all is the adapter's; this only asks for one that
# can matter to a token's choice.
_NOISE = 1e-6


class AdapterSlot:
    """Holds at most one adapter of the model."""

    def __init__(self, model: LoadedModel, memory: SequenceMemory, batch: TokenBatch) -> None:
        self._model = model
        self._memory = memory
        self._batch = batch
        self._native: Any = None
        self._base_logits: Logits | None = None

    def use(self, adapter: AdapterFile | None) -> AppliedProof | None:
        """Take out the present adapter, then put `adapter` in and prove it applied; None leaves the bare base.

        Raises:
            AdapterError: the file is damaged or does not fit the base, or the model answers as without it; the bare
                base is then in place.
        """
        self.clear()
        if adapter is None:
            return None
        tensors = check_gguf_adapter(adapter.path, self._model.facts)
        base_logits = self._base()
        self._load(adapter)
        try:
            difference = self._difference(adapter, base_logits)
        except (AdapterError, BackendError):
            self.clear()
            raise
        return AppliedProof(tensors, difference, PROBE_TEXT)

    def clear(self) -> None:
        """Take the adapter out and free it. Whatever was decoded under it is forgotten."""
        lib, model = self._model.lib, self._model
        if self._native is not None:
            lib.llama_set_adapters_lora(model.context, None, 0, None)
            lib.llama_adapter_lora_free(self._native)
            self._native = None
        # Keys and values were computed with the old weights: kept, they shift the logits as much as an adapter does.
        self._memory.clear()

    def _load(self, adapter: AdapterFile) -> None:
        lib, model = self._model.lib, self._model
        forget_log()
        native = lib.llama_adapter_lora_init(model.pointer, str(adapter.path).encode())
        if not native:
            raise AdapterError(
                f"{adapter.path}: llama.cpp cannot load this adapter for {model.path.name}: {last_log_lines()}. "
                "Check that it was trained on this base model."
            )
        self._native = native
        adapters = (lib.llama_adapter_lora_p_ctypes * 1)(native)
        scales = (ctypes.c_float * 1)(adapter.scale)
        code = lib.llama_set_adapters_lora(model.context, adapters, 1, scales)
        if code != 0:
            self.clear()
            raise AdapterError(f"{adapter.path}: llama.cpp cannot set this adapter ({code}): {last_log_lines()}")

    def _base(self) -> Logits:
        if self._base_logits is None:
            self._base_logits = self._probe()
        return self._base_logits

    def _difference(self, adapter: AdapterFile, base_logits: Logits) -> float:
        with np.errstate(invalid="ignore", over="ignore"):
            difference = float(np.abs(self._probe() - base_logits).max())
        if not np.isfinite(difference):
            raise AdapterError(
                f"{adapter.path}: the model's logits are NaN or infinite under this adapter. Training diverged, or the "
                "scale is wrong."
            )
        if difference <= _NOISE:
            raise AdapterError(
                f"{adapter.path}: not applied: the logits are those of the base model. Its weights are zero "
                "(a checkpoint from before the first step?) or its scale is."
            )
        return difference

    def _probe(self) -> Logits:
        """Decode the probe text in an empty memory and return the logits after its last token."""
        tokens = self._model.tokenize(PROBE_TEXT, add_special=True, parse_special=False)
        self._memory.clear()
        self._batch.clear()
        self._batch.add(0, 0, tokens, wanted_rows=1)
        try:
            self._batch.decode()
            return self._model.logits(1).copy()[0:1].reshape(-1)
        finally:
            self._memory.clear()
