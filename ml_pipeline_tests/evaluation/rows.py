"""Records and rows made by hand for the tests of one checkpoint's evaluation."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ml_pipeline.adapters.adapter import Adapter
from ml_pipeline.backends.interface import AppliedProof, BackendIdentity, GenerationOptions
from ml_pipeline.checkpoints.checkpoint import Checkpoint
from ml_pipeline.evaluation.identity import Evaluation
from ml_pipeline.suites.suite import Probe, Suite

CHECKPOINT = Checkpoint(
    source="mac",
    run="15k/gemma-3-1b",
    iteration=100,
    label="G1 @0000100",
    model="gemma-3-1b",
    base_model="gemma-3-1b",
    file="adapters-15k/gemma-3-1b/0000100_adapters.safetensors",
    config_file="adapters-15k/gemma-3-1b/adapter_config.json",
    size_bytes=10,
    mtime_ns=1_700_000_000_000_000_123,
)
ADAPTER = Adapter(Path("a"), Path("c"), "ad" * 32, "lora", 8, 20.0, (0, 1), ("self_attn.q_proj",), 4, 10)
BACKEND = BackendIdentity("llama_cpp", "1.0", "gemma-3-1b", "ba" * 32, "Q4_1", "cc" * 32)
SUITE = Suite(
    name="short",
    version="1",
    kind="capability",
    description="",
    temperature=0.1,
    max_tokens=10,
    rubric=None,
    probes=(
        Probe("sum", "arithmetic", "2 + 2?", check={"type": "number", "value": 4}),
        Probe("product", "arithmetic", "3 * 3?", check={"type": "number", "value": 9}),
        Probe("opposite", "analogy", "Opposite of hot?", check={"type": "phrase", "accept": ["cold"]}),
        Probe("essay", "writing", "Write."),
    ),
    sha256="5e" * 32,
)


def evaluation(**changes: Any) -> Evaluation:
    """An evaluation with some of its parts changed."""
    parts: dict[str, Any] = {
        "checkpoint": CHECKPOINT,
        "suite": SUITE,
        "options": GenerationOptions(temperature=0.1, max_tokens=10),
        "backend": BACKEND,
        "adapter": ADAPTER,
        "proof": AppliedProof(4, 1.5, "text"),
        "judge_model": None,
        "scored_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return Evaluation(**(parts | changes))


def response(probe_id: str, text: str, **changes: Any) -> dict[str, Any]:
    """A row of `responses` of SUITE."""
    probe = next(probe for probe in SUITE.probes if probe.id == probe_id)
    row = {
        **evaluation().identity_columns(),
        "probe_id": probe.id,
        "category": probe.category,
        "sample": 1,
        "template": None,
        "prompt": probe.prompt,
        "rendered_prompt": f"<user>{probe.prompt}",
        "response": text,
        "prompt_tokens": 5,
        "completion_tokens": 3,
        "finish_reason": "stop",
        "seconds": 0.5,
        "error": None,
        "choice_log_probabilities": None,
    }
    return row | changes
