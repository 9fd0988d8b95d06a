"""Tries mlx out in a child process before this one relies on it: without a usable GPU it ends the process it is in."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Any

from ml_pipeline.backend_settings import MlxSettings
from ml_pipeline.backends.trials import Death, TrialError, TrialRecords, files_hash, run_trial, this_cpu, this_system
from ml_pipeline.errors import BackendError

_READS = "ml_pipeline.backends.mlx.trial_read"
_LIMIT_S = 1800.0


def try_out(model: str, settings: MlxSettings, records: Path | None) -> None:
    """Have a child load the model and read a text, once for each build of mlx and model; kept in the folder `records`.

    Raises:
        BackendError: the child dies; the message names the signal, the build and what to do.
    """
    try:
        build = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("mlx", "mlx-lm"))
    except importlib.metadata.PackageNotFoundError:
        # Importing it says what is missing.
        return
    depends_on = {"build": build, "cpu": this_cpu(), "system": this_system(), "model": _stamp(model)}
    kept = TrialRecords(records)
    if kept.get(depends_on) is not None:
        return
    try:
        answer = run_trial(_READS, {"model": model, "settings": settings.model_dump(mode="json")}, limit_s=_LIMIT_S)
    except TrialError:
        # It fails here as it does there: loading it says so with the usual words.
        return
    if isinstance(answer, Death):
        if answer.was_ordered:
            raise BackendError(f"{model}: the trial of mlx {answer}, from outside. Start again.")
        remedy = (
            "The system ends processes so when memory runs out: take a smaller model, or close what else needs memory."
            if answer.looks_like_memory
            else "Install another version of mlx (pip install --force-reinstall mlx mlx-lm), or set another backend in "
            "pipeline.yaml."
        )
        raise BackendError(
            f"{model}: mlx {answer}, in a child process ({build}). {remedy} Its last lines:{answer.said}"
        )
    kept.keep(depends_on, {"works": True})


def _stamp(model: str) -> list[Any]:
    """What changes when the model's files are written again; a hub id names files that do not change."""
    folder = Path(model).expanduser()
    return [model, files_hash(folder) if folder.is_dir() else None]
