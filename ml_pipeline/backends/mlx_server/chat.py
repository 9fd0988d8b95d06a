"""One request in the server's words, and its answer out of the events that come back."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from ml_pipeline.backends.control_tokens import KNOWN_SHAPES, spaced_messages
from ml_pipeline.backends.delta_text import DeltaText
from ml_pipeline.backends.generation_options import PENALTY_WINDOW
from ml_pipeline.backends.http_answer import HttpError
from ml_pipeline.backends.interface import CompletionRequest, FinishReason
from ml_pipeline.backends.seeds import request_seed
from ml_pipeline.backends.served import ServedAnswer
from ml_pipeline.errors import BackendError

PATH = "/v1/chat/completions"
_ENDS: dict[str, FinishReason] = {"stop": "stop", "length": "length", "tool_calls": "stop"}


def request_body(request: CompletionRequest, model: str, adapter_folder: str | None) -> dict[str, Any]:
    """The JSON of a request.

    The model goes by the name that the server was started with, never as its default: for that one the server leaves
    the request's adapter out without a word. A seed goes only with a temperature, because the server does not batch
    seeded requests. Stop strings are found on our side: the server knows them only in one spelling of tokens.

    Raises:
        BackendError: it asks for something that the server cannot do.
    """
    options = request.options
    if request.json_schema is not None:
        raise BackendError("mlx_lm.server cannot hold an answer to a JSON schema. Use the llama_cpp backend for this.")
    body: dict[str, Any] = {
        "model": model,
        "messages": [asdict(message) for message in spaced_messages(request.messages, KNOWN_SHAPES)],
        "max_tokens": options.max_tokens,
        "temperature": options.temperature,
        "top_p": options.top_p,
        "top_k": options.top_k,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if options.repeat_penalty != 1.0:
        # The server counts the prompt's tokens as well.
        body |= {"repetition_penalty": options.repeat_penalty, "repetition_context_size": PENALTY_WINDOW}
    if options.temperature > 0:
        body["seed"] = request_seed(options.seed, request.id)
    if adapter_folder is not None:
        body["adapters"] = adapter_folder
    return body


def counting_body(body: dict[str, Any]) -> dict[str, Any]:
    """A body that asks only how many tokens the same prompt has."""
    kept = {key: value for key, value in body.items() if key not in ("stream_options", "seed")}
    return kept | {"stream": False, "max_tokens": 1, "temperature": 0.0}


def prompt_tokens(answer: dict[str, Any]) -> int:
    """The count in an answer's usage; raises HttpError when there is none."""
    return _count(answer.get("usage"), "prompt_tokens")


class Answer(ServedAnswer):
    """Puts an answer together."""

    def __init__(self, stop: tuple[str, ...], prompt: str = "") -> None:
        super().__init__(stop, prompt)
        self._delta = DeltaText()

    def add(self, event: dict[str, Any]) -> None:
        """Take one event; raises HttpError when it is not what the server sends."""
        choices = event.get("choices")
        if not isinstance(choices, list):
            raise HttpError("the server sent an event without choices", again=False)
        if not choices:
            self.prompt_tokens = prompt_tokens(event)
            self.completion_tokens = _count(event["usage"], "completion_tokens")
            return
        choice = choices[0] if isinstance(choices[0], dict) else {}
        piece = self._delta.text_of(choice.get("delta"))
        if piece:
            # At least one token each; the server's own count comes at the end.
            self.completion_tokens += 1
            self.text.add(piece.encode("utf-8", "replace"))
        if self.text.stopped:
            self.finish = "stop"
        elif (reason := choice.get("finish_reason")) is not None:
            self.finish = _ENDS.get(str(reason))


def _count(usage: Any, name: str) -> int:
    value = usage.get(name) if isinstance(usage, dict) else None
    if not isinstance(value, int) or value < 0:
        raise HttpError(f"the server's usage holds no {name}", again=False)
    return value
