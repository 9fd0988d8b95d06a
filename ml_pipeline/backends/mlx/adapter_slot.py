"""The one place where an adapter sits: put into the loaded base, proven to have changed it, and taken out again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.tuner.utils import linear_to_lora_layers

from ml_pipeline.adapters.adapter import Adapter
from ml_pipeline.adapters.factors import lora_pairs
from ml_pipeline.adapters.read import read_adapter
from ml_pipeline.adapters.safetensors_header import SafetensorsHeader, read_header, shortened, shown
from ml_pipeline.backends.adapter_proof import Logits, logit_difference
from ml_pipeline.backends.interface import PROBE_TEXT, AdapterFile, AppliedProof
from ml_pipeline.backends.mlx.model import LoadedModel
from ml_pipeline.backends.mlx.tensors import read_tensors
from ml_pipeline.errors import AdapterError

_REMEDY = "Check that it was trained on this base model."


class AdapterSlot:
    """Holds at most one adapter of the model.

    LoRA and DoRA wrap the base's layers, which stay as they are. Full weights replace the base's, which are kept for as
    long: what a checkpoint replaces is in memory twice.
    """

    def __init__(self, model: LoadedModel) -> None:
        self._model = model
        self._wrapped: dict[str, Any] = {}
        self._replaced: dict[str, mx.array] = {}
        self._base_logits: Logits | None = None

    def use(self, adapter: AdapterFile | None) -> AppliedProof | None:
        """Take out the present adapter, then put `adapter` in and prove it applied; None leaves the bare base.

        Raises:
            AdapterError: the files are damaged or do not fit the base, or the model answers as without them; the bare
                base is then in place.
        """
        self.clear()
        if adapter is None:
            return None
        record = read_adapter(adapter.path, adapter.config or adapter.path.with_name("adapter_config.json"))
        if record.sha256 != adapter.sha256:
            raise AdapterError(
                f"{adapter.path}: not what it was: its hash is {record.sha256}, not {adapter.sha256}. It was written "
                "again meanwhile; discover it anew."
            )
        if record.format == "peft":
            raise AdapterError(
                f"{adapter.path}: was saved by PEFT, and mlx-lm loads only what it saved itself. Let the backend "
                "llama_cpp run it: it takes both."
            )
        if record.kind != "lora" and adapter.scale != 1.0:
            raise AdapterError(f"{adapter.path}: only LoRA can be scaled by {adapter.scale}; this is {record.kind}.")
        base_logits = self._base()
        try:
            self._put(read_header(record.path), record, adapter.scale)
            difference = logit_difference(adapter.path, base_logits, self._probe())
        except BaseException:
            self.clear()
            raise
        return AppliedProof(record.tensor_count, difference, PROBE_TEXT)

    def clear(self) -> None:
        """Put back what the base had, to the last bit."""
        if self._wrapped:
            self._model.module.update_modules(tree_unflatten(list(self._wrapped.items())))
        if self._replaced:
            self._model.module.update(tree_unflatten(list(self._replaced.items())))
        self._wrapped, self._replaced = {}, {}

    def _put(self, header: SafetensorsHeader, record: Adapter, scale: float) -> None:
        module = self._model.module
        if record.kind == "full":
            slots = _parameters(module)
            _require_fit(header, slots)
            self._replaced = {entry.name: slots[entry.name] for entry in header.tensors}
        else:
            self._wrap(header, record, scale)
            wrapped = tuple(f"{name}." for name in self._wrapped)
            leaves = {f"{name}{leaf}" for name in wrapped for leaf in ("lora_a", "lora_b", "m")}
            slots = {name: value for name, value in _parameters(module).items() if name in leaves}
            _require_fit(header, slots)
        module.update(tree_unflatten(list(read_tensors(header).items())))
        module.eval()

    def _wrap(self, header: SafetensorsHeader, record: Adapter, scale: float) -> None:
        """Have mlx-lm wrap exactly the layers that the file names, each with the rank that it has there."""
        modules: dict[str, Any] = dict(self._model.module.named_modules())
        pairs = lora_pairs(header)
        unknown = [f"{shown(pair.module)}: the base has no such layer" for pair in pairs if pair.module not in modules]
        if unknown:
            raise AdapterError.from_problems(str(header.path), shortened(unknown), _REMEDY)
        self._wrapped = {pair.module: modules[pair.module] for pair in pairs}
        try:
            for rank in {pair.rank for pair in pairs}:
                names = {pair.module for pair in pairs if pair.rank == rank}
                parameters = {"rank": rank, "scale": record.scale * scale, "dropout": 0.0, "keys": names}
                linear_to_lora_layers(self._model.module, 0, parameters, use_dora=record.kind == "dora")
        except (ValueError, TypeError, AttributeError) as error:
            raise AdapterError(f"{header.path}: mlx-lm cannot put it on this base model: {error}. {_REMEDY}") from error

    def _base(self) -> Logits:
        if self._base_logits is None:
            self._base_logits = self._probe()
        return self._base_logits

    def _probe(self) -> Logits:
        tokens = self._model.encode(PROBE_TEXT)
        return np.array(self._model(mx.array([tokens]), self._model.new_cache())[0, -1])


def _parameters(module: Any) -> dict[str, mx.array]:
    found: Any = tree_flatten(module.parameters())
    return dict(found)


def _require_fit(header: SafetensorsHeader, slots: Mapping[str, mx.array]) -> None:
    """Make sure that each tensor has its place in the model. That no layer lacks one, the reader has made sure."""
    problems = []
    for entry in header.tensors:
        slot = slots.get(entry.name)
        if slot is None:
            problems.append(f"{shown(entry.name)}: the base model has no such tensor")
        elif slot.shape != entry.shape:
            problems.append(f"{shown(entry.name)}: shape {list(entry.shape)}, but the base model's {list(slot.shape)}")
        elif not mx.issubdtype(slot.dtype, mx.floating):
            problems.append(f"{shown(entry.name)}: {entry.dtype}, but the base model's is quantised")
    if problems:
        raise AdapterError.from_problems(str(header.path), shortened(problems), _REMEDY)
