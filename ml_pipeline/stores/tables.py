"""The tables that the pipeline fills: one definition from which Parquet, DuckDB and Dagster's column schemas are made.

Every row of a per-checkpoint table carries the same identity columns, so that any table can be read on its own.
`evaluation_id` names what produced a row; `protocol_id` is the same without the adapter: only rows of one protocol
may share a curve.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from ml_pipeline.stores.columns import (
    BOOL,
    DIMENSION,
    EXPLANATION,
    FIGURE,
    FLOAT,
    INT,
    JUDGE_MODEL,
    RUBRIC,
    SCORED_AT,
    TEXT,
    TIME,
)
from ml_pipeline.stores.import_table import IMPORTS
from ml_pipeline.stores.response_tables import RESPONSE_TABLES
from ml_pipeline.stores.table import Column, Table

SCHEMA_VERSION = 9
"""Version of these definitions, written into every Parquet file. Raise it, and add a migration, with every change."""


IDENTITY: tuple[Column, ...] = (
    Column("partition_key", TEXT, "The checkpoint's partition: <source>.<run>@<iteration>."),
    Column("source", TEXT, "Name of the source; 'base': a bare base model; 'imported': scored by another program."),
    Column("run", TEXT, "The training run's folder in its source, without 'adapters-'."),
    Column("run_id", TEXT, "The run as the original tags it: '/' turned to '-', with no suite suffix."),
    Column("label", TEXT, "Short name of the checkpoint: '<family>[-<variant>] @<iteration>'."),
    Column("model", TEXT, "Model tag of the family, the base model's short name."),
    Column("base_model", TEXT, "Name of the base model in pipeline.yaml."),
    Column("iteration", INT, "Training iteration; 0 for the bare base model."),
    Column("suite", TEXT, "Name of the suite."),
    Column("evaluation_id", TEXT, "Hash of adapter, base, quantisation, backend, options, chat template and suite."),
    Column("protocol_id", TEXT, "The evaluation id's hash without the adapter: rows that may be compared share it."),
    SCORED_AT,
)
_PROBE = (
    Column("probe_id", TEXT, "The probe within its suite."),
    Column("category", TEXT, "The probe's category."),
)
_SAMPLED = (
    Column("sample", INT, "Which answer to the probe, from 1.", earlier=1),
    Column("template", TEXT, "The template that made the probe; empty for one written out.", nullable=True),
)
_ASKED = (*_PROBE, *_SAMPLED)
_IMPORTED_PROBE = (_PROBE[0], replace(_PROBE[1], nullable=True))
"""The original did not always record a probe's category."""
_REASON = Column("unscored_reason", TEXT, "Why there is no score; empty when there is one.", nullable=True)
_RUBRIC_HASH = Column("rubric_sha256", TEXT, "Hash of the rubric and of the frame around it.", nullable=True)

EVALUATIONS = Table(
    "evaluations",
    "What exactly produced the scores of one checkpoint and suite.",
    (
        *IDENTITY,
        Column("suite_version", TEXT, "Version written in the suite's file."),
        Column("suite_sha256", TEXT, "Hash of the suite's content."),
        Column("backend", TEXT, "Backend that answered."),
        Column("backend_version", TEXT, "Version of the backend's library."),
        Column("base_sha256", TEXT, "Hash of the base model's file."),
        Column("quantisation", TEXT, "Quantisation of the base model's file."),
        Column("chat_template_sha256", TEXT, "Hash of the chat template that rendered the prompts."),
        Column("options", TEXT, "Generation options as JSON."),
        Column("judge_model", TEXT, "Model that judged; empty without a judge.", nullable=True),
        Column("adapter_sha256", TEXT, "Hash of the adapter's weights and configuration.", nullable=True),
        Column("adapter_kind", TEXT, "lora, dora or full; empty for a bare base.", nullable=True),
        Column("adapter_rank", INT, "Largest rank of the adapter.", nullable=True),
        Column("adapter_scale", FLOAT, "Scale of the adapter.", nullable=True),
        Column("adapter_effect", FLOAT, "Largest change of a logit that proves the adapter applied.", nullable=True),
        Column("checkpoint_file", TEXT, "The weights file within its source."),
        Column("checkpoint_size_bytes", INT, "Size of the weights file."),
        Column("checkpoint_mtime_ns", INT, "Modification time of the weights file, ns since 1970."),
    ),
    key=("partition_key", "suite"),
)

RESPONSES = Table(
    "responses",
    "Every answer in full.",
    (
        *IDENTITY,
        *_ASKED,
        Column("prompt", TEXT, "The probe's question."),
        Column("rendered_prompt", TEXT, "The question as the model saw it, chat template included."),
        Column("response", TEXT, "The whole answer, also when it was cut short."),
        Column("prompt_tokens", INT, "Tokens of the rendered prompt."),
        Column("completion_tokens", INT, "Tokens of the answer."),
        Column("finish_reason", TEXT, "stop, length, error or cancelled."),
        Column("seconds", FLOAT, "Wall time from first prompt token to last answer token."),
        Column("error", TEXT, "What ended the answer early.", nullable=True),
        Column(
            "choice_log_probabilities",
            TEXT,
            "Where choices are scored and nothing is written: the natural logarithm of each one's probability as JSON, "
            "[] if it could not be had; the response is then the likeliest choice.",
            nullable=True,
        ),
    ),
    key=("partition_key", "suite", "probe_id", "sample"),
)

PROBE_RESULTS = Table(
    "probe_results",
    "Pass or fail of every answer whose probe has a deterministic check.",
    (
        *IDENTITY,
        *_IMPORTED_PROBE,
        *_SAMPLED,
        Column("passed", BOOL, "Whether the check accepted the answer; empty when unscored.", nullable=True),
        _REASON,
        Column("expected", TEXT, "What the check wanted.", nullable=True),
        Column("extracted", TEXT, "What the check read out of the answer.", nullable=True),
        Column("response", TEXT, "The whole answer; of an imported one its beginning.", nullable=True),
        Column("finish_reason", TEXT, "How the answer ended.", nullable=True),
        *(
            column
            for name in ("strict", "flexible")
            for column in (
                Column(f"{name}_extracted", TEXT, f"What the {name} filters read out of it.", nullable=True),
                Column(f"{name}_passed", BOOL, f"Whether that is right; empty without {name} filters.", nullable=True),
            )
        ),
        Column(
            "passed_normalised",
            BOOL,
            "Whether the right choice has the highest log-probability for each byte (acc_norm; `passed` is acc); empty "
            "where an answer was written.",
            nullable=True,
        ),
    ),
    key=("partition_key", "suite", "probe_id", "sample"),
)

HEURISTIC_FIGURES = (
    "compliance_markers",
    "formulaic_preamble",
    "first_person",
    "creative_form",
    "engagement_depth",
    "emotional_register",
    "degeneration",
    "empty_broken",
)

HEURISTIC_SCORES = Table(
    "heuristic_scores",
    "The heuristic figures of every probe's first answer and their composite, LEK.",
    (
        *IDENTITY,
        *_PROBE,
        *(Column(name, FLOAT, f"Heuristic figure {name}.", nullable=True) for name in HEURISTIC_FIGURES),
        Column("lek", FLOAT, "Composite of the figures, as the original defines it.", nullable=True),
        Column("lek_normalised", FLOAT, "LEK bent into 0..1: 0.5 + 0.5 LEK / (10 + |LEK|).", nullable=True),
        _REASON,
    ),
    key=("partition_key", "suite", "probe_id"),
)

JUDGEMENTS = Table(
    "judgements",
    "The figure for every probe's first answer and dimension: the judge's, or the median of a panel and of repeats.",
    (
        *IDENTITY,
        *_IMPORTED_PROBE,
        replace(RUBRIC, nullable=True),
        DIMENSION,
        FIGURE,
        _REASON,
        replace(JUDGE_MODEL, nullable=True),
        EXPLANATION,
        Column("transcript", TEXT, "The judge's whole answer; that of each vote stands in judge_votes.", nullable=True),
        _RUBRIC_HASH,
        Column("votes", INT, "Votes with a figure, whose median this is.", nullable=True),
        Column("votes_asked", INT, "Votes asked for: judges times repeats.", nullable=True),
    ),
    key=("partition_key", "suite", "probe_id", "dimension"),
)

JUDGE_VOTES = Table(
    "judge_votes",
    "What each judge of a panel said, in each repeat; empty where one judge is asked once.",
    (
        *IDENTITY,
        *_PROBE,
        RUBRIC,
        DIMENSION,
        Column("judge_model", TEXT, "Model that judged."),
        Column("repeat", INT, "How often this judge had been asked by then, from 1."),
        FIGURE,
        _REASON,
        EXPLANATION,
        Column("transcript", TEXT, "The judge's whole answer."),
        _RUBRIC_HASH,
    ),
    key=("partition_key", "suite", "probe_id", "dimension", "judge_model", "repeat"),
)

CHECKPOINT_SCORES = Table(
    "checkpoint_scores",
    "Accuracy of a checkpoint on a suite, overall and by category, with its Wilson 95% interval, which allows for "
    "probes of one template and several answers to one probe.",
    (
        *IDENTITY,
        Column("category", TEXT, "'overall' or a category."),
        Column("correct", INT, "Answers passed."),
        Column("total", INT, "Answers scored (passed or failed)."),
        Column("unscored", INT, "Answers that could not be scored; they count neither way."),
        Column("accuracy", FLOAT, "Share of scored answers passed, 0..1.", nullable=True),
        Column("accuracy_low", FLOAT, "Lower end of the 95% Wilson interval, 0..1.", nullable=True),
        Column("accuracy_high", FLOAT, "Upper end of the 95% Wilson interval, 0..1.", nullable=True),
    ),
    key=("partition_key", "suite", "category"),
)

DEGENERATION = Table(
    "degeneration",
    "How many answers of a checkpoint show a sign of degeneration, with the Wilson 95% interval of their share, which "
    "allows for probes of one template and several answers to one probe.",
    (
        *IDENTITY,
        Column(
            "signal",
            TEXT,
            "The sign: truncated, repetitive, looping, refused, empty, word_salad, off_language; unsound: any of "
            "truncated, repetitive, looping, empty and word_salad.",
        ),
        Column("hits", INT, "Answers that show it."),
        Column("answers", INT, "Answers looked at."),
        Column("unscored", INT, "Answers that an error or a cancellation ended; they count neither way."),
        Column("share", FLOAT, "Share of answers that show it, 0..1.", nullable=True),
        Column("share_low", FLOAT, "Lower end of the 95% Wilson interval, 0..1.", nullable=True),
        Column("share_high", FLOAT, "Upper end of the 95% Wilson interval, 0..1.", nullable=True),
    ),
    key=("partition_key", "suite", "signal"),
)

FAILURES = Table(
    "failures",
    "Why the newest attempt to score a checkpoint failed; no row once an attempt succeeded.",
    (
        Column("partition_key", TEXT, "The checkpoint's partition: <source>.<run>@<iteration>."),
        Column("source", TEXT, "Name of the source; 'base': a bare base model."),
        Column("run", TEXT, "The training run's folder in its source, without 'adapters-'."),
        Column("label", TEXT, "Short name of the checkpoint; empty where its file was not found.", nullable=True),
        Column("base_model", TEXT, "Name of its base model; empty where its file was not found.", nullable=True),
        Column("iteration", INT, "Training iteration; 0 for the bare base model."),
        Column("stage", TEXT, "The asset that was being made."),
        Column("reason", TEXT, "Why it failed."),
        Column("attempt", TEXT, "Dagster's id of the run in which it failed."),
        Column("failed_at", TIME, "When it failed (UTC)."),
    ),
    key=("partition_key",),
    version="attempt",
    made_at="failed_at",
)

CHECKPOINT_TABLES: tuple[Table, ...] = (
    EVALUATIONS,
    RESPONSES,
    PROBE_RESULTS,
    HEURISTIC_SCORES,
    JUDGEMENTS,
    CHECKPOINT_SCORES,
    DEGENERATION,
)
"""What reports are made of."""

DETAIL_TABLES: tuple[Table, ...] = (JUDGE_VOTES, FAILURES)
"""What stands behind the figures of those, and why some are missing."""

TRAINING_LOSS = Table(
    "training_loss",
    "Every loss that training printed into its log, with the figures beside it.",
    (
        Column("partition_key", TEXT, "The training run's partition: <source>.<run>."),
        Column("source", TEXT, "Name of the source in pipeline.yaml."),
        Column("run", TEXT, "The training run's folder in its source, without 'adapters-'."),
        Column("run_id", TEXT, "The run as the original tags it: '/' turned to '-'."),
        Column("model", TEXT, "Model tag of the family, the base model's short name."),
        Column("kind", TEXT, "train or val."),
        Column("iteration", INT, "Training iteration at which it was printed."),
        Column("loss", FLOAT, "The loss; empty when it was NaN or infinite.", nullable=True),
        Column("reason", TEXT, "Why there is no loss: diverged, or unread; empty when there is one.", nullable=True),
        Column("learning_rate", FLOAT, "Learning rate; newer versions of mlx-lm do not print it.", nullable=True),
        Column("iterations_per_s", FLOAT, "Iterations per s; newer versions do not print it.", nullable=True),
        Column("tokens_per_s", FLOAT, "Trained tokens per s.", nullable=True),
        Column("trained_tokens", INT, "Tokens trained on so far, as exactly as printed.", nullable=True),
        Column("peak_memory_gb", FLOAT, "Peak memory in GB; newer versions do not print it.", nullable=True),
        Column("attempt", INT, "How often training had started in this log by then, from 1; the last one counts."),
        Column("log_file", TEXT, "The log within its source."),
        Column("log_id", TEXT, "Hash of the log's beginning up to its first loss: another training, another id."),
        Column("started_ns", INT, "When this training began, ns since 1970: the time of adapter_config.json."),
        Column("read_at", TIME, "When this row was read out of the log (UTC)."),
    ),
    key=("source", "run", "kind", "iteration"),
    version="log_id",
    made_at="read_at",
)

RUN_TABLES: tuple[Table, ...] = (TRAINING_LOSS,)
"""Tables whose partition is a training run, not a checkpoint."""

TABLES: Mapping[str, Table] = MappingProxyType(
    {table.name: table for table in (*CHECKPOINT_TABLES, *DETAIL_TABLES, IMPORTS, *RUN_TABLES, *RESPONSE_TABLES)}
)
"""Every table by its name, which is also the name of its Dagster asset where it has one."""
