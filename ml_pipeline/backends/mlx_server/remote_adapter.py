"""An adapter where training left it: checked and hashed over there, linked for the server, nothing of it copied."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from ml_pipeline.adapters.adapter import Adapter
from ml_pipeline.adapters.read import read_adapter_without_data
from ml_pipeline.backends.guarded.session import GuardError, GuardSession
from ml_pipeline.errors import AdapterError, BackendError

CONFIG_NAME = "adapter_config.json"
_SHA256 = re.compile(r"[0-9a-f]{64}")
# Hashing a large file on a busy disk takes its time.
_READ_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class RemoteAdapter:
    """A checked adapter on the server's host. `folder` is what the server is told; `files` are what it links to."""

    adapter: Adapter
    folder: str
    files: tuple[str, ...]
    fingerprints: tuple[tuple[int, ...], ...]


def stage(session: GuardSession, where: str, weights: str, config: str | None = None) -> RemoteAdapter:
    """Check the adapter at the path `weights` of the host and make it ready for the server.

    `config` is its adapter_config.json; unset, the one beside it.

    Raises:
        AdapterError: there is no such file, or it is damaged or foreign; names every problem.
        BackendError: the host does not answer.
    """
    config = config or str(PurePosixPath(weights).with_name(CONFIG_NAME))
    try:
        answer = session.ask("adapter", _READ_TIMEOUT_S, weights=weights, config=config)
    except GuardError as error:
        if error.gone:
            raise BackendError(f"mlx_server on {where}: {error}. The next request starts it again.") from error
        raise AdapterError(
            f"{where}: cannot read the adapter {weights}: {error}. Check the path on that host, and who may read it."
        ) from error
    return _checked(answer, where, weights, config)


def is_unchanged(session: GuardSession, staged: RemoteAdapter) -> bool:
    """Whether the files are still those that were hashed. Raises GuardError when the host does not answer."""
    answer = session.ask("fingerprints", _READ_TIMEOUT_S, paths=list(staged.files))
    return _fingerprints(answer) == staged.fingerprints


def _checked(answer: dict[str, Any], where: str, weights: str, config: str) -> RemoteAdapter:
    folder, files, sha256 = answer.get("folder"), answer.get("files"), answer.get("weights_sha256")
    size, header, text = answer.get("size_bytes"), answer.get("header"), answer.get("config_text")
    if not (
        isinstance(folder, str)
        and isinstance(files, list)
        and all(isinstance(file, str) for file in files)
        and isinstance(sha256, str)
        and _SHA256.fullmatch(sha256)
        and isinstance(size, int)
        and 0 <= size < 2**60
        and isinstance(header, str)
        and isinstance(text, str)
    ):
        raise BackendError(f"mlx_server on {where}: an answer that makes no sense for {weights}. Is that host sound?")
    adapter = _read(where, weights, config, header=header, size_bytes=size, text=text, sha256=sha256)
    if adapter.format != "mlx":
        raise AdapterError(
            f"{where}: {weights} was saved by {adapter.format}, and mlx_lm.server loads only what mlx-lm saved. "
            "Give this base model the backend llama_cpp, which takes PEFT's adapters."
        )
    return RemoteAdapter(adapter, folder, tuple(files), _fingerprints(answer))


def _read(where: str, weights: str, config: str, *, header: str, size_bytes: int, text: str, sha256: str) -> Adapter:
    """The same checks as for a fetched file, over a file of the same size that holds the header and then a hole."""
    with tempfile.TemporaryDirectory(prefix="mlx-server-") as folder:
        weights_here, config_here = Path(folder, "weights.safetensors"), Path(folder, CONFIG_NAME)
        try:
            config_here.write_bytes(text.encode("latin-1"))
            with weights_here.open("wb") as file:
                file.write(header.encode("latin-1")[:size_bytes])
                file.truncate(size_bytes)
            adapter = read_adapter_without_data(weights_here, config_here, sha256)
        except UnicodeEncodeError as error:
            raise BackendError(f"mlx_server on {where}: the header of {weights} came garbled.") from error
        except AdapterError as error:
            message = str(error).replace(str(weights_here), weights).replace(str(config_here), config)
            raise AdapterError(f"{where}: {message}") from error
    return replace(adapter, path=Path(weights), config_path=Path(config))


def _fingerprints(answer: dict[str, Any]) -> tuple[tuple[int, ...], ...]:
    rows = answer.get("fingerprints")
    return tuple(tuple(row) for row in rows if isinstance(row, list)) if isinstance(rows, list) else ()
