"""The llama_server backend: llama.cpp's server, started for as long as the backend lives, and asked over HTTP."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Sequence
from contextlib import closing
from functools import cached_property, lru_cache
from pathlib import Path

from ml_pipeline.adapters.base_gguf import file_sha256, read_base_facts
from ml_pipeline.adapters.gguf_header import read_token_kinds
from ml_pipeline.backend_settings import LlamaServerSettings
from ml_pipeline.backends.base_template import own_template
from ml_pipeline.backends.bounded_template import BoundedTemplate, TemplateLimitError
from ml_pipeline.backends.control_tokens import ControlTokens, RenderedPrompt, render_apart, tokens_apart
from ml_pipeline.backends.cpu_threads import physical_cores
from ml_pipeline.backends.fan_out import fan_out
from ml_pipeline.backends.gguf_adapter_check import check_gguf_adapter
from ml_pipeline.backends.http_answer import HttpError
from ml_pipeline.backends.interface import (
    PROBE_TEXT,
    AdapterFile,
    AdapterForm,
    AppliedProof,
    BackendIdentity,
    Classification,
    CompletionRequest,
    Message,
)
from ml_pipeline.backends.kernels import Kernels, KernelTrial, ProvenKernels
from ml_pipeline.backends.likeliest import Position, is_finite, largest_difference
from ml_pipeline.backends.llama_server.binary import find_llama_server
from ml_pipeline.backends.llama_server.label_scores import label_scores
from ml_pipeline.backends.llama_server.messages import COMPLETION, Answer, completion_body
from ml_pipeline.backends.llama_server.server import LlamaServer, ServerCrashedError
from ml_pipeline.backends.served import ServedBackend
from ml_pipeline.backends.thinking_marks import is_thinking_token
from ml_pipeline.backends.trials import Death, TrialRecords, files_hash
from ml_pipeline.errors import AdapterError, AdapterNotAppliedError, BackendError
from ml_pipeline.printable import printable

# The same batch computes the same bits, so that any difference at all is the adapter's; this only asks for one that can
# matter to a token's choice.
_NOISE = 1e-6
_PROMPTS_KEPT = 4096
_TEMPLATE_TIMEOUT_S = 120.0
_WAYS_OUT = (
    "Set the backend's binary to another build of llama.cpp's server, update the driver of the GPU, or set another "
    "backend in pipeline.yaml."
)


class LlamaServerBackend(ServedBackend[LlamaServer]):
    """Implements `Backend` with llama-server as a child process. Not thread-safe; one answer iterator at a time.

    The server ends with this process, however that ends. One that is lost is started again, as `ServedBackend` says.
    An adapter that the server does not have loaded needs another start of it, since it takes adapters only then; the
    bare base and back again needs none.

    Control tokens written out in a message are read as text. Options act as in the llama_cpp backend, but repeat
    penalty looks at the end of the prompt as well: the server counts its tokens. Log-probabilities are None for an
    answer with a character of several tokens, of which the server tells only the last one's.

    Kernels with which the server crashes on this machine are left out: see `KernelTrial.proven`; what was found out is
    kept in the folder `trials`.

    Raises:
        BackendError: the program is not there, or the server does not get ready; the message holds its last words.
    """

    adapter_form: AdapterForm = "gguf"
    constrains_json = True

    def __init__(
        self, gguf: Path, base_model: str, settings: LlamaServerSettings, *, trials: Path | None = None
    ) -> None:
        super().__init__(concurrency=settings.sequences, attempts=settings.attempts)
        self.base_model = base_model
        self._settings = settings
        self._binary = find_llama_server(settings.binary)
        self._facts = read_base_facts(gguf)
        self._scale: float | None = None
        self._bounded = _bounded(own_template(self._facts), str(gguf))
        self._prompt = lru_cache(_PROMPTS_KEPT)(self._render)
        self._proven, self._server = self._proven_server(trials)

    @property
    def remarks(self) -> tuple[str, ...]:
        """Which kernels were left out because they crash here."""
        return self._proven.remarks

    @cached_property
    def control(self) -> ControlTokens:
        """The control tokens of the model's vocabulary, out of its file."""
        unknown, control, added = 2, 3, 4
        path = self._facts.path
        try:
            kinds = read_token_kinds(path, frozenset({unknown, control, added}))
        except (OSError, ValueError) as error:
            raise BackendError(
                f"{path}: its vocabulary cannot be read: {error}. Fetch the base model again."
            ) from error
        known = ControlTokens({**kinds[unknown], **kinds[control]})
        return known.with_framing(kinds[added], self._framing)

    def render(self, messages: Sequence[Message]) -> RenderedPrompt:
        """The prompt that the model sees for these messages, as the server's chat template makes it."""
        self._allow()
        return self._insist(lambda: self._prompt(tuple(messages)))

    def classify(self, texts: Sequence[str], labels: Sequence[str]) -> Classification:
        """Log-probability of each label as the continuation of each text, without the chat template.

        See `label_scores`.
        """
        with self._calls.during("classify"):
            self._allow()
            return Classification(self._insist(lambda: self._scores(texts, labels)), "scored")

    def identity(self) -> BackendIdentity:
        """Say what exactly answers; the version names the server's build and the arguments given to it."""
        props = self._server.props
        version = " ".join([printable(props.get("build_info", "unknown build"), 100), *self._settings.arguments])
        version += self._proven.version_suffix
        return BackendIdentity(
            backend="llama_server",
            backend_version=f"llama-server {version}",
            base_model=self.base_model,
            base_sha256=file_sha256(self._facts.path),
            quantisation=self._facts.quantisation,
            chat_template_sha256=hashlib.sha256(str(props.get("chat_template")).encode("utf-8", "replace")).hexdigest(),
        )

    def _new_server(self) -> LlamaServer:
        return LlamaServer(self._binary, self._facts, self._settings, self._proven.kernels, None)

    def _proven_server(self, trials: Path | None) -> tuple[ProvenKernels, LlamaServer]:
        """A server with kernels that do not crash here; see `KernelTrial.proven`."""
        started: dict[Kernels, LlamaServer] = {}
        usual = Kernels(self._settings.threads or physical_cores())

        def start(kernels: Kernels) -> LlamaServer:
            return LlamaServer(self._binary, self._facts, self._settings, kernels, None)

        def try_out(kernels: Kernels) -> Death | str | None:
            server = None
            try:
                server = start(kernels)
                server.try_out()
            except ServerCrashedError as error:
                if server is not None:
                    server.close()
                return error.death
            except (BackendError, HttpError) as error:
                if server is not None:
                    server.close()
                return str(error)
            started[kernels] = server
            return None

        trial = KernelTrial(
            program="llama-server",
            model=str(self._facts.path),
            build=str(self._binary),
            ways_out=_WAYS_OUT,
            depends_on={
                "program": files_hash(self._binary.resolve().parent),
                "model": file_sha256(self._facts.path),
                "options": self._settings.model_dump(
                    mode="json", exclude={"attempts", "start_timeout_s", "priority", "answer_timeout_s"}
                ),
            },
        )
        proven = trial.proven(usual, TrialRecords(trials), try_out)
        return proven, started.get(proven.kernels) or start(proven.kernels)

    def _take_out(self) -> None:
        self._scale = None

    def _apply(self, adapter: AdapterFile) -> AppliedProof:
        tensors = check_gguf_adapter(adapter.path, self._facts)
        if "," in str(adapter.path):
            raise AdapterError(f"{adapter.path}: llama-server takes no path with a comma. Move the cache elsewhere.")
        if not self._server.has_loaded(adapter):
            self._load(adapter)
        difference = self._difference(adapter)
        self._scale = adapter.scale
        return AppliedProof(tensors, difference, PROBE_TEXT)

    def _load(self, adapter: AdapterFile) -> None:
        self._server.close()
        try:
            self._server = LlamaServer(self._binary, self._facts, self._settings, self._proven.kernels, adapter)
        except BackendError as error:
            self._server = self._new_server()
            raise AdapterError(
                f"{adapter.path}: llama-server cannot load this adapter for {self._facts.path.name}. Check that it was "
                f"trained on this base model. {error}"
            ) from error

    def _difference(self, adapter: AdapterFile) -> float:
        found = self._probe(adapter)
        if not is_finite(found):
            raise AdapterError(
                f"{adapter.path}: the model's logits are NaN or infinite under this adapter. Training diverged, or the "
                "scale is wrong."
            )
        difference = largest_difference(self._server.base_probe, found)
        if difference <= _NOISE:
            raise AdapterNotAppliedError(
                f"{adapter.path}: not applied: the model answers as without it. Its weights are zero (a checkpoint "
                "from before the first step?) or its scale is."
            )
        return difference

    def _probe(self, adapter: AdapterFile) -> list[Position]:
        self._server.client.allow()
        try:
            return self._server.probe(adapter.scale)
        except HttpError:
            # The server may have been lost for another reason.
            self._load(adapter)
        try:
            return self._server.probe(adapter.scale)
        except HttpError as error:
            reason = f"{error}. The last lines it wrote:{self._server.session.last_lines()}"
            self._server.close()
            self._server = self._new_server()
            raise AdapterError(f"{adapter.path}: llama-server fails under this adapter: {reason}") from error

    def _ask(self, request: CompletionRequest) -> tuple[Answer, Generator[None, None, None]]:
        options = request.options
        answer = Answer(options.stop, options.max_tokens, log_probabilities=request.log_probabilities)
        return answer, self._events(request, answer)

    def _events(self, request: CompletionRequest, answer: Answer) -> Generator[None, None, None]:
        """Feed the server's events to `answer`, one a step; raises HttpError, BackendError."""
        prompt = self._prompt(request.messages)
        answer.prompt = str(prompt)
        if not answer.prompt:
            raise BackendError("the prompt is empty after the chat template")
        # The server makes control tokens of all that a text spells: such a prompt goes as tokens.
        sent = tokens_apart(prompt, self._tokenise, self.control) if prompt.breaks else answer.prompt
        body = completion_body(request, sent, self._server.lora(self._scale))
        if marks := [text for text in self.control.texts.values() if is_thinking_token(text)]:
            body["preserved_tokens"] = marks
        # Closing the connection frees the server's slot.
        with closing(self._server.client.events(COMPLETION, body)) as events:
            for event in events:
                answer.add(event)
                yield
                if answer.finish is not None:
                    break
            else:
                raise HttpError("the answer ended without saying why", again=True)
        if answer.lost_text:
            answer.add_lost(self._server.client.post(COMPLETION, body | {"stream": False}))

    def _render(self, messages: tuple[Message, ...]) -> RenderedPrompt:
        return render_apart(messages, self._apply_template, self.control)

    def _apply_template(self, messages: Sequence[Message]) -> str:
        if self._bounded is not None:
            try:
                self._bounded.render(messages)
            except TemplateLimitError:
                raise
            except BackendError:
                # Engines differ; whether the template takes these messages is for the server to say.
                pass
        plain = [{"role": message.role, "content": message.content} for message in messages]
        try:
            prompt = self._server.client.post("/apply-template", {"messages": plain}, _TEMPLATE_TIMEOUT_S).get("prompt")
        except HttpError as error:
            if error.timed_out:
                # A thread of it may still be at work on the template, and take all memory.
                self._server.close()
            raise
        if not isinstance(prompt, str):
            raise HttpError("the server answered without a prompt", again=False)
        return prompt

    def close(self) -> None:
        """See `ServedBackend.close`."""
        super().close()
        if self._bounded is not None:
            self._bounded.close()

    def _framing(self, messages: Sequence[Message]) -> str:
        """As `_apply_template`; raises BackendError where the template refuses the messages."""
        try:
            return self._apply_template(messages)
        except HttpError as error:
            if error.again:
                raise
            raise BackendError(str(error)) from error

    def _tokenise(self, text: str) -> list[int]:
        found: list[int] = self._server.tokenize(text).tolist()
        return found

    def _scores(self, texts: Sequence[str], labels: Sequence[str]) -> list[list[float]]:
        server, context_tokens = self._server, self._settings.context_tokens

        def score(item: tuple[int, str]) -> list[float]:
            return label_scores(server, *item, labels, scale=self._scale, context_tokens=context_tokens)

        items = list(enumerate(texts))
        scored = fan_out(score, items, at_once=self._concurrency, cancelled=lambda: False, stop=server.client.abort)
        with closing(scored):
            rows = {index: row for (index, _), row in scored}
        return [rows[index] for index, _ in items]


def _bounded(template: str | None, where: str) -> BoundedTemplate | None:
    """The template as jinja2 has it, to try out on messages before the server gets them: that cannot be bounded.

    None without one, or where jinja2 does not know what the server's own engine may know. Raises TemplateLimitError.
    """
    if template is None:
        return None
    variables = {"bos_token": "", "eos_token": "", "add_generation_prompt": True, "tools": None}
    try:
        return BoundedTemplate(template, where, variables)
    except TemplateLimitError:
        raise
    except BackendError:
        return None
