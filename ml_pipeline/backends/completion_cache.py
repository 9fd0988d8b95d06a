"""Finished completions on disk, so that a run that was killed repeats no prompt."""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, fields, replace
from pathlib import Path

from ml_pipeline.backends.control_tokens import RenderedPrompt
from ml_pipeline.backends.interface import (
    AdapterFile,
    AdapterForm,
    AppliedProof,
    Backend,
    BackendIdentity,
    Classification,
    Completion,
    CompletionRequest,
    Message,
    Piece,
)
from ml_pipeline.errors import BackendError, StoreError, StoreFullError
from ml_pipeline.files import make_folder

_log = logging.getLogger(__name__)

_SCHEMA = "CREATE TABLE IF NOT EXISTS completions (key TEXT PRIMARY KEY, completion TEXT NOT NULL) WITHOUT ROWID"
_BUSY_TIMEOUT_S = 30.0
_BUSY_RETRY_S = 0.01
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_LOOKUP_SIZE = 500
_KEPT = ("stop", "length")


class CompletionCache:
    """One SQLite file of completions by key. Several processes may use it at once.

    Every completion is stored in a transaction of its own: once `put` returns, killing the process does not lose it. A
    damaged file is set aside beside itself, with a warning in the log, and a new one begun.

    Raises:
        StoreError: the file cannot be opened or written for another reason.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._connect()

    def get(self, keys: Sequence[str]) -> dict[str, Completion]:
        """Return the completions known for these keys."""
        found: dict[str, Completion] = {}
        for start in range(0, len(keys), _LOOKUP_SIZE):
            some = list(keys[start : start + _LOOKUP_SIZE])
            marks = ",".join("?" * len(some))
            rows = self._run(f"SELECT key, completion FROM completions WHERE key IN ({marks})", some)
            found.update({key: completion for key, text in rows if (completion := _from_json(text)) is not None})
        return found

    def put(self, key: str, completion: Completion) -> None:
        """Store a completion; the first one stored for a key stays."""
        self._run("INSERT OR IGNORE INTO completions VALUES (?, ?)", [key, json.dumps(asdict(completion))])

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> None:
        try:
            make_folder(self.path.parent)
            self._connection = self._open()
        except sqlite3.DatabaseError as error:
            self.close()
            if not _is_damage(error):
                raise self._store_error(error) from error
            self._set_aside(error)
        except OSError as error:
            raise self._store_error(error) from error

    def _open(self) -> sqlite3.Connection:
        # One statement a transaction; the caller's thread may change between runs, never within one.
        connection = sqlite3.connect(self.path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        try:
            _use_wal(connection)
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(_SCHEMA)
        except sqlite3.DatabaseError:
            connection.close()
            raise
        return connection

    def _run(self, statement: str, values: Sequence[str]) -> list[tuple[str, str]]:
        if self._connection is None:
            raise StoreError(f"{self.path}: the completion cache is closed. Make a new one.")
        try:
            return self._connection.execute(statement, values).fetchall()
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise self._store_error(error) from error
            self.close()
            self._set_aside(error)
            return self._run(statement, values)

    def _set_aside(self, error: Exception) -> None:
        aside = self.path.with_name(f"{self.path.name}.damaged-{time.time_ns()}")
        _log.warning("%s: the completion cache is damaged (%s): set aside as %s", self.path, error, aside.name)
        for suffix in ("", "-wal", "-shm"):
            # Another process may have set it aside first.
            with suppress(FileNotFoundError):
                Path(f"{self.path}{suffix}").rename(f"{aside}{suffix}")
        try:
            self._connection = self._open()
        except sqlite3.DatabaseError as again:
            raise self._store_error(again) from again

    def _store_error(self, error: Exception) -> StoreError:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            return StoreFullError(f"{self.path}: the disk is full. Free some space and run again: nothing is lost.")
        return StoreError(f"{self.path}: the completion cache cannot be used: {error}. Check the path and permissions.")


class CachedBackend:
    """A backend that asks the cache first. Only answers that ended by themselves or by length are kept.

    The key names all that an answer depends on: the identity of the backend, the adapter with its scale, the rendered
    prompt, the options and the schema; with a temperature the request's id as well, since it takes part in the seed and
    repeated draws of one prompt must differ.
    """

    def __init__(self, backend: Backend, cache: CompletionCache) -> None:
        self._backend = backend
        self._cache = cache
        self._adapter: AdapterFile | None = None

    @property
    def adapter_form(self) -> AdapterForm:
        """As the backend beneath."""
        return self._backend.adapter_form

    @property
    def constrains_json(self) -> bool:
        """As the backend beneath."""
        return self._backend.constrains_json

    @property
    def remarks(self) -> tuple[str, ...]:
        """As the backend beneath."""
        return self._backend.remarks

    def render(self, messages: Sequence[Message]) -> str:
        """The prompt that the model sees for these messages."""
        return self._backend.render(messages)

    def complete(
        self, requests: Sequence[CompletionRequest], *, cancelled: Callable[[], bool] = lambda: False
    ) -> Iterator[Completion]:
        """Yield what the cache knows first, marked `cached`, then run the rest and store each answer as it ends.

        Requests of one call with the same key are run once.
        """
        if len({request.id for request in requests}) < len(requests):
            raise BackendError("complete: two requests share an id. Give each request of a batch its own.")
        identity = self._backend.identity()
        keys = {request.id: self._key(request, identity) for request in requests}
        found = self._cache.get(sorted({key for key in keys.values() if key is not None}))
        missing: dict[str, list[CompletionRequest]] = {}
        for request in requests:
            key = keys[request.id]
            if key in found:
                yield replace(found[key], request_id=request.id, cached=True)
            else:
                missing.setdefault(key or f"no key: {request.id}", []).append(request)
        runs = self._backend.complete([group[0] for group in missing.values()], cancelled=cancelled)
        try:
            for completion in runs:
                key = keys[completion.request_id]
                kept = key is not None and completion.finish_reason in _KEPT
                if key is not None and kept:
                    self._cache.put(key, completion)
                yield completion
                for twin in missing[key or f"no key: {completion.request_id}"][1:]:
                    yield replace(completion, request_id=twin.id, cached=kept)
        finally:
            # A backend answers one call at a time: its own iterator must not outlive this one.
            if isinstance(runs, Generator):
                runs.close()

    def stream(self, request: CompletionRequest) -> Iterator[Piece]:
        """Pass through: a stream is for people who watch."""
        return self._backend.stream(request)

    def classify(self, texts: Sequence[str], labels: Sequence[str]) -> Classification:
        """Pass through."""
        return self._backend.classify(texts, labels)

    def use_adapter(self, adapter: AdapterFile | None) -> AppliedProof | None:
        """Swap the adapter, which is part of every key."""
        self._adapter = None
        proof = self._backend.use_adapter(adapter)
        self._adapter = adapter
        return proof

    def identity(self) -> BackendIdentity:
        """Say what exactly answers."""
        return self._backend.identity()

    def close(self) -> None:
        """Close the cache and the backend. Safe to call twice."""
        self._cache.close()
        self._backend.close()

    def _key(self, request: CompletionRequest, identity: BackendIdentity) -> str | None:
        """None for a prompt that cannot be rendered: the backend will say why."""
        try:
            prompt = self._backend.render(request.messages)
        except BackendError:
            return None
        adapter = None if self._adapter is None else [self._adapter.sha256, self._adapter.scale]
        drawn_for = None if request.options.temperature == 0 else request.id
        asked = [prompt, asdict(request.options), request.json_schema, request.log_probabilities]
        # Text that spells control tokens and the control tokens themselves are two prompts of one text.
        breaks = [prompt.breaks] if isinstance(prompt, RenderedPrompt) and prompt.breaks else []
        parts = [asdict(identity), adapter, asked, drawn_for, *breaks]
        # The order of a schema's properties is the order in which they are written: no sorting of keys here.
        return hashlib.sha256(json.dumps(parts).encode("utf-8")).hexdigest()


def _from_json(text: str) -> Completion | None:
    """None for a row of another version of this program: it is answered anew."""
    try:
        values = json.loads(text)
    except ValueError:
        return None
    if not isinstance(values, dict) or set(values) != {field.name for field in fields(Completion)}:
        return None
    if (kept := values["log_probabilities"]) is not None:
        values["log_probabilities"] = tuple(kept)
    return Completion(**values)


def _use_wal(connection: sqlite3.Connection) -> None:
    # SQLite's own timeout does not cover this change: two processes that open a new file together would both hold the
    # lock that the other one waits for, so one of them is refused at once.
    give_up_at = time.monotonic() + _BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > give_up_at:
                raise
            time.sleep(_BUSY_RETRY_S)


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    return _code(error) in _DAMAGED


def _code(error: sqlite3.DatabaseError) -> int:
    # Extended codes carry the plain one in their low byte.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
