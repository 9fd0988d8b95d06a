"""The ids: equal for what may be compared, different for what must not be."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from ml_pipeline.backends.interface import GenerationOptions
from ml_pipeline.stores.rows import conform
from ml_pipeline.stores.tables import EVALUATIONS
from ml_pipeline_tests.evaluation.rows import ADAPTER, BACKEND, CHECKPOINT, SUITE, evaluation


@pytest.mark.parametrize(
    "changes",
    [
        {"suite": replace(SUITE, sha256="0" * 64)},
        {"options": GenerationOptions(temperature=0.1, max_tokens=11)},
        {"options": GenerationOptions(temperature=0.1, max_tokens=10, seed=1)},
        {"samples": 2},
        {"backend": replace(BACKEND, base_sha256="0" * 64)},
        {"backend": replace(BACKEND, quantisation="Q8_0")},
        {"backend": replace(BACKEND, backend="mlx")},
        {"backend": replace(BACKEND, chat_template_sha256="0" * 64)},
    ],
)
def test_whatever_changes_the_question_or_the_base_changes_both_ids(changes: dict[str, Any]) -> None:
    assert evaluation(**changes).protocol_id != evaluation().protocol_id
    assert evaluation(**changes).evaluation_id != evaluation().evaluation_id


def test_a_single_sample_keeps_the_ids_that_stored_scores_carry() -> None:
    assert evaluation(samples=1).protocol_id == "0b75719d7e3880d3"


def test_another_adapter_is_another_evaluation_of_the_same_protocol() -> None:
    for other in (evaluation(adapter=replace(ADAPTER, sha256="0" * 64)), evaluation(adapter=None, proof=None)):
        assert other.protocol_id == evaluation().protocol_id
        assert other.evaluation_id != evaluation().evaluation_id


@pytest.mark.parametrize(
    "changes",
    [
        {"backend": replace(BACKEND, backend_version="2.0")},
        {"checkpoint": replace(CHECKPOINT, mtime_ns=1)},
        {"scored_at": datetime(2027, 1, 1, tzinfo=UTC)},
    ],
)
def test_what_changes_no_answer_changes_no_id(changes: dict[str, Any]) -> None:
    assert evaluation(**changes).evaluation_id == evaluation().evaluation_id


def test_a_row_fits_its_table_with_and_without_adapter() -> None:
    for made in (evaluation(), evaluation(adapter=None, proof=None)):
        (row,) = conform(EVALUATIONS, CHECKPOINT.key, [made.row()]).to_pylist()
        assert row["run_id"] == "15k-gemma-3-1b"
        assert row["checkpoint_mtime_ns"] == 1_700_000_000_000_000_123
        assert row["adapter_rank"] == (8 if made.adapter else None)
