"""What every model that answers can do: batch first, with partial answers kept beside the error that ended them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length", "error", "cancelled"]
AdapterForm = Literal["gguf", "mlx", "peft", "in_place", "none"]
"""What a backend loads: a GGUF LoRA, what mlx-lm wrote, a PEFT folder, a file where it lies on its host, or nothing."""
ClassifyMethod = Literal["scored", "chosen"]

PROBE_TEXT = "The best thing"
"""What backends give a model to see whether an adapter changes it: short, since every swap decodes it, but of several
tokens, since over a single one attention cannot change."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """How tokens are chosen. `top_k` 0, `top_p` 1.0 and `repeat_penalty` 1.0 switch that sampler off;
    `temperature` 0 is greedy."""

    temperature: float = 0.0
    max_tokens: int = 500
    top_k: int = 0
    top_p: float = 1.0
    repeat_penalty: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """One prompt to be answered. `id` is unique in its batch and comes back on the completion.

    `json_schema` constrains the answer to JSON of that schema where the backend can; others ignore nothing in
    silence: they raise BackendError. `log_probabilities` asks for those of the answer's tokens.
    """

    id: str
    messages: tuple[Message, ...]
    options: GenerationOptions = field(default_factory=GenerationOptions)
    json_schema: dict[str, Any] | None = None
    log_probabilities: bool = False


@dataclass(frozen=True, slots=True)
class Completion:
    """What came back for one request.

    `text` is all that was produced, also when `error` says what ended it early. `prompt` is the text after the chat
    template. `seconds` is wall time from the first prompt token to the last produced one. `log_probabilities` are
    natural logarithms, one a token of the answer in order (what ended it left out), of the model as it is: before
    temperature, penalties and grammar. None unless they were asked for and the backend tells them.
    """

    request_id: str
    prompt: str
    text: str
    prompt_tokens: int
    completion_tokens: int
    finish_reason: FinishReason
    seconds: float
    error: str | None = None
    cached: bool = False
    log_probabilities: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer as it is made. Only the last piece has `completion`: the whole answer, and why it ended."""

    text: str
    completion: Completion | None = None


@dataclass(frozen=True, slots=True)
class Classification:
    """Log-probability of each label as the continuation of each text: one row a text, one number a label.

    "scored": natural logarithms of P(label | text) over all of the label's tokens. "chosen": the server cannot score;
    it was made to choose one label, and a row holds the normalised logarithms of its choice (0 for a label chosen
    outright, minus infinity for the others).
    """

    log_probabilities: list[list[float]]
    method: ClassifyMethod


@dataclass(frozen=True, slots=True)
class BackendIdentity:
    """What exactly answers: enough to tell two results apart that must not share a curve."""

    backend: str
    backend_version: str
    base_model: str
    base_sha256: str
    quantisation: str
    chat_template_sha256: str


@dataclass(frozen=True, slots=True)
class AdapterFile:
    """An adapter in the form that a backend loads. `sha256` is that of the checkpoint it was made from.

    `config` is the adapter_config.json of what mlx-lm wrote; None: the one beside `path`.
    """

    path: Path
    sha256: str
    scale: float = 1.0
    config: Path | None = None


@dataclass(frozen=True, slots=True)
class AppliedProof:
    """Evidence that an adapter changed the model: measured on `probe_text`, base against adapter.

    `max_abs_logit_difference` is over the vocabulary at the last position of the probe text; a proof holds when it
    is finite and above zero and every tensor of the file was matched. A server that shows only its likeliest tokens
    gives a lower bound of it, in log-probabilities.
    """

    tensors_matched: int
    max_abs_logit_difference: float
    probe_text: str


class Backend(Protocol):
    """A model that answers. Not thread-safe unless its class says so."""

    @property
    def adapter_form(self) -> AdapterForm:
        """The form of adapter file that `use_adapter` takes."""

    @property
    def constrains_json(self) -> bool:
        """Whether it can hold an answer to a JSON schema; a request with one is refused where it cannot."""

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader of the run should know of how it answers, a sentence each: kernels left out because they crash.

        Nothing in most cases.
        """

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt that the model sees for these messages: the text after the chat template.

        A backend whose server applies the template returns the messages themselves as JSON. Raises BackendError when
        the template refuses them.
        """

    def complete(
        self, requests: Sequence[CompletionRequest], *, cancelled: Callable[[], bool] = lambda: False
    ) -> Iterator[Completion]:
        """Answer all requests, yielding each as it ends, in any order; never raises for a single request.

        `cancelled` is asked again and again: once it is true, what runs or waits comes back as "cancelled" with the
        text it had. Raises BackendError when two requests share an id.
        """

    def stream(self, request: CompletionRequest) -> Iterator[Piece]:
        """Yield the answer piece by piece; the pieces' texts joined are the text of the completion in the last one.

        As with `complete`, an error ends the answer and stands in its completion. Closing the iterator frees what it
        holds.
        """

    def classify(self, texts: Sequence[str], labels: Sequence[str]) -> Classification:
        """Log-probability of each label as the continuation of each text, and how it was found."""

    def use_adapter(self, adapter: AdapterFile | None) -> AppliedProof | None:
        """Swap to this adapter, or to the bare base with None; raises AdapterError unless proven applied.

        After an AdapterError the bare base answers.
        """

    def identity(self) -> BackendIdentity:
        """Say what exactly answers."""

    def close(self) -> None:
        """Free the model. Safe to call twice."""
