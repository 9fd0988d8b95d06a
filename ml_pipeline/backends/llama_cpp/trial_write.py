"""The child's side of `decoded_weights`: writes the copy, or dies of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ml_pipeline.backends.llama_cpp.decoded import write_decoded
from ml_pipeline.backends.trials import Stage, answer_trial
from ml_pipeline.errors import BackendError


def write(task: dict[str, Any], stage: Stage) -> dict[str, Any]:
    """Write the copy."""
    stage("writing its weights out in 16 bits")
    write_decoded(Path(task["gguf"]), Path(task["copy"]))
    return {}


if __name__ == "__main__":
    answer_trial(write, BackendError)
