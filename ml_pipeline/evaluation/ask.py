"""Asks a model the probes of a suite and turns its answers into rows of the table `responses`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ml_pipeline.backends.interface import Backend, Completion, CompletionRequest, GenerationOptions, Message
from ml_pipeline.evaluation.answering import answering, demand_all
from ml_pipeline.evaluation.identity import Evaluation
from ml_pipeline.settings import SuitesSettings
from ml_pipeline.suites.suite import Probe, Suite

_SEPARATOR = "/"


def suite_options(suite: Suite, settings: SuitesSettings) -> GenerationOptions:
    """The suite's own generation defaults with the user's overrides on top."""
    override = settings.generation.get(suite.name)
    temperature = override.temperature if override and override.temperature is not None else suite.temperature
    max_tokens = override.max_tokens if override and override.max_tokens is not None else suite.max_tokens
    return GenerationOptions(temperature=temperature, max_tokens=max_tokens, seed=settings.seed)


def ask(
    backend: Backend,
    evaluations: Sequence[Evaluation],
    progress: Callable[[int, int], None],
    cancelled: Callable[[], bool] = lambda: False,
) -> list[dict[str, Any]]:
    """Ask every probe of every evaluation's suite in one batch; rows come back in the suites' order.

    `progress` is called with answers done and in all. A prompt that could not be answered is a row too, with what
    there is of its answer and the error. Raises RunCancelledError when `cancelled` became true before all had ended.
    """
    requests = {
        request.id: (evaluation, probe, request)
        for evaluation in evaluations
        for probe in evaluation.suite.probes
        for request in [_request(evaluation, probe)]
    }
    done: dict[str, Completion] = {}
    progress(0, len(requests))
    with answering(backend, [request for _, _, request in requests.values()], cancelled) as completions:
        for completion in completions:
            done[completion.request_id] = completion
            progress(len(done), len(requests))
    demand_all(done.values(), "answers")
    return [_row(evaluation, probe, done[name]) for name, (evaluation, probe, _) in requests.items()]


def _request(evaluation: Evaluation, probe: Probe) -> CompletionRequest:
    system = (Message("system", probe.system),) if probe.system else ()
    return CompletionRequest(
        id=f"{evaluation.suite.name}{_SEPARATOR}{probe.id}",
        messages=(*system, Message("user", probe.prompt)),
        options=evaluation.options,
    )


def _row(evaluation: Evaluation, probe: Probe, completion: Completion) -> dict[str, Any]:
    return {
        **evaluation.identity_columns(),
        "probe_id": probe.id,
        "category": probe.category,
        "prompt": probe.prompt,
        "rendered_prompt": completion.prompt,
        "response": completion.text,
        "prompt_tokens": completion.prompt_tokens,
        "completion_tokens": completion.completion_tokens,
        "finish_reason": completion.finish_reason,
        "seconds": completion.seconds,
        "error": completion.error,
    }
