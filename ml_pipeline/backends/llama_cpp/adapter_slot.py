"""The one place where adapters sit: swapped over the loaded base, and proven to have changed the model."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from typing import Any

from ml_pipeline.backends.adapter_proof import Logits, logit_difference
from ml_pipeline.backends.gguf_adapter_check import check_gguf_adapter
from ml_pipeline.backends.interface import PROBE_TEXT, AdapterFile, AppliedProof
from ml_pipeline.backends.llama_cpp.batch import TokenBatch
from ml_pipeline.backends.llama_cpp.memory import SequenceMemory
from ml_pipeline.backends.llama_cpp.model import LoadedModel
from ml_pipeline.backends.llama_cpp.native import forget_log, last_log_lines
from ml_pipeline.errors import AdapterError, BackendError


class AdapterSlot:
    """Holds the adapters of the model: none, one, or several that add up."""

    def __init__(self, model: LoadedModel, memory: SequenceMemory, batch: TokenBatch) -> None:
        self._model = model
        self._memory = memory
        self._batch = batch
        self._loaded: list[tuple[Any, float]] = []
        self._base_logits: Logits | None = None

    def use(self, adapters: Sequence[AdapterFile]) -> list[AppliedProof]:
        """Take out the present adapters, then put these in, one over the other, and prove that each applied.

        Each proof compares with the model as it was before that adapter was added.

        Raises:
            AdapterError: a file is damaged or does not fit the base, or the model answers as without it; the bare base
                is then in place.
        """
        self.clear()
        tensors = [check_gguf_adapter(adapter.path, self._model.facts) for adapter in adapters]
        if not adapters:
            return []
        before = self._base()
        differences = []
        try:
            for adapter in adapters:
                self._add(adapter)
                after = self._probe()
                differences.append(logit_difference(adapter.path, before, after))
                before = after
        except (AdapterError, BackendError):
            self.clear()
            raise
        return [AppliedProof(*found, PROBE_TEXT) for found in zip(tensors, differences, strict=True)]

    def clear(self) -> None:
        """Take the adapters out and free them. Whatever was decoded under them is forgotten."""
        lib, model = self._model.lib, self._model
        had_adapters = bool(self._loaded)
        if had_adapters:
            lib.llama_set_adapters_lora(model.context, None, 0, None)
            for native, _ in self._loaded:
                lib.llama_adapter_lora_free(native)
            self._loaded = []
        # Keys and values were computed with the old weights: kept, they shift the logits as much as an adapter does.
        self._memory.clear(zero=had_adapters)

    def _add(self, adapter: AdapterFile) -> None:
        lib, model = self._model.lib, self._model
        forget_log()
        native = lib.llama_adapter_lora_init(model.pointer, os.fsencode(adapter.path))
        if not native:
            raise AdapterError(
                f"{adapter.path}: llama.cpp cannot load this adapter for {model.path.name}: {last_log_lines()}. "
                "Check that it was trained on this base model."
            )
        self._loaded.append((native, adapter.scale))
        count = len(self._loaded)
        adapters = (lib.llama_adapter_lora_p_ctypes * count)(*(native for native, _ in self._loaded))
        scales = (ctypes.c_float * count)(*(scale for _, scale in self._loaded))
        code = lib.llama_set_adapters_lora(model.context, adapters, count, scales)
        if code != 0:
            raise AdapterError(f"{adapter.path}: llama.cpp cannot set this adapter ({code}): {last_log_lines()}")

    def _base(self) -> Logits:
        if self._base_logits is None:
            self._base_logits = self._probe()
        return self._base_logits

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
