"""Adapters on vLLM: loaded by the path of their folder, which must be the same there, and asked for by name.

Source: vLLM's documentation, "LoRA Adapters", "Dynamically serving LoRA Adapters".
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ml_pipeline.backends.http.client import ServerError
from ml_pipeline.backends.http.requester import Requester
from ml_pipeline.backends.http.server_models import is_left_over
from ml_pipeline.errors import AdapterError

_NOT_FOUND = 404


class VllmAdapters:
    """Loads adapters into one vLLM server that answers for `base`."""

    def __init__(self, requester: Requester, base: str) -> None:
        self._requester = requester
        self._client = requester.client
        self._base = base

    async def begin(self) -> str:
        """See `AdapterPath`."""
        listed, _ = await self._requester.insist(lambda _: self._client.get("/v1/models"))
        for name in model_names(listed):
            if is_left_over(name):
                await self.take_off(name)
        return self._base

    async def put_on(self, name: str, folder: Path) -> None:
        """See `AdapterPath`. Raises AdapterError, HttpError."""
        body = {"lora_name": name, "lora_path": str(folder.resolve())}
        try:
            await self._requester.post_unless_refused("/v1/load_lora_adapter", body)
        except ServerError as error:
            if error.status != _NOT_FOUND:
                raise
            raise AdapterError(
                f"{error}. Start vLLM with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, where it sees "
                f"{folder.resolve()} under the same path."
            ) from error

    async def take_off(self, name: str) -> None:
        """See `AdapterPath`."""
        try:
            await self._requester.post("/v1/unload_lora_adapter", {"lora_name": name})
        except ServerError as error:
            if error.status != _NOT_FOUND:
                raise


def model_names(listed: dict[str, Any]) -> list[str]:
    """The names in an answer of `/v1/models`."""
    models = listed.get("data")
    return [str(model.get("id")) for model in models if isinstance(model, dict)] if isinstance(models, list) else []
