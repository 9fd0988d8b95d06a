"""One llama-server with one base model and at most one adapter, from its start to its end."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ml_pipeline.adapters.base_gguf import BaseModelFacts
from ml_pipeline.backend_settings import LlamaServerSettings
from ml_pipeline.backends.base_template import own_template
from ml_pipeline.backends.cpu_threads import patient_threads
from ml_pipeline.backends.guarded.link import guard_command
from ml_pipeline.backends.guarded.local_launcher import LocalLauncher
from ml_pipeline.backends.guarded.session import GuardError, GuardSession
from ml_pipeline.backends.http_answer import HttpError
from ml_pipeline.backends.interface import PROBE_TEXT, AdapterFile
from ml_pipeline.backends.kernels import Kernels
from ml_pipeline.backends.likeliest import Position, is_finite
from ml_pipeline.backends.llama_server.messages import COMPLETION, Lora, likeliest, next_token_body
from ml_pipeline.backends.loopback_http import HttpClient
from ml_pipeline.backends.plain_template import PLAIN_TEMPLATE
from ml_pipeline.backends.token_prefixes import Tokens
from ml_pipeline.backends.trials import Death
from ml_pipeline.errors import BackendError

_SOCKET = "llama.sock"
_PORT = 80  # in addresses only: the server listens on a socket in a folder
_ALL_LAYERS = 9999
_CONNECT_TIMEOUT_S = 10.0
_HEALTH_TIMEOUT_S = 10.0
_LOOK_EVERY_S = 0.02
_LOST_AFTER_S = 300.0
_PROBE_TOKENS = 1000
_TRIAL_TOKENS = 128


class ServerCrashedError(BackendError):
    """A llama-server was ended by a signal; `death` says by which, and its last lines."""

    def __init__(self, message: str, death: Death) -> None:
        super().__init__(f"{message} The last lines it wrote:{death.said}")
        self.death = death


class LlamaServer:
    """A running llama-server.

    It listens on a Unix socket in a folder of this user's alone, so that there is no port to find or to be taken by
    another, and asks for a key that only this object knows. Each request says at which scale it wants the adapter.
    Nothing is kept from one request to the next, so that answers do not depend on what was asked before.

    Raises:
        ServerCrashedError: it is ended by a signal before it is ready.
        BackendError: it does not get ready; the message ends with the last lines that it wrote.
    """

    def __init__(
        self,
        binary: Path,
        facts: BaseModelFacts,
        settings: LlamaServerSettings,
        kernels: Kernels,
        adapter: AdapterFile | None,
    ) -> None:
        self._adapter = None if adapter is None else _stamp(adapter.path)
        self._settings = settings
        self._process: int | None = None
        self._folder = ""
        self._link = LocalLauncher().launch(guard_command((sys.executable,), _LOST_AFTER_S), _CONNECT_TIMEOUT_S)
        self.session = GuardSession(self._link, lost_after_s=_LOST_AFTER_S)
        key = secrets.token_urlsafe()
        self.client = HttpClient(
            self._connect,
            _PORT,
            connect_timeout_s=_CONNECT_TIMEOUT_S,
            silence_timeout_s=settings.silence_timeout_s,
            answer_timeout_s=settings.answer_timeout_s,
            api_key=key,
        )
        try:
            self._start(_command(binary, facts, settings, kernels, adapter), key)
            self.props = self.client.get("/props", settings.start_timeout_s)
            self._check_context(facts.path)
            self._whole_character = int(self.tokenize("a")[-1])
            self.base_probe = self.probe(None)
            if not is_finite(self.base_probe):
                raise HttpError("the bare base model computes NaN or infinite values", again=False)
        except (GuardError, HttpError) as error:
            death, words = self.session.death("getting ready"), self.session.last_lines()
            reason = self.session.over or str(error)
            self.close()
            if death is not None:
                raise ServerCrashedError(f"llama_server: {binary} {death} for {facts.path}.", death) from error
            raise BackendError(
                f"llama_server: {binary} did not get ready for {facts.path}: {reason}. Check the file, and that this "
                f"build of llama.cpp is new enough for it. The last lines it wrote:{words}"
            ) from error
        except BaseException:
            self.close()
            raise

    def try_out(self) -> None:
        """Have it decode in the shapes that a run uses: prompts of many tokens, one in each slot at once.

        Raises:
            ServerCrashedError: it was ended by a signal meanwhile.
            HttpError: it answers otherwise than it should.
        """
        sequences, size = self._settings.sequences, min(_TRIAL_TOKENS, self._settings.context_tokens - 2)
        prompt = np.resize(self.tokenize(PROBE_TEXT), size).tolist()
        try:
            with ThreadPoolExecutor(sequences) as pool:
                list(pool.map(lambda _: self.likeliest(prompt, None, 1), range(sequences)))
        except HttpError as error:
            if death := self.session.death(f"decoding {sequences} prompts of {size} tokens"):
                raise ServerCrashedError(f"llama_server: it {death}.", death) from error
            raise

    def healthy(self) -> bool:
        """Whether it can answer."""
        return self.session.over is None and self.client.healthy(_HEALTH_TIMEOUT_S)

    def probe(self, scale: float | None) -> list[Position]:
        """The likeliest tokens after the probe text, with the adapter at this scale or without. Raises HttpError."""
        found = self.likeliest(PROBE_TEXT, scale, _PROBE_TOKENS)
        if not found:
            raise HttpError("the server gives no log-probabilities", again=False)
        return [found]

    def likeliest(
        self, prompt: str | list[int], scale: float | None, top: int, *, forced: int | None = None
    ) -> Position:
        """Log-probabilities of the `top` likeliest next tokens, and that of `forced`, by token. Raises HttpError.

        See `messages.likeliest`; with None, a token that is a whole character is taken.
        """
        body = next_token_body(prompt, self.lora(scale), top, self._whole_character if forced is None else forced)
        return likeliest(self.client.post(COMPLETION, body))

    def tokenize(self, text: str) -> Tokens:
        """The tokens of a text, begun as a prompt is, control tokens written out included. Raises HttpError."""
        answer = self.client.post("/tokenize", {"content": text, "add_special": True, "parse_special": True})
        try:
            return np.array(answer["tokens"], dtype=np.int32)
        except (LookupError, TypeError, ValueError, OverflowError) as error:
            raise HttpError("the server answered without tokens", again=False) from error

    def has_loaded(self, adapter: AdapterFile) -> bool:
        """Whether it was started with this very file, unchanged since. Raises OSError when the file is gone."""
        return self._adapter == _stamp(adapter.path)

    def lora(self, scale: float | None) -> Lora:
        """What a request says to get the adapter at this scale, or the bare base with None.

        Raises BackendError when an adapter is wanted that the server does not have since it was started again.
        """
        if self._adapter is None:
            if scale is not None:
                raise BackendError("the server was lost, and its adapter could not be applied again. Use it anew.")
            return []
        # Left out, it would be applied at 1, whatever --lora-init-without-apply promises.
        return [{"id": 0, "scale": scale or 0.0}]

    def close(self) -> None:
        """End it. Safe to call twice."""
        self.client.abort()
        self.session.close()
        if self._link.process.returncode != 0 and self._process is not None:
            # The guard was killed, so nobody else ends what it started.
            with suppress(OSError):
                os.killpg(self._process, signal.SIGKILL)
        self._process = None

    def _start(self, command: list[str], key: str) -> None:
        """Run it and wait until it can answer; raises GuardError, HttpError."""
        give_up_at = time.monotonic() + self._settings.start_timeout_s
        environment = {"LLAMA_API_KEY": key, **patient_threads()}
        answer = self.session.ask("run", self._settings.start_timeout_s, command=command, environment=environment)
        self._process, self._folder = int(answer["process"]), str(answer["folder"])
        while not self.healthy():
            if self.session.over is not None:
                raise GuardError(self.session.over, gone=True)
            if time.monotonic() > give_up_at:
                raise HttpError(f"it did not answer within {self._settings.start_timeout_s:g} s", again=False)
            time.sleep(_LOOK_EVERY_S)

    def _connect(self, _port: int, timeout_s: float) -> socket.socket:
        if self.session.over is not None:
            raise ConnectionError(self.session.over)
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.settimeout(timeout_s)
            connection.connect(str(Path(self._folder, _SOCKET)))
        except OSError:
            connection.close()
            raise
        return connection

    def _check_context(self, gguf: Path) -> None:
        context_tokens = self._settings.context_tokens
        defaults: Any = self.props.get("default_generation_settings")
        found = defaults.get("n_ctx") if isinstance(defaults, dict) else None
        if isinstance(found, int) and found < context_tokens:
            raise BackendError(
                f"{gguf}: context_tokens is {context_tokens}, but the model was trained for {found}. "
                f"Set context_tokens to {found} or less."
            )


def _stamp(path: Path) -> tuple[Path, int, int, int]:
    """What changes when a file is written again."""
    status = path.stat()
    return path, status.st_size, status.st_mtime_ns, status.st_ino


def _command(
    binary: Path, facts: BaseModelFacts, settings: LlamaServerSettings, kernels: Kernels, adapter: AdapterFile | None
) -> list[str]:
    threads = str(kernels.threads)
    command = [str(binary), "--model", str(facts.path), "--host", "{folder}/" + _SOCKET]
    command += ["--parallel", str(settings.sequences), "--no-kv-unified"]
    command += ["--ctx-size", str(settings.sequences * settings.context_tokens), "--no-context-shift"]
    command += ["--threads", threads, "--threads-batch", threads]
    command += ["--n-gpu-layers", str(settings.gpu_layers if settings.gpu_layers >= 0 else _ALL_LAYERS)]
    if not kernels.extra_buffers:
        command += ["--no-repack"]
    if not kernels.flash_attention:
        command += ["--flash-attn", "off"]
    # Prompts kept for later requests would change how those are cut into batches, and so their last digits.
    command += ["--cache-ram", "0", "--ctx-checkpoints", "0", "--jinja"]
    if own_template(facts) is None:
        command += ["--chat-template", PLAIN_TEMPLATE]
    if adapter is not None:
        command += ["--lora", str(adapter.path)]
    return [*command, *settings.arguments]
