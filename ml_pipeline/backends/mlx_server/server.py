"""One server, from its start to its end, and again when it is lost."""

from __future__ import annotations

import re
from pathlib import Path

from ml_pipeline.backend_settings import MlxServerSettings
from ml_pipeline.backends.guarded.link import Launcher, guard_command
from ml_pipeline.backends.guarded.session import GuardError, GuardSession
from ml_pipeline.backends.http_answer import HttpError
from ml_pipeline.backends.interface import BackendIdentity
from ml_pipeline.backends.likeliest import Position, is_finite
from ml_pipeline.backends.loopback_http import HttpClient
from ml_pipeline.backends.mlx_server import boot
from ml_pipeline.backends.mlx_server.identity import base_identity
from ml_pipeline.backends.mlx_server.probe import probe
from ml_pipeline.errors import BackendError

_HEALTH_TIMEOUT_S = 10.0
_SHA256 = re.compile(r"[0-9a-f]{64}")


class MlxServer:
    """A running mlx_lm.server with one model, and what it says about itself.

    Raises:
        BackendError: it does not get ready; the message ends with the last lines that it wrote.
    """

    def __init__(self, launcher: Launcher, model: str, settings: MlxServerSettings) -> None:
        self.where = launcher.where
        self._settings = settings
        command = guard_command(settings.python, settings.lost_after_s)
        self.session = GuardSession(
            launcher.launch(command, settings.connect_timeout_s), lost_after_s=settings.lost_after_s
        )
        try:
            self._start(model)
        except (GuardError, HttpError) as error:
            words = self.session.last_lines()
            reason = self.session.over or str(error)
            self.session.close()
            raise BackendError(
                f"mlx_server on {self.where}: the server for {model} did not get ready: {reason}. Check the model's "
                f"path, and that {' '.join(settings.python)} there has mlx-lm. The last lines it wrote:{words}"
            ) from error
        except BaseException:
            self.session.close()
            raise

    def healthy(self) -> bool:
        """Whether it can answer."""
        return self.session.over is None and self.client.healthy(_HEALTH_TIMEOUT_S)

    def probe(self, adapter_folder: str | None) -> list[Position]:
        """The likeliest tokens after the probe text; loads the adapter. Raises HttpError."""
        return probe(self.client, self.model, adapter_folder, self._settings.start_timeout_s)

    def identity(self, base_model: str) -> BackendIdentity:
        """Say what exactly answers; the host hashes the model's files for it, which takes seconds for large ones."""
        try:
            facts = self.session.ask("model", self._settings.start_timeout_s, model=self.model)
        except GuardError as error:
            raise BackendError(f"mlx_server on {self.where}: cannot tell which model answers: {error}.") from error
        hashes = [str(facts.get(name)) for name in ("sha256", "chat_template_sha256")]
        if not all(_SHA256.fullmatch(value) for value in hashes):
            raise BackendError(f"mlx_server on {self.where}: no hash of {self.model} came back. Is that host sound?")
        return base_identity("mlx_server", base_model, self.versions, facts)

    def close(self) -> None:
        """End it. Safe to call twice."""
        self.client.abort()
        self.session.close()

    def _start(self, model: str) -> None:
        settings = self._settings
        answer = self.session.ask(
            "start",
            settings.start_timeout_s,
            boot=Path(boot.__file__).read_text(encoding="utf-8"),
            model=model,
            arguments=list(settings.arguments),
        )
        port, name, versions = answer.get("port"), answer.get("model"), answer.get("versions")
        if not isinstance(port, int) or not 0 < port < 2**16 or not isinstance(name, str):
            raise GuardError("its answer names no port")
        self.model = name
        self.versions = versions if isinstance(versions, dict) else {}
        self.client = HttpClient(
            self.session.connect,
            port,
            connect_timeout_s=settings.connect_timeout_s,
            silence_timeout_s=settings.silence_timeout_s,
            answer_timeout_s=settings.answer_timeout_s,
        )
        # It listens before the model is loaded: only an answer shows that it can give one.
        self.base_probe = self.probe(None)
        if not is_finite(self.base_probe):
            raise HttpError("the bare base model computes NaN or infinite values", again=False)
