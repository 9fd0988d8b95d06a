"""The judges of a run: who they are, and their backends, opened once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

from ml_pipeline.backend_settings import AnyBackend
from ml_pipeline.backends.completion_cache import CachedBackend, CompletionCache
from ml_pipeline.backends.interface import Backend
from ml_pipeline.base_models import backend_settings
from ml_pipeline.errors import BackendError, MlPipelineError
from ml_pipeline.evaluation.loading import open_backend
from ml_pipeline.evaluation.placement import Placement, base_placement
from ml_pipeline.judge_settings import EMBEDDED
from ml_pipeline.settings import Settings


@dataclass(frozen=True, slots=True)
class Judge:
    """Who judges: the name under which it is recorded, and what answers for it, or why nothing does."""

    name: str
    backend: Backend | MlPipelineError


class Judges:
    """The judges that pipeline.yaml names. Each backend of a judge's own is opened when it is first asked for, and
    kept until the context ends; one that cannot be opened is not waited for a second time. `note` takes the remarks of
    those that are opened."""

    def __init__(self, settings: Settings, cache_file: Path, note: Callable[[str], None]) -> None:
        self._settings = settings
        self._cache_file = cache_file
        self._note = note
        self._opened: dict[str, Backend | MlPipelineError] = {}
        self._closing = ExitStack()

    @property
    def needs_embedded(self) -> bool:
        """Whether the checkpoint's own base model is one of them."""
        return EMBEDDED in self._settings.judge.members

    def present(self, embedded: Backend | None) -> list[Judge]:
        """All judges, in the settings' order, no two of one name; `embedded` is the checkpoint's own base model."""
        judges: dict[str, Judge] = {}
        for member in self._settings.judge.members:
            backend: Backend | MlPipelineError
            if member == EMBEDDED:
                backend = embedded or BackendError("judge: the checkpoint's own base model is not loaded.")
            else:
                backend = self._open(member)
            name = member if isinstance(backend, MlPipelineError) else _name(backend)
            if name in judges:
                name = f"{name}, {member}"
            judges[name] = Judge(name, backend)
        return list(judges.values())

    def close(self) -> None:
        """Close the backends that were opened here."""
        self._opened.clear()
        self._closing.close()

    def __enter__(self) -> Judges:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _open(self, member: str) -> Backend | MlPipelineError:
        if member not in self._opened:
            try:
                runner, place = _runner(self._settings, member)
                backend = self._closing.enter_context(closing(open_backend(self._settings, runner, place)))
                for remark in backend.remarks:
                    self._note(f"judge {member}: {remark}")
                cache = self._closing.enter_context(closing(CompletionCache(self._cache_file)))
                self._opened[member] = CachedBackend(backend, cache)
            except MlPipelineError as error:
                self._opened[member] = error
        return self._opened[member]


def panel_name(judges: Sequence[Judge]) -> str:
    """The name under which what these judges say together is recorded."""
    return " + ".join(judge.name for judge in judges)


def _runner(settings: Settings, member: str) -> tuple[AnyBackend, Placement]:
    """What runs a judge that pipeline.yaml names by its backend or by its base model."""
    if member in settings.base_models:
        runner, base_model = backend_settings(settings, member), member
    else:
        assert settings.judge.base_model is not None, "the settings' validation demands it"
        runner, base_model = settings.backends[member], settings.judge.base_model
    return runner, base_placement(settings, base_model, runner)


def _name(backend: Backend) -> str:
    identity = backend.identity()
    return f"{identity.base_model} {identity.quantisation}".strip()
