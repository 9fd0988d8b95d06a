"""The mlx backend: one base model in this process, adapters swapped over it, many requests answered together."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ml_pipeline.backend_settings import MlxSettings
from ml_pipeline.backends.batched import BatchedBackend
from ml_pipeline.backends.control_tokens import ControlTokens, RenderedPrompt, render_apart, tokens_apart
from ml_pipeline.backends.guarded.guard import model_facts, versions
from ml_pipeline.backends.interface import (
    AdapterFile,
    AdapterForm,
    AppliedProof,
    BackendIdentity,
    Classification,
    Completion,
    CompletionRequest,
    Message,
)
from ml_pipeline.backends.mlx.trial import try_out
from ml_pipeline.backends.mlx_server.identity import base_identity
from ml_pipeline.errors import BackendError

if TYPE_CHECKING:
    from ml_pipeline.backends.mlx.job import Job


class MlxBackend(BatchedBackend["Job"]):
    """Implements `Backend` with mlx-lm. Not thread-safe; one answer iterator at a time.

    `model` is a folder as mlx-lm writes it, or the hub id of a model that was downloaded to this machine. Adapters are
    mlx-lm's own files: LoRA, DoRA and full weights. What all prompts of one `complete` or `classify` call begin with is
    read once. A request that is drawn with a temperature gets the same random numbers wherever it stands in a batch;
    how a batch is composed moves logits only by rounding.

    Repeat penalty looks at the last 64 tokens of the answer, not at the prompt. Control tokens written out in a message
    are read as text. Texts are mlx-lm's: it drops the space at the start of an answer for many models, and
    ends a character that was cut off with U+FFFD.

    Raises:
        BackendError: the model cannot be loaded, mlx-lm is not installed, or it crashes in the child process that tries
            it out first; the message says why.
    """

    adapter_form: AdapterForm = "mlx"
    constrains_json = True

    def __init__(self, model: str, base_model: str, settings: MlxSettings, *, trials: Path | None = None) -> None:
        try_out(model, settings, trials)
        try:
            from ml_pipeline.backends.mlx import adapter_slot, batch_run, classifier, job, json_constraint, token_choice
            from ml_pipeline.backends.mlx.chat_template import bounded_template
            from ml_pipeline.backends.mlx.model import LoadedModel
        except ImportError as error:
            raise BackendError(
                f"mlx-lm cannot be imported: {error}. Run: pip install 'mlx-lm>=0.32' llguidance"
            ) from error
        super().__init__()
        self.base_model = base_model
        self.model = LoadedModel(model, settings)
        self._new_job, self._new_choice, self._run_batch = job.Job, token_choice.TokenChoice, batch_run.run
        self._adapter = adapter_slot.AdapterSlot(self.model)
        self._constraints = json_constraint.SchemaConstraints(self.model.tokenizer)
        self._classifier = classifier.Classifier(self.model)
        self._identity: BackendIdentity | None = None
        try:
            self._template = bounded_template(self.model.tokenizer, str(self.model.folder))
        except BackendError:
            self.model.close()
            raise

    @cached_property
    def control(self) -> ControlTokens:
        """The control tokens of the loaded vocabulary."""
        added = self.model.tokenizer.added_tokens_decoder
        special = {token: added[token].content for token in added if added[token].special}
        others = {token: added[token].content for token in added if not added[token].special}
        return ControlTokens(special).with_framing(others, self._render)

    def render(self, messages: Sequence[Message]) -> RenderedPrompt:
        """The prompt that the model sees for these messages."""
        return render_apart(messages, self._render, self.control)

    def tokens(self, prompt: RenderedPrompt) -> list[int]:
        """The tokens of a prompt that `render` made."""
        templated = self.model.tokenizer.has_chat_template
        return tokens_apart(prompt, lambda text: self.model.encode(text, templated=templated), self.control)

    def _render(self, messages: Sequence[Message]) -> str:
        if self._template is not None:
            return self._template.render(messages)
        chat = [{"role": message.role, "content": message.content} for message in messages]
        try:
            return str(self.model.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
        except Exception as error:
            raise BackendError(f"{self.model.folder}: the chat template refuses these messages: {error}") from error

    def classify(self, texts: Sequence[str], labels: Sequence[str]) -> Classification:
        """Log-probability of each label as the continuation of each text, without the chat template.

        See `Classifier.scores`.
        """
        with self._calls.during("classify"):
            return Classification(self._classifier.scores(texts, labels), "scored")

    def use_adapter(self, adapter: AdapterFile | None) -> AppliedProof | None:
        """Swap to this adapter of mlx-lm, or to the bare base with None. See `Backend.use_adapter`.

        Its `sha256` is that of `read_adapter`, and must be that of the files as they are now.
        """
        with self._calls.during("use_adapter"):
            return self._adapter.use(adapter)

    def identity(self) -> BackendIdentity:
        """Say what exactly answers. The hashes are those of the model's files, taken once."""
        if self._identity is None:
            self._identity = base_identity("mlx", self.base_model, versions(), model_facts(self.model.folder))
        return self._identity

    def close(self) -> None:
        """Free the model. Safe to call twice."""
        if self._calls.close():
            if self._template is not None:
                self._template.close()
            self._adapter.clear()
            self.model.close()

    def _run(self, jobs: Sequence[Job], cancelled: Callable[[], bool]) -> Generator[list[Completion], None, None]:
        return self._run_batch(self.model, jobs, cancelled)

    def _prepare(self, request: CompletionRequest) -> Job | Completion:
        prompt = RenderedPrompt("")
        tokens: list[int] = []
        try:
            prompt = self.render(request.messages)
            tokens = self.tokens(prompt)
            self._check_size(len(tokens))
            constraint = None if request.json_schema is None else self._constraints.make(request.json_schema)
            return self._new_job(self.model, request, str(prompt), tokens, self._new_choice(request, constraint))
        except BackendError as error:
            return Completion(request.id, str(prompt), "", len(tokens), 0, "error", 0.0, error=str(error))

    def _check_size(self, prompt_tokens: int) -> None:
        if prompt_tokens == 0:
            raise BackendError("the prompt is empty after the chat template")
        if prompt_tokens >= self.model.context_tokens:
            raise BackendError(
                f"the prompt has {prompt_tokens} tokens, but the context holds {self.model.context_tokens}, the answer "
                "included. Raise context_tokens, if the model allows it, or shorten the prompt."
            )
