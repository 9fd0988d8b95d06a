from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ml_pipeline.backends.llama_cpp import LlamaCppBackend
from ml_pipeline.errors import BackendError
from ml_pipeline_tests.backends.conftest import CONTEXT_TOKENS, THREADS
from ml_pipeline_tests.backends.high_level import high_level_model

LABELS = (" Paris", " a very large city", " no")
# How a text is cut into batches moves this Q4_1 model's logits by up to 1, whoever does it.
BATCH_NOISE = 0.5


@pytest.fixture(scope="module")
def reference(smollm2: Path) -> Any:
    """Log-probabilities by llama-cpp-python's high-level class with all logits kept."""
    model = high_level_model(smollm2, n_ctx=CONTEXT_TOKENS, n_threads=THREADS, logits_all=True)

    def score(text: str, label: str) -> float:
        model.reset()  # type: ignore[no-untyped-call]
        start = len(model.tokenize(text.encode(), special=True))
        tokens = model.tokenize((text + label).encode(), special=True)
        model.eval(tokens)
        rows = model.scores[start - 1 : len(tokens) - 1].astype(np.float64)
        rows -= np.log(np.exp(rows).sum(axis=1, keepdims=True))
        return float(sum(row[token] for row, token in zip(rows, tokens[start:], strict=True)))

    yield score
    model.close()


def scores_by(reference: Any, texts: Sequence[str]) -> list[list[float]]:
    return [[reference(text, label) for label in LABELS] for text in texts]


@pytest.mark.parametrize(
    "texts",
    [
        ["The capital of France is"],
        ["The capital of France is", "Is it raining?", "I live in", "Say yes or", "London is"],
        [f"You classify short texts with great care and say what they are about. Text: {x}. It is" for x in "abcdef"],
    ],
    ids=["one", "more than sequences", "shared prefix"],
)
def test_scores_are_the_sums_of_log_probabilities(backend: LlamaCppBackend, reference: Any, texts: list[str]) -> None:
    np.testing.assert_allclose(
        backend.classify(texts, LABELS).log_probabilities, scores_by(reference, texts), atol=3 * BATCH_NOISE
    )


def test_the_right_label_wins(backend: LlamaCppBackend) -> None:
    found = backend.classify(["The capital of France is", "The capital of Germany is"], [" Paris", " Berlin"])
    assert found.method == "scored"
    rows = found.log_probabilities
    assert rows[0][0] > rows[0][1]
    assert rows[1][1] > rows[1][0]


def test_probabilities_of_all_first_tokens_add_up_to_at_most_one(single: LlamaCppBackend) -> None:
    one_token = [
        text
        for token in range(300, 420)
        if (text := single.model.piece(token).decode("utf-8", "replace")).startswith(" ") and text.isascii()
    ]
    (row,) = single.classify(["The sea is"], one_token).log_probabilities
    assert 0 < np.exp(row).sum() < 1


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        (["fine", ""], ["x"], "text 1: neither texts nor labels may be empty"),
        (["fine"], ["x", ""], "neither texts nor labels may be empty"),
        (["word " * CONTEXT_TOKENS], [" x"], "Raise context_tokens or shorten the text"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    backend: LlamaCppBackend, texts: list[str], labels: list[str], message: str
) -> None:
    with pytest.raises(BackendError, match=message):
        backend.classify(texts, labels)


def test_no_texts_no_rows(backend: LlamaCppBackend) -> None:
    assert backend.classify([], LABELS).log_probabilities == []
