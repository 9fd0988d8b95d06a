"""Scoring: pure functions from answers to figures. Checks, heuristic, judge and statistics; no Dagster, no I/O."""

from ml_pipeline.scoring.agreement import krippendorff_alpha, median_reading
from ml_pipeline.scoring.checks import CheckResult, check_answer, expected_answer
from ml_pipeline.scoring.heuristic import HeuristicScore, score_heuristic
from ml_pipeline.scoring.judge import (
    JUDGE_OPTIONS,
    judge_request,
    judge_schema,
    judge_sha256,
    reask_request,
    unjudgeable_reason,
)
from ml_pipeline.scoring.judgement import JudgeReading, read_judgement, unjudged
from ml_pipeline.scoring.means import wilson_interval
from ml_pipeline.scoring.results import ProbeResult, score_probe, unfinished_reason
from ml_pipeline.scoring.statistics import CategoryScore, accuracy_by_category, exact_mcnemar
from ml_pipeline.scoring.thinking import remove_thinking

__all__ = [
    "JUDGE_OPTIONS",
    "CategoryScore",
    "CheckResult",
    "HeuristicScore",
    "JudgeReading",
    "ProbeResult",
    "accuracy_by_category",
    "check_answer",
    "exact_mcnemar",
    "expected_answer",
    "judge_request",
    "judge_schema",
    "judge_sha256",
    "krippendorff_alpha",
    "median_reading",
    "read_judgement",
    "reask_request",
    "remove_thinking",
    "score_heuristic",
    "score_probe",
    "unfinished_reason",
    "unjudgeable_reason",
    "unjudged",
    "wilson_interval",
]
