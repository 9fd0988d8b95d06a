"""The llama.cpp backend: one base model in this process, adapters swapped over it, many requests answered together."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Generator, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from ml_pipeline.adapters.base_gguf import file_sha256, read_base_facts
from ml_pipeline.backends.batched import BatchedBackend
from ml_pipeline.backends.control_tokens import ControlTokens, RenderedPrompt, render_apart, tokens_apart
from ml_pipeline.backends.cpu_threads import physical_cores
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
from ml_pipeline.backends.kernels import Kernels
from ml_pipeline.backends.llama_cpp.adapter_slot import AdapterSlot
from ml_pipeline.backends.llama_cpp.batch import TokenBatch
from ml_pipeline.backends.llama_cpp.chat_template import ChatTemplate
from ml_pipeline.backends.llama_cpp.classifier import Classifier
from ml_pipeline.backends.llama_cpp.job import Job
from ml_pipeline.backends.llama_cpp.memory import SequenceMemory
from ml_pipeline.backends.llama_cpp.model import CONTROL, USER_DEFINED, KvType, LoadedModel, check_numbers
from ml_pipeline.backends.llama_cpp.samplers import SamplerFactory
from ml_pipeline.backends.llama_cpp.scheduler import Scheduler
from ml_pipeline.backends.llama_cpp.trial import ModelShape, proven_kernels
from ml_pipeline.backends.token_prefixes import Tokens
from ml_pipeline.errors import BackendError

DEFAULT_SEQUENCES = 8
DEFAULT_CONTEXT_TOKENS = 2048
DEFAULT_MIN_SHARED_PREFIX = 16


class LlamaCppBackend(BatchedBackend[Job]):
    """Implements `Backend` with llama.cpp's low-level API. Not thread-safe; one answer iterator at a time.

    `context_tokens` is for each sequence: a prompt and its answer together must fit it, and memory for `sequences` of
    them is taken at the start. `threads` None uses the physical cores this process may run on; `gpu_layers` is how many
    layers go to the GPU (a negative number: all). `kv_type` f32 is for comparisons of logits. With `extra_buffers`
    llama.cpp may repack weights for this CPU. Prompts of one `complete` call that begin with the same
    `min_shared_prefix` tokens or more have those decoded once. `decoded` is the copy of `gguf` that `decoded_weights`
    made: it answers for the original, and the identity says so. A child process tries the library out first, and what
    it finds is kept in the folder `trials`: see `proven_kernels`.

    Repeat penalty looks at the last 64 tokens of the answer, not at the prompt, as llama-cpp-python does. Control
    tokens written out in a message are read as text.

    Raises:
        BackendError: the model cannot be loaded, or llama.cpp crashes with it; the message says why.
    """

    adapter_form: AdapterForm = "gguf"
    constrains_json = True

    def __init__(
        self,
        gguf: Path,
        base_model: str,
        *,
        sequences: int = DEFAULT_SEQUENCES,
        context_tokens: int = DEFAULT_CONTEXT_TOKENS,
        threads: int | None = None,
        gpu_layers: int = 0,
        kv_type: KvType = "f16",
        extra_buffers: bool = True,
        min_shared_prefix: int = DEFAULT_MIN_SHARED_PREFIX,
        decoded: Path | None = None,
        trials: Path | None = None,
    ) -> None:
        super().__init__()
        self.base_model = base_model
        usual = Kernels(threads or physical_cores(), extra_buffers)
        check_numbers(gguf, sequences, context_tokens, usual.threads, kv_type)
        read_base_facts(gguf)
        shape = ModelShape(gguf, sequences, context_tokens, gpu_layers, kv_type, decoded)
        self._proven = proven_kernels(shape, usual, trials)
        self._quantisation_suffix = "" if decoded in (None, gguf) else " in f16"
        self.model = LoadedModel(
            gguf,
            sequences=sequences,
            context_tokens=context_tokens,
            kernels=self._proven.kernels,
            gpu_layers=gpu_layers,
            kv_type=kv_type,
            weights=decoded,
        )
        try:
            self._template = ChatTemplate(self.model)
        except BackendError:
            self.model.close()
            raise
        self._memory = SequenceMemory(self.model, min_shared_prefix)
        self._batch = TokenBatch(self.model)
        self._samplers = SamplerFactory(self.model)
        self._scheduler = Scheduler(self.model, self._memory, self._batch)
        self._adapters = AdapterSlot(self.model, self._memory, self._batch)
        self._classifier = Classifier(self.model, self._memory, self._batch)

    @cached_property
    def control(self) -> ControlTokens:
        """The control tokens of the loaded vocabulary."""
        known = ControlTokens(self.model.tokens_of_kind(CONTROL))
        return known.with_framing(self.model.tokens_of_kind(USER_DEFINED), self._template.render)

    def render(self, messages: Sequence[Message]) -> RenderedPrompt:
        """The prompt that the model sees for these messages."""
        return render_apart(messages, self._template.render, self.control)

    def tokens(self, prompt: RenderedPrompt) -> Tokens:
        """The tokens of a prompt that `render` made."""

        def tokenise(text: str) -> list[int]:
            found: list[int] = self.model.tokenize(text, add_special=True, parse_special=True).tolist()
            return found

        return np.array(tokens_apart(prompt, tokenise, self.control), dtype=np.int32)

    def classify(self, texts: Sequence[str], labels: Sequence[str]) -> Classification:
        """Log-probability of each label as the continuation of each text, without the chat template.

        See `Classifier.scores`.
        """
        with self._calls.during("classify"):
            return Classification(self._classifier.scores(texts, labels), "scored")

    def use_adapter(self, adapter: AdapterFile | None) -> AppliedProof | None:
        """Swap to this GGUF adapter, or to the bare base with None. See `Backend.use_adapter`."""
        with self._calls.during("use_adapter"):
            return next(iter(self._adapters.use([] if adapter is None else [adapter])), None)

    def use_adapters(self, adapters: Sequence[AdapterFile]) -> list[AppliedProof]:
        """Swap to several GGUF adapters at once, each with its scale, which add up; see `AdapterSlot.use`."""
        with self._calls.during("use_adapters"):
            return self._adapters.use(adapters)

    @property
    def remarks(self) -> tuple[str, ...]:
        """Which kernels were left out because they crash here."""
        return self._proven.remarks

    def identity(self) -> BackendIdentity:
        """Say what exactly answers; the version names llama.cpp's, the type of the key-value cache, and kernels that
        were left out, as well."""
        version = importlib.metadata.version("llama-cpp-python")
        native = self.model.lib.llama_version().decode()
        return BackendIdentity(
            backend="llama_cpp",
            backend_version=f"llama-cpp-python {version}, llama.cpp {native}, kv {self.model.kv_type}"
            f"{self._proven.version_suffix}",
            base_model=self.base_model,
            base_sha256=file_sha256(self.model.path),
            quantisation=self.model.facts.quantisation + self._quantisation_suffix,
            chat_template_sha256=self._template.sha256,
        )

    def close(self) -> None:
        """Free the model. Safe to call twice."""
        if not self._calls.close():
            return
        self._template.close()
        self._samplers.close()
        self._adapters.clear()
        self.model.close()

    def _run(self, jobs: Sequence[Job], cancelled: Callable[[], bool]) -> Generator[list[Completion], None, None]:
        return self._scheduler.run(jobs, cancelled)

    def _release(self, job: Job) -> None:
        job.sampler.close()

    def _prepare(self, request: CompletionRequest) -> Job | Completion:
        prompt = RenderedPrompt("")
        size = 0
        try:
            prompt = self.render(request.messages)
            tokens = self.tokens(prompt)
            size = len(tokens)
            self._check_size(size)
            return Job(request, str(prompt), tokens, self._samplers.make(request))
        except (BackendError, UnicodeEncodeError) as error:
            return Completion(request.id, str(prompt), "", size, 0, "error", 0.0, error=str(error))

    def _check_size(self, prompt_tokens: int) -> None:
        if prompt_tokens == 0:
            raise BackendError("the prompt is empty after the chat template")
        if prompt_tokens >= self.model.context_tokens:
            raise BackendError(
                f"the prompt has {prompt_tokens} tokens, but the context holds {self.model.context_tokens}, the answer "
                "included. Raise context_tokens or shorten the prompt."
            )
