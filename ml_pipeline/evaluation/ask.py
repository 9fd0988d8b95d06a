"""Asks a model the probes of a suite and turns its answers into rows of the table `responses`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ml_pipeline.backends.interface import Backend, Completion, CompletionRequest, GenerationOptions, Message
from ml_pipeline.errors import SettingsError
from ml_pipeline.evaluation.answering import answering, demand_all
from ml_pipeline.evaluation.identity import Evaluation
from ml_pipeline.suite_settings import SuitesSettings
from ml_pipeline.suites.suite import Probe, Suite

_SEPARATOR, _SAMPLE = "/", "#"


def suite_options(suite: Suite, settings: SuitesSettings) -> GenerationOptions:
    """The suite's own generation defaults with the user's overrides on top."""
    override = settings.generation.get(suite.name)
    temperature = override.temperature if override and override.temperature is not None else suite.temperature
    max_tokens = override.max_tokens if override and override.max_tokens is not None else suite.max_tokens
    return GenerationOptions(temperature=temperature, max_tokens=max_tokens, seed=settings.seed)


def suite_samples(suite: Suite, settings: SuitesSettings) -> int:
    """How often each probe of the suite is asked: its own number, or the user's in place of it.

    Raises SettingsError for several samples at temperature 0, which would all be the same.
    """
    override = settings.generation.get(suite.name)
    samples = override.samples if override and override.samples is not None else suite.samples
    if samples > 1 and suite_options(suite, settings).temperature == 0:
        raise SettingsError(
            f"suite {suite.name}: {samples} samples at temperature 0 are one answer {samples} times. "
            f"Set suites.generation.{suite.name}.temperature above 0, or its samples to 1."
        )
    return samples


def ask(
    backend: Backend,
    evaluations: Sequence[Evaluation],
    progress: Callable[[int, int], None],
    cancelled: Callable[[], bool] = lambda: False,
) -> list[dict[str, Any]]:
    """Ask every probe of every evaluation's suite in one batch, as often as the evaluation says; rows come back in the
    suites' order. Probes whose choices are scored are `choose`'s matter.

    `progress` is called with answers done and in all. A prompt that could not be answered is a row too, with what
    there is of its answer and the error. Raises RunCancelledError when `cancelled` became true before all had ended.
    """
    requests = {
        request.id: (evaluation, probe, sample, request)
        for evaluation in evaluations
        for probe in evaluation.suite.probes
        if not probe.scores_choices
        for sample in range(1, evaluation.samples + 1)
        for request in [_request(evaluation, probe, sample)]
    }
    if not requests:
        return []
    done: dict[str, Completion] = {}
    progress(0, len(requests))
    with answering(backend, [request for *_, request in requests.values()], cancelled) as completions:
        for completion in completions:
            done[completion.request_id] = completion
            progress(len(done), len(requests))
    demand_all(done.values(), "answers")
    return [
        response_row(evaluation, probe, sample, done[name]) for name, (evaluation, probe, sample, _) in requests.items()
    ]


def _request(evaluation: Evaluation, probe: Probe, sample: int) -> CompletionRequest:
    # The id fixes the sampler's seed: the first sample is what a suite of one sample asks.
    again = f"{_SAMPLE}{sample}" if sample > 1 else ""
    system = (Message("system", probe.system),) if probe.system else ()
    return CompletionRequest(
        id=f"{evaluation.suite.name}{_SEPARATOR}{probe.id}{again}",
        messages=(*system, Message("user", probe.prompt)),
        options=evaluation.options,
    )


def response_row(evaluation: Evaluation, probe: Probe, sample: int, completion: Completion) -> dict[str, Any]:
    """The row of `responses` for one answer that a model wrote."""
    return {
        **evaluation.identity_columns(),
        "probe_id": probe.id,
        "category": probe.category,
        "sample": sample,
        "template": probe.template or None,
        "prompt": probe.prompt,
        "rendered_prompt": completion.prompt,
        "response": completion.text,
        "prompt_tokens": completion.prompt_tokens,
        "completion_tokens": completion.completion_tokens,
        "finish_reason": completion.finish_reason,
        "seconds": completion.seconds,
        "error": completion.error,
        "choice_log_probabilities": None,
    }
