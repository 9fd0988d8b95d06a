"""The child's side of `trial`: loads the model and reads a text, or dies of it."""

from __future__ import annotations

from typing import Any

import mlx.core as mx

from ml_pipeline.backend_settings import MlxSettings
from ml_pipeline.backends.interface import PROBE_TEXT
from ml_pipeline.backends.mlx.model import LoadedModel
from ml_pipeline.backends.trials import Stage, answer_trial
from ml_pipeline.errors import BackendError


def read(task: dict[str, Any], stage: Stage) -> dict[str, Any]:
    """Read a text as a prompt is read."""
    stage("loading the weights")
    model = LoadedModel(task["model"], MlxSettings(**task["settings"]))
    stage("reading a prompt")
    mx.eval(model(mx.array([model.encode(PROBE_TEXT)]), model.new_cache()))
    return {}


if __name__ == "__main__":
    answer_trial(read, BackendError)
