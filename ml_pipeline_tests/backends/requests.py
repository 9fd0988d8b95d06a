"""Short ways to say what the backend tests ask."""

from __future__ import annotations

from typing import Any

from ml_pipeline.backends.interface import (
    Backend,
    Completion,
    CompletionRequest,
    GenerationOptions,
    Message,
)

QUESTIONS = (
    "What is the capital of France?",
    "Name three colours of the rainbow.",
    "Write one sentence about the sea.",
    "Who wrote Hamlet?",
    "Give me a word that rhymes with cat.",
    "Is ice cold?",
)


def ask(question: str, request_id: str = "", schema: dict[str, Any] | None = None, **options: Any) -> CompletionRequest:
    """One question as a request; `options` are those of GenerationOptions, 16 tokens unless told."""
    options.setdefault("max_tokens", 16)
    return CompletionRequest(
        request_id or question, (Message("user", question),), GenerationOptions(**options), json_schema=schema
    )


def answer(backend: Backend, request: CompletionRequest) -> Completion:
    """The one completion of one request."""
    (completion,) = backend.complete([request])
    return completion


def answers(backend: Backend, requests: list[CompletionRequest]) -> dict[str, Completion]:
    """Completions by request id."""
    return {completion.request_id: completion for completion in backend.complete(requests)}
