"""Adapters on Ollama: each becomes a model of its own there, out of the base's name and uploaded files.

Source: Ollama's API documentation, "Create a Model", "Push a Blob", "Delete a Model" (docs/api.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ml_pipeline.adapters.file_hash import file_sha256
from ml_pipeline.adapters.peft_files import PEFT_CONFIG, PEFT_WEIGHTS
from ml_pipeline.backends.http.client import ServerError
from ml_pipeline.backends.http.requester import Requester
from ml_pipeline.backends.http.server_models import is_left_over, new_name
from ml_pipeline.errors import AdapterError

# Ollama's own are top_k 40 and a penalty of 1.1, and OpenAI's API has no word for them.
_NEUTRAL = {"top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0}
_NOT_FOUND = 404


class OllamaModels:
    """Makes models on one Ollama server; `base` is the name of a model that it has.

    The bare base answers under a name of ours as well, so that it has the same neutral samplers as its adapters.
    """

    def __init__(self, requester: Requester, base: str) -> None:
        self._requester = requester
        self._client = requester.client
        self._base = base

    async def begin(self) -> str:
        """See `AdapterPath`."""
        listed, _ = await self._requester.insist(lambda _: self._client.get("/api/tags"))
        for name in _names(listed):
            if is_left_over(name):
                await self.take_off(name)
        name = new_name()
        await self._create(name, {})
        return name

    async def put_on(self, name: str, folder: Path) -> None:
        """See `AdapterPath`. Raises AdapterError, HttpError."""
        files = {file: f"sha256:{file_sha256(folder / file)}" for file in (PEFT_WEIGHTS, PEFT_CONFIG)}
        for file, digest in files.items():
            await self._upload(digest, folder / file)
        await self._create(name, {"adapters": files})

    async def take_off(self, name: str) -> None:
        """See `AdapterPath`."""
        try:
            await self._requester.insist(lambda _: self._client.post("/api/delete", {"model": name}, "DELETE"))
        except ServerError as error:
            if error.status != _NOT_FOUND:
                raise

    async def _upload(self, digest: str, file: Path) -> None:
        path = f"/api/blobs/{digest}"
        try:
            await self._requester.insist(lambda _: self._client.head(path))
        except ServerError as error:
            if error.status != _NOT_FOUND:
                raise
            await self._requester.insist(lambda _: self._client.upload(path, file))

    async def _create(self, name: str, adapters: dict[str, Any]) -> None:
        body = {"model": name, "from": self._base, "parameters": _NEUTRAL, "stream": False, **adapters}
        answer = await self._requester.post_unless_refused("/api/create", body)
        if answer.get("status") != "success":
            words = self._client.words(answer.get("error") or answer.get("status"))
            raise AdapterError(f"{self._client.where}: Ollama did not make the model {name}: {words}.")


def _names(listed: dict[str, Any]) -> list[str]:
    models = listed.get("models")
    return [str(model.get("name")) for model in models if isinstance(model, dict)] if isinstance(models, list) else []
