"""The per-checkpoint assets: names, lineage, groups and what the UI says about them."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from ml_pipeline.scoring.checks import MARKING_VERSION
from ml_pipeline.stores.metadata import table_schema
from ml_pipeline.stores.tables import TABLES

OWNER = "team:ml_pipeline"
MODEL_POOL = "model"
"""Dagster's pool of one: whatever is queued, one run at a time has a model in memory."""

TRAINING_RUNS = "training_runs"
POINT_ASSETS = ("capability_score", "probe_score", "capability_judge", "content_score")

training_runs = dg.AssetSpec(
    TRAINING_RUNS,
    group_name="discover",
    kinds={"folder"},
    owners=[OWNER],
    description="Run folders of the training machines. Observed by the discovery sensor.",
)


LOG_POOL = "training_logs"
"""Dagster's pool of one for reading logs: two readers of one run would overtake each other."""


def _spec(
    name: str,
    group: str,
    kinds: set[str],
    deps: Sequence[str],
    description: str,
    io_manager_key: str | None = None,
    code_version: str | None = None,
) -> dg.AssetSpec:
    metadata = {}
    if name in TABLES:
        metadata["dagster/column_schema"] = table_schema(TABLES[name])
    spec = dg.AssetSpec(
        name,
        deps=deps,
        group_name=group,
        kinds=kinds,
        owners=[OWNER],
        description=description,
        metadata=metadata,
        skippable=True,
        code_version=code_version,
    )
    return spec.with_io_manager_key(io_manager_key) if io_manager_key else spec


CHECKPOINT_SPECS = (
    _spec(
        "adapter",
        "fetch_and_convert",
        {"safetensors"},
        [TRAINING_RUNS],
        "The checkpoint's LoRA adapter, fetched into a content-addressed cache, validated and hashed. "
        "A base model's own partition has none.",
    ),
    _spec(
        "converted_adapter",
        "fetch_and_convert",
        {"gguf"},
        ["adapter"],
        "The adapter as llama.cpp loads it: GGUF LoRA, every tensor matched with the base model's.",
    ),
    _spec(
        "responses",
        "generate",
        {"llama.cpp", "parquet"},
        ["converted_adapter"],
        "The model's answer to every probe of every suite, in full, after proof that the adapter changed the model.",
        "parquet_io_manager",
    ),
    _spec(
        "probe_results",
        "score",
        {"python", "duckdb"},
        ["responses"],
        "Pass or fail of every probe with a deterministic check. Unscored is not wrong: empty, with the reason.",
        "duckdb_io_manager",
        MARKING_VERSION,
    ),
    _spec(
        "heuristic_scores",
        "score",
        {"python", "duckdb"},
        ["responses"],
        "Figures that need no model (compliance, creativity, degeneration ...) and their composite, LEK.",
        "duckdb_io_manager",
    ),
    _spec(
        "degeneration",
        "score",
        {"python", "duckdb"},
        ["responses"],
        "What share of the answers is cut, repeats itself, loops, refuses, is empty or in another language.",
        "duckdb_io_manager",
    ),
    _spec(
        "checkpoint_scores",
        "score",
        {"python", "duckdb"},
        ["probe_results"],
        "Accuracy overall and by category with its Wilson 95% interval.",
        "duckdb_io_manager",
    ),
    _spec(
        "judgements",
        "score",
        {"llama.cpp", "duckdb"},
        ["responses"],
        "A judge's figure for every answer and dimension, with the judge's name and whole answer.",
        "duckdb_io_manager",
    ),
    *(
        _spec(name, "score_points", {"influxdb"}, [upstream], description, "influx_io_manager")
        for name, upstream, description in (
            ("capability_score", "checkpoint_scores", "Accuracy points, overall and by category."),
            ("probe_score", "probe_results", "One point a probe: passed or not."),
            ("capability_judge", "judgements", "The judge's figures for each capability answer."),
            ("content_score", "judgements", "The judge's mean figures over the content answers."),
        )
    ),
)

RESPONSE_FILES = "response_files"

response_files = dg.AssetSpec(
    RESPONSE_FILES,
    group_name="discover",
    kinds={"file"},
    owners=[OWNER],
    description="Files of responses in the folder `responses` of data_dir.",
)

RESPONSE_SCORES_SPEC, RESPONSE_JUDGEMENTS_SPEC = (
    _spec(name, "score_files", {kind, "duckdb"}, [RESPONSE_FILES], description, "duckdb_io_manager", version)
    for name, kind, version, description in (
        (
            "response_scores",
            "python",
            MARKING_VERSION,
            "Figures of every response of a file, without any model; and averages by model.",
        ),
        (
            "response_judgements",
            "llama.cpp",
            None,
            "The judge's figures for the responses of a file that a rubric is for.",
        ),
    )
)

TRAINING_LOSS_SPEC = _spec(
    "training_loss",
    "training",
    {"python", "duckdb", "influxdb"},
    [TRAINING_RUNS],
    "Training and validation loss, speed and memory of every training run, read from mlx-lm's log as it grows.",
    "duckdb_io_manager",
)
