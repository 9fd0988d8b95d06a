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
from ml_pipeline.evaluation.ask import response_row
from ml_pipeline.evaluation.identity import Evaluation
from ml_pipeline.scoring.log_likelihood import labels, score_choices
from ml_pipeline.suites.suite import Probe, Suite

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
    rows: list[dict[str, Any]] = []
    total = sum(probe.scores_choices for evaluation in evaluations for probe in evaluation.suite.probes)
    for evaluation in evaluations:
        made: dict[str, dict[str, Any]] = {}
        only_picks = False
        for batch in _batches(evaluation.suite):
            done = len(rows) + len(made)
            progress(done, total)
            if cancelled():
                raise RunCancelledError(
                    f"cancelled: {total - done} of {total} multiple-choice probes were not scored. Run again to score "
                    "them all."
                )
            began = time.perf_counter()
            outcomes = [_CHOSEN] * len(batch) if only_picks else list(_scores(backend, batch))
            seconds = (time.perf_counter() - began) / len(batch)
            only_picks = _CHOSEN in outcomes
            for probe, outcome in zip(batch, outcomes, strict=True):
                made[probe.id] = _row(evaluation, probe, outcome, seconds)
        rows += [made[probe.id] for probe in evaluation.suite.probes if probe.id in made]
    if total:
        progress(total, total)
    return rows


def _batches(suite: Suite) -> Iterator[list[Probe]]:
    """Its probes whose choices are scored, those with the same choices together."""
    groups: dict[tuple[str, ...], list[Probe]] = defaultdict(list)
    for probe in suite.probes:
        if probe.scores_choices:
            groups[labels(probe.check or {})].append(probe)
    for probes in groups.values():
        for start in range(0, len(probes), _BATCH):
            yield probes[start : start + _BATCH]


def _text(probe: Probe) -> str:
    return f"{probe.system}\n\n{probe.prompt}" if probe.system else probe.prompt


def _scores(backend: Backend, probes: Sequence[Probe]) -> Iterator[list[float] | str]:
    """The log-probabilities of the choices of each probe, or why there are none; all have the same choices."""
    try:
        found = backend.classify([_text(probe) for probe in probes], labels(probes[0].check or {}))
    except BackendError as error:
        # One text that is too long must not cost the others their scores.
        if len(probes) == 1:
            yield str(error)
        else:
            for probe in probes:
                yield from _scores(backend, [probe])
        return
    for scores in found.log_probabilities:
        if found.method != "scored":
            yield _CHOSEN
        elif all(map(math.isfinite, scores)):
            yield scores
        else:
            yield f"the model's log-probabilities are not finite: {scores}"


def _row(evaluation: Evaluation, probe: Probe, scores: list[float] | str, seconds: float) -> dict[str, Any]:
    check, text = probe.check or {}, _text(probe)
    if isinstance(scores, str):
        completion, kept = Completion(probe.id, text, "", 0, 0, "error", seconds, scores), []
    else:
        likeliest = str(check["choices"][score_choices(check, scores).likeliest])
        completion, kept = Completion(probe.id, text, likeliest, 0, 0, "stop", seconds), scores
    return response_row(evaluation, probe, 1, completion) | {"choice_log_probabilities": json.dumps(kept)}
