"""The record of one checkpoint: which run and iteration it is, and where its file lies in its source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import PurePosixPath

from ml_pipeline.checkpoints.naming import checkpoint_iteration, partition_key, run_id, run_name
from ml_pipeline.settings import BASE_SOURCE, Family


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint of a training run, or a base model without adapter (`is_base`), the run's iteration 0.

    `file` and `config_file` are paths inside the source, with forward slashes. `mtime_ns` is the file's modification
    time in nanoseconds since 1970. `base_model` is a name under base_models in pipeline.yaml.
    """

    source: str
    run: str
    iteration: int
    label: str
    model: str
    base_model: str
    file: str
    config_file: str
    size_bytes: int
    mtime_ns: int

    @cached_property
    def key(self) -> str:
        """The partition key."""
        return partition_key(self.source, self.run, self.iteration)

    @property
    def run_id(self) -> str:
        """The run as the original tags it, without the suffix of the suite."""
        return run_id(self.run)

    @property
    def version(self) -> str:
        """What changes when training writes the checkpoint again."""
        return f"{self.size_bytes} {self.mtime_ns}"

    @property
    def is_base(self) -> bool:
        """Whether this stands for the bare base model."""
        return self.source == BASE_SOURCE


def with_family(checkpoint: Checkpoint, families: Sequence[Family]) -> Checkpoint:
    """The checkpoint with the model and label that these families give its run."""
    name = run_name(checkpoint.run, families)
    written = checkpoint_iteration(PurePosixPath(checkpoint.file).name) or str(checkpoint.iteration)
    return replace(checkpoint, label=name.label(written), model=name.model, base_model=name.model)


def base_checkpoint(base_model: str, *, file: str, size_bytes: int, mtime_ns: int) -> Checkpoint:
    """The bare base model as a checkpoint, so that it is scored, stored and compared like any other."""
    return Checkpoint(
        source=BASE_SOURCE,
        run=base_model,
        iteration=0,
        label=f"{base_model} @base",
        model=base_model,
        base_model=base_model,
        file=file,
        config_file="",
        size_bytes=size_bytes,
        mtime_ns=mtime_ns,
    )
