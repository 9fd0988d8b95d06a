"""What exactly answers, as far as a server tells: its software, the model's digest, quantisation and template."""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from typing import Any

from ml_pipeline.backends.http.chat import PATH
from ml_pipeline.backends.http.client import ServerError
from ml_pipeline.backends.http.requester import Requester
from ml_pipeline.backends.http.vllm import model_names
from ml_pipeline.backends.http_answer import HttpError
from ml_pipeline.backends.interface import BackendIdentity
from ml_pipeline.errors import BackendError
from ml_pipeline.printable import printable

_UNKNOWN = "unknown"
_DIGEST = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
_LONGEST_WORD = 100
# Fewer are too few for some: they answer 400 where nothing but a thought was finished.
_TRIED_TOKENS = 16
# Facts of the file that llama-server tells; its name and time of loading say nothing about it.
_FILE_FACTS = ("n_params", "size", "n_vocab", "n_embd", "ftype")


async def find_model(requester: Requester, wanted: str | None) -> str:
    """The model's name as the server writes it, out of its own list.

    Raises:
        BackendError: it has no such model, or it has not just one and none is named.
        HttpError: it does not answer.
    """
    names = model_names(await _facts(requester, "/v1/models"))
    where = requester.client.where
    shown = ", ".join(requester.client.words(name) for name in names[:20]) or "none"
    if wanted is None:
        if len(names) != 1:
            raise BackendError(f"{where} has these models: {shown}. Name one of them as `model`.")
        return names[0]
    # Some servers list nothing, and some answer any name with whatever they have: the list decides if there is one.
    found = [name for name in (wanted, f"{wanted}:latest") if name in names]
    if names and not found:
        raise BackendError(f"{where} has no model {wanted!r}, but: {shown}. Mend `model`.")
    return found[0] if found else wanted


async def identify(requester: Requester, model: str, base_model: str) -> BackendIdentity:
    """Ask all that servers may be asked; raises HttpError when it does not answer at all.

    `base_sha256` is the server's own digest (Ollama). Where it tells none, it is "unknown:" and the SHA-256 of the
    model's name and of what the server tells of its file: enough to tell two names apart, no proof of the same weights.
    The version also says what the server decides itself, whatever it is asked: the temperature of some models.
    """
    await _try_options(requester, model)
    listed = await _facts(requester, "/v1/models")
    props = await _facts(requester, "/props")
    ollama, vllm = await _facts(requester, "/api/version"), await _facts(requester, "/version")
    tag, template = {}, props.get("chat_template")
    if ollama.get("version"):
        tag = _of_model(await _facts(requester, "/api/tags"), "models", "name", model)
        template = (await _facts(requester, "/api/show", {"model": model})).get("template")
    meta = _dict(_of_model(listed, "data", "id", model).get("meta"))
    words = [
        f"Ollama {ollama['version']}" if ollama.get("version") else "",
        f"vLLM {vllm['version']}" if vllm.get("version") else "",
        f"llama-server {props['build_info']}" if props.get("build_info") else "",
    ]
    version = next((word for word in words if word), None) or await _server_header(requester)
    quantisation = _dict(tag.get("details")).get("quantization_level") or meta.get("ftype") or _UNKNOWN
    version = printable(version, _LONGEST_WORD)
    own = requester.client.dialect(model).said
    return BackendIdentity(
        backend="http",
        backend_version=f"{version}, {own}" if own else version,
        base_model=base_model,
        base_sha256=_digest(tag) or _unknown_digest(model, meta),
        quantisation=printable(quantisation, _LONGEST_WORD),
        chat_template_sha256=_sha256(template) if isinstance(template, str) and template else _UNKNOWN,
    )


async def _try_options(requester: Requester, model: str) -> None:
    """Ask a word with all that requests may say, so that what the model refuses of it is known before its answers."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": "Hello."}],
        "max_tokens": _TRIED_TOKENS,
        "temperature": 0.0,
        "top_p": 1.0,
        "seed": 1,
    }
    # What else is wrong with the request, or the server, the answers themselves will say.
    with suppress(HttpError):
        await requester.client.post(PATH, body)


async def _facts(requester: Requester, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """What the server says there; empty where it has no such page."""
    client = requester.client
    try:
        if body is not None:
            return await requester.post(path, body)
        return (await requester.insist(lambda _: client.get(path)))[0]
    except HttpError as error:
        if isinstance(error, ServerError) and (error.status in (None, 401, 403) or error.again):
            raise
        return {}


async def _server_header(requester: Requester) -> str:
    try:
        headers = (await requester.insist(lambda _: requester.client.get("/v1/models")))[1]
    except HttpError:
        return _UNKNOWN
    return headers.get("server") or _UNKNOWN


def _of_model(listed: dict[str, Any], place: str, key: str, model: str) -> dict[str, Any]:
    entries = listed.get(place)
    names = (model, f"{model}:latest")
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict) and entry.get(key) in names:
            return entry
    return {}


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _digest(tag: dict[str, Any]) -> str | None:
    match = _DIGEST.fullmatch(str(tag.get("digest")))
    return match[1] if match else None


def _unknown_digest(model: str, meta: dict[str, Any]) -> str:
    facts = {"name": model, **{name: meta[name] for name in _FILE_FACTS if name in meta}}
    return f"{_UNKNOWN}:{_sha256(json.dumps(facts, sort_keys=True))}"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()
