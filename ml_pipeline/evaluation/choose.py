"""Lets a model score the choices of multiple-choice probes, and turns what it finds into rows of `responses`."""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ml_pipeline.backends.interface import Backend, Completion
from ml_pipeline.errors import BackendError, RunCancelledError
from ml_pipeline.evaluation.ask import is_scored, response_row
from ml_pipeline.evaluation.identity import Evaluation
from ml_pipeline.scoring.log_likelihood import labels, score_choices
from ml_pipeline.suites.suite import Probe

_BATCH = 32
_CHOSEN = (
    "the backend cannot score these choices: it only picks one. Use choices of one token each, or another backend "
    "such as llama_cpp"
)


def choose(
    backend: Backend,
    evaluations: Sequence[Evaluation],
    progress: Callable[[int, int], None],
    cancelled: Callable[[], bool] = lambda: False,
) -> list[dict[str, Any]]:
    """Score every probe whose check is of type `log_likelihood`, once; rows come back in the suites' order.

    The prompt goes to the model as it stands, without the chat template. Probes with the same choices are scored
    together, 32 at a time. One that cannot be scored is a row too, with the error. `progress` is called with probes
    done and in all.

    Raises RunCancelledError when `cancelled` became true before all had ended.
    """
    cases = [(evaluation, probe) for evaluation in evaluations for probe in evaluation.suite.probes if is_scored(probe)]
    groups: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, (_, probe) in enumerate(cases):
        assert probe.check is not None
        groups[labels(probe.check)].append(place)
    rows: dict[int, dict[str, Any]] = {}
    only_picks = False
    for choices, places in groups.items():
        for start in range(0, len(places), _BATCH):
            progress(len(rows), len(cases))
            if cancelled():
                raise RunCancelledError(
                    f"cancelled: {len(cases) - len(rows)} of {len(cases)} multiple-choice probes were not scored. "
                    "Run again to score them all."
                )
            batch = places[start : start + _BATCH]
            texts = [_text(cases[place][1]) for place in batch]
            began = time.perf_counter()
            outcomes = [_CHOSEN] * len(batch) if only_picks else list(_scores(backend, texts, choices))
            seconds = (time.perf_counter() - began) / len(batch)
            for place, text, outcome in zip(batch, texts, outcomes, strict=True):
                rows[place] = _row(*cases[place], text, outcome, seconds)
            only_picks = _CHOSEN in outcomes
    if cases:
        progress(len(cases), len(cases))
    return [rows[place] for place in range(len(cases))]


def _text(probe: Probe) -> str:
    return f"{probe.system}\n\n{probe.prompt}" if probe.system else probe.prompt


def _scores(backend: Backend, texts: Sequence[str], choices: Sequence[str]) -> Iterator[list[float] | str]:
    """The log-probabilities of each text's choices, or why there are none."""
    try:
        found = backend.classify(texts, choices)
    except BackendError as error:
        # One text that is too long must not cost the others their scores.
        if len(texts) == 1:
            yield str(error)
        else:
            for text in texts:
                yield from _scores(backend, [text], choices)
        return
    for scores in found.log_probabilities:
        if found.method != "scored":
            yield _CHOSEN
        elif all(map(math.isfinite, scores)):
            yield scores
        else:
            yield f"the model's log-probabilities are not finite: {scores}"


def _row(evaluation: Evaluation, probe: Probe, text: str, scores: list[float] | str, seconds: float) -> dict[str, Any]:
    assert probe.check is not None
    if isinstance(scores, str):
        completion = Completion(probe.id, text, "", 0, 0, "error", seconds, scores)
        return response_row(evaluation, probe, 1, completion) | {"choice_log_probabilities": "[]"}
    likeliest = str(probe.check["choices"][score_choices(probe.check, scores).likeliest])
    completion = Completion(probe.id, text, likeliest, 0, 0, "stop", seconds)
    return response_row(evaluation, probe, 1, completion) | {"choice_log_probabilities": json.dumps(scores)}
