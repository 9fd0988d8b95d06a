"""Classification by the mlx backend, against log-probabilities that mlx_lm computes one text at a time."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from ml_pipeline.backend_settings import MlxSettings
from ml_pipeline.backends.mlx import MlxBackend
from ml_pipeline.errors import BackendError
from ml_pipeline_tests.adapters.tiny_models import mlx_logits, tiny_gemma3, tiny_llama
from ml_pipeline_tests.backends.tiny_mlx import Reference, log_softmax, write_model

CONTEXT_TOKENS = 256
LABELS = (" Paris", "x", " large", " no")


@pytest.fixture(scope="module", params=["llama", "gemma3"])
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlxBackend]:
    folder = tmp_path_factory.mktemp(request.param)
    # The window of gemma3 is shorter than the texts, so that its caches have gone round.
    write_model(folder, tiny_llama if request.param == "llama" else partial(tiny_gemma3, sliding_window=24))
    settings = MlxSettings(sequences=4, context_tokens=CONTEXT_TOKENS, prefill_tokens=16)
    made = MlxBackend(str(folder), "tiny", settings)
    yield made
    made.close()


@pytest.fixture(scope="module")
def reference(backend: MlxBackend) -> Reference:
    return Reference(Path(backend.model.folder))


def score(reference: Reference, text: str, label: str) -> float:
    start, tokens = len(reference.tokenizer.encode(text)), reference.tokenizer.encode(text + label)
    rows = log_softmax(mlx_logits(reference.model, tokens))
    return float(sum(rows[at - 1, tokens[at]] for at in range(start, len(tokens))))


@pytest.mark.parametrize(
    "texts",
    [
        ["The capital of France is"],
        ["The capital of France is", "Is it raining?", "I live in", "Say yes or", "London is", "x"],
        [f"You classify short texts with great care and say what they are. Text: {x}. It is" for x in "abcdef"],
    ],
    ids=["one", "more than sequences", "shared prefix"],
)
def test_scores_are_the_sums_of_log_probabilities(backend: MlxBackend, reference: Reference, texts: list[str]) -> None:
    found = backend.classify(texts, LABELS)
    assert found.method == "scored"
    expected = [[score(reference, text, label) for label in LABELS] for text in texts]
    np.testing.assert_allclose(found.log_probabilities, expected, atol=2e-4)


@pytest.mark.parametrize(
    ("texts", "labels", "message"),
    [
        (["fine", ""], ["x"], "text 1: neither texts nor labels may be empty"),
        (["fine"], ["x", ""], "neither texts nor labels may be empty"),
        (["x" * CONTEXT_TOKENS], ["y"], "Raise context_tokens"),
        (["\ud83d"], ["y"], "cannot be cut into tokens"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    backend: MlxBackend, texts: list[str], labels: list[str], message: str
) -> None:
    with pytest.raises(BackendError, match=message):
        backend.classify(texts, labels)


def test_no_texts_no_rows(backend: MlxBackend) -> None:
    assert backend.classify([], LABELS).log_probabilities == []
