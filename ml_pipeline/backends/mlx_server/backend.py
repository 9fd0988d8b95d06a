"""The mlx_server backend: a model that answers on the host where it was trained, with adapters by their paths there."""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import asdict

from ml_pipeline.adapters.adapter import Adapter
from ml_pipeline.backend_settings import MlxServerSettings
from ml_pipeline.backends.control_tokens import KNOWN_SHAPES, spaced_messages
from ml_pipeline.backends.guarded.link import Launcher
from ml_pipeline.backends.guarded.session import GuardError
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
from ml_pipeline.backends.likeliest import is_finite, largest_difference
from ml_pipeline.backends.mlx_server.chat import PATH, Answer, counting_body, prompt_tokens, request_body
from ml_pipeline.backends.mlx_server.remote_adapter import RemoteAdapter, is_unchanged, stage
from ml_pipeline.backends.mlx_server.server import MlxServer
from ml_pipeline.backends.served import ServedBackend
from ml_pipeline.errors import AdapterError, AdapterNotAppliedError, BackendError

# An adapter of zeros changes nothing at all; this only asks for a difference that can matter to a token's choice.
_NOISE = 1e-6


class MlxServerBackend(ServedBackend[MlxServer]):
    """Implements `Backend` with mlx_lm.server on a training host. Not thread-safe; one answer iterator at a time.

    `model` is the path of an MLX model on that host, or a hub id that it has. An adapter goes by its path there, and
    its `sha256`, which `adapter` tells, must be that of the files as they are now. Answers at temperature 0 are batched
    by the server; those with a temperature carry a seed, and the server answers seeded requests one after another. Each
    change of the adapter loads the whole model anew: that is how the server works. `seconds` of a completion includes
    the wait for its turn on the server. Where an answer ends by itself, the server drops the bytes of a character that
    was not whole yet.

    Raises:
        BackendError: the server does not get ready; the message holds its last words.
    """

    adapter_form: AdapterForm = "in_place"
    constrains_json = False

    def __init__(self, launcher: Launcher, model: str, base_model: str, settings: MlxServerSettings) -> None:
        super().__init__(concurrency=settings.concurrency, attempts=settings.attempts)
        self.base_model = base_model
        self._launcher = launcher
        self._model = model
        self._settings = settings
        self._server = self._new_server()
        self._identity: BackendIdentity | None = None
        self._staged: RemoteAdapter | None = None

    def render(self, messages: Sequence[Message]) -> str:
        """The messages as JSON, control tokens that they spell with a space each: the server applies the template."""
        return json.dumps([asdict(message) for message in spaced_messages(messages, KNOWN_SHAPES)], ensure_ascii=False)

    def classify(self, texts: Sequence[str], labels: Sequence[str]) -> Classification:
        """Refused: the server tells log-probabilities only of the tokens that it chose."""
        raise BackendError("mlx_lm.server cannot classify. Use the llama_cpp backend for this.")

    def adapter(self, weights: str, config: str | None = None) -> Adapter:
        """The record of an adapter on the host, checked there and hashed as if it had been fetched.

        Raises AdapterError, BackendError.
        """
        with self._calls.during("adapter"):
            return self._insist(lambda: stage(self._server.session, self._server.where, weights, config).adapter)

    def identity(self) -> BackendIdentity:
        """Say what exactly answers. The hashes are those of the files on the host, taken once."""
        if self._identity is None:
            self._identity = self._server.identity(self.base_model)
        return self._identity

    def _new_server(self) -> MlxServer:
        return MlxServer(self._launcher, self._model, self._settings)

    def _take_out(self) -> None:
        self._staged = None

    def _ask(self, request: CompletionRequest) -> tuple[Answer, Generator[None, None, None]]:
        answer = Answer(request.options.stop, self.render(request.messages))
        return answer, self._events(request, answer)

    def _events(self, request: CompletionRequest, answer: Answer) -> Generator[None, None, None]:
        """Feed the server's events to `answer`, one a step; raises HttpError, BackendError."""
        folder = self._staged.folder if self._staged else None
        body = request_body(request, self._server.model, folder)
        with closing(self._server.client.events(PATH, body)) as events:
            for event in events:
                answer.add(event)
                yield
                if answer.text.stopped:
                    break
        if answer.finish is None:
            raise HttpError("the answer ended without saying why", again=False)
        if answer.text.stopped:
            answer.prompt_tokens = prompt_tokens(self._server.client.post(PATH, counting_body(body)))

    def _apply(self, adapter: AdapterFile) -> AppliedProof:
        if adapter.scale != 1.0:
            raise AdapterError(f"{adapter.path}: mlx_lm.server cannot scale an adapter by {adapter.scale}; only by 1.")
        server, weights = self._server, adapter.path.as_posix()
        server.client.allow()
        staged = stage(server.session, server.where, weights)
        if adapter.sha256 != staged.adapter.sha256:
            raise AdapterError(
                f"{server.where}: {weights} is not what it was: its hash is {staged.adapter.sha256}, not "
                f"{adapter.sha256}. It was written again meanwhile; discover it anew."
            )
        difference = self._difference(server, staged, weights)
        self._staged = staged
        return AppliedProof(staged.adapter.tensor_count, difference, PROBE_TEXT)

    @staticmethod
    def _difference(server: MlxServer, staged: RemoteAdapter, weights: str) -> float:
        try:
            found = server.probe(staged.folder)
            unchanged = is_unchanged(server.session, staged)
        except (HttpError, GuardError) as error:
            if server.session.over is not None:
                raise BackendError(f"mlx_server on {server.where}: {server.session.over}.") from error
            raise AdapterError(
                f"{server.where}: mlx_lm.server cannot load {weights}: {error}. Check that it was trained on this base "
                "model."
            ) from error
        if not unchanged:
            raise AdapterError(f"{server.where}: {weights} was written while it was loaded. Score it again later.")
        if not is_finite(found):
            raise AdapterError(
                f"{server.where}: {weights}: the model computes NaN or infinite values under this adapter. Training "
                "diverged, or the scale is wrong."
            )
        difference = largest_difference(server.base_probe, found)
        if difference <= _NOISE:
            raise AdapterNotAppliedError(
                f"{server.where}: {weights}: not applied: the model answers as without it. Its weights are zero "
                "(a checkpoint from before the first step?) or its scale is."
            )
        return difference
