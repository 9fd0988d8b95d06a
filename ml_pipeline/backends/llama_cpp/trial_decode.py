"""The child's side of `trial`: loads the model and decodes in the shapes that a run uses, or dies of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ml_pipeline.backends.interface import PROBE_TEXT
from ml_pipeline.backends.kernels import Kernels
from ml_pipeline.backends.llama_cpp.batch import TokenBatch
from ml_pipeline.backends.llama_cpp.model import LoadedModel
from ml_pipeline.backends.trials import Stage, answer_trial
from ml_pipeline.errors import BackendError

# llama.cpp takes other kernels for many tokens at once than for a few; more than this many change nothing.
_PROMPT_TOKENS = 64


def decode(task: dict[str, Any], stage: Stage) -> dict[str, Any]:
    """Decode a prompt, one token, and one token of every sequence at once."""
    shape = task["shape"]
    gguf, weights = Path(shape.pop("gguf")), shape.pop("weights")
    stage("loading the weights")
    model = LoadedModel(gguf, weights=weights and Path(weights), kernels=Kernels(**task["kernels"]), **shape)
    batch = TokenBatch(model)
    some = model.tokenize(PROBE_TEXT, add_special=True, parse_special=False)
    size = min(_PROMPT_TOKENS, model.context_tokens - 2)
    prompt = np.resize(some, size)
    stage(f"decoding a prompt of {size} tokens")
    batch.add(0, 0, prompt, wanted_rows=1)
    batch.decode()
    stage("decoding one token")
    batch.clear()
    batch.add(0, size, prompt[:1], wanted_rows=1)
    batch.decode()
    stage(f"decoding {model.sequences} tokens, one of each sequence")
    batch.clear()
    for sequence in range(model.sequences):
        batch.add(sequence, size + 1 if sequence == 0 else 0, prompt[:1], wanted_rows=1)
    batch.decode()
    return {}


if __name__ == "__main__":
    answer_trial(decode, BackendError)
