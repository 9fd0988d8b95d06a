"""What an evaluation is: the ids that say which rows may be compared, and the columns that every row carries."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from ml_pipeline.adapters.adapter import Adapter
from ml_pipeline.backends.interface import AppliedProof, BackendIdentity, GenerationOptions
from ml_pipeline.checkpoints.checkpoint import Checkpoint
from ml_pipeline.suites.suite import Suite

_ID_LENGTH = 16


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One checkpoint asked one suite by one backend at one time.

    `adapter` is None for the bare base model. `scored_at` is in UTC. `samples` is how often each probe is asked.
    """

    checkpoint: Checkpoint
    suite: Suite
    options: GenerationOptions
    backend: BackendIdentity
    adapter: Adapter | None
    proof: AppliedProof | None
    judge_model: str | None
    scored_at: datetime
    samples: int = 1

    @property
    def protocol_id(self) -> str:
        """Hash of all that must be equal for two rows to be compared: everything but the adapter.

        The backend's version is recorded beside it and left out of the hash, so that a library's update does not
        cut every curve in two.
        """
        return _short_hash(
            {
                "base_sha256": self.backend.base_sha256,
                "quantisation": self.backend.quantisation,
                "backend": self.backend.backend,
                "options": asdict(self.options),
                "chat_template_sha256": self.backend.chat_template_sha256,
                "suite": self.suite.name,
                "suite_sha256": self.suite.sha256,
                # One is left out, so that scores from before there were several keep their ids.
                **({"samples": self.samples} if self.samples > 1 else {}),
            }
        )

    @property
    def evaluation_id(self) -> str:
        """Hash of the protocol and the adapter: the same id means the same question to the same model."""
        return _short_hash({"protocol": self.protocol_id, "adapter": self.adapter.sha256 if self.adapter else None})

    def identity_columns(self) -> dict[str, Any]:
        """The columns that every row of a per-checkpoint table carries, see `stores.tables.IDENTITY`."""
        return {
            "partition_key": self.checkpoint.key,
            "source": self.checkpoint.source,
            "run": self.checkpoint.run,
            "run_id": self.checkpoint.run_id,
            "label": self.checkpoint.label,
            "model": self.checkpoint.model,
            "base_model": self.checkpoint.base_model,
            "iteration": self.checkpoint.iteration,
            "suite": self.suite.name,
            "evaluation_id": self.evaluation_id,
            "protocol_id": self.protocol_id,
            "scored_at": self.scored_at,
        }

    def row(self) -> dict[str, Any]:
        """The row of the table `evaluations`."""
        adapter, backend, checkpoint = self.adapter, self.backend, self.checkpoint
        return {
            **self.identity_columns(),
            "suite_version": self.suite.version,
            "suite_sha256": self.suite.sha256,
            "backend": backend.backend,
            "backend_version": backend.backend_version,
            "base_sha256": backend.base_sha256,
            "quantisation": backend.quantisation,
            "chat_template_sha256": backend.chat_template_sha256,
            "options": json.dumps(asdict(self.options) | {"samples": self.samples}, sort_keys=True),
            "judge_model": self.judge_model,
            "adapter_sha256": adapter.sha256 if adapter else None,
            "adapter_kind": adapter.kind if adapter else None,
            "adapter_rank": adapter.rank if adapter else None,
            "adapter_scale": adapter.scale if adapter else None,
            "adapter_effect": self.proof.max_abs_logit_difference if self.proof else None,
            "checkpoint_file": checkpoint.file,
            "checkpoint_size_bytes": checkpoint.size_bytes,
            "checkpoint_mtime_ns": checkpoint.mtime_ns,
        }


def _short_hash(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_ID_LENGTH]
