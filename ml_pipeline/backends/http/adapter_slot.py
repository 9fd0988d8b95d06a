"""The adapter that a server has on: at most one of ours, proven, and gone afterwards."""

from __future__ import annotations

import logging

from ml_pipeline.backends.http.client import ServerError
from ml_pipeline.backends.http.ollama import OllamaModels
from ml_pipeline.backends.http.peft_folder import check_peft_folder
from ml_pipeline.backends.http.proof import Prover
from ml_pipeline.backends.http.requester import Requester
from ml_pipeline.backends.http.server_models import AdapterPath, new_name
from ml_pipeline.backends.http.vllm import VllmAdapters
from ml_pipeline.backends.http_answer import HttpError
from ml_pipeline.backends.interface import PROBE_TEXT, AdapterFile, AppliedProof
from ml_pipeline.errors import AdapterError

_log = logging.getLogger(__name__)
_PATHS: dict[str, type[OllamaModels | VllmAdapters]] = {"ollama": OllamaModels, "vllm": VllmAdapters}


class AdapterSlot:
    """Puts adapters on, one at a time. `model` is the name that answers now."""

    def __init__(self, requester: Requester, base: str, kind: str) -> None:
        self.model = base
        self._requester = requester
        self._base = base
        self._path: AdapterPath | None = _PATHS[kind](requester, base) if kind in _PATHS else None
        self._ours: set[str] = set()
        self._own_base: str | None = None
        self._prover = Prover(requester, base)

    async def begin(self) -> None:
        """Ready the server; raises HttpError, AdapterError."""
        if self._path is None:
            return
        given, self._base = self._base, await self._path.begin()
        self.model = self._base
        self._own_base = self._base if self._base != given else None
        self._prover = Prover(self._requester, self._base)

    async def use(self, adapter: AdapterFile | None) -> AppliedProof | None:
        """Put this adapter on in place of the last, or none. After an error the bare base answers.

        Raises:
            AdapterError: it is not proven to be applied.
            HttpError: the server does not answer, or has too much to do.
        """
        self.model = self._base
        await self._clear()
        if adapter is None:
            return None
        if self._path is None:
            raise AdapterError(
                f"{self._requester.client.where}: OpenAI's API has no path for adapters. Set `adapters` of the http "
                "backend to ollama or vllm if it is one of them, or use llama_cpp or mlx_server."
            )
        if adapter.scale != 1.0:
            raise AdapterError(f"{adapter.path}: a server cannot scale an adapter by {adapter.scale:g}; only by 1.")
        tensors = check_peft_folder(adapter.path)
        name = new_name()
        # Known before it is made: whatever happens meanwhile, it is removed.
        self._ours.add(name)
        try:
            await self._path.put_on(name, adapter.path)
            difference = await self._prover.difference(name)
        except HttpError as error:
            if isinstance(error, ServerError) and not error.is_refusal:
                raise
            raise AdapterError(f"{adapter.path}: the server cannot use it: {error}") from error
        except (AdapterError, OSError) as error:
            raise AdapterError(f"{adapter.path}: {error}") from error
        self.model = name
        return AppliedProof(tensors, difference, PROBE_TEXT)

    async def end(self) -> None:
        """Remove from the server what is ours."""
        if self._own_base is not None:
            self._ours.add(self._own_base)
        await self._clear()

    async def _clear(self) -> None:
        for name in list(self._ours):
            assert self._path is not None
            try:
                await self._path.take_off(name)
            except HttpError as error:
                _log.warning("the model %s is left on the server: %s", name, error)
            self._ours.discard(name)
