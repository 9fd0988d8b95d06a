"""HTTP to one server anywhere: checked answers of bounded size, time-outs, and a key that goes nowhere else."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from ml_pipeline.addresses import shown_text
from ml_pipeline.backend_settings import HttpSettings
from ml_pipeline.backends.http.dialect import Dialect, Dialects
from ml_pipeline.backends.http.waits import retry_after
from ml_pipeline.backends.http_answer import EventLines, HttpError, json_object
from ml_pipeline.errors import BackendError
from ml_pipeline.http_bodies import UNCOMPRESSED, BodyError, beginning, is_loopback, pieces, tls, whole
from ml_pipeline.printable import printable

_PIECE_BYTES = 1 << 20
_AGAIN = (408, 425, 429)
_BUSY = (429, 503, 529)
_NOT_IMPLEMENTED = 501
_REFUSED_FIELDS = (400, 422)
_HEADERS = {"Content-Type": "application/json", **UNCOMPRESSED}
_WHERE_WORDS_ARE = ("error", "message", "detail")


class ServerError(HttpError):
    """A request that failed. `status` is None where no answer came; `busy` when the server has too much to do.

    `parameter` is the field of the request that the server says is at fault, where it names one.
    """

    def __init__(
        self,
        message: str,
        *,
        again: bool,
        busy: bool = False,
        status: int | None = None,
        retry_after_s: float | None = None,
        parameter: str | None = None,
    ) -> None:
        super().__init__(message, again=again)
        self.busy = busy
        self.parameter = parameter
        self.status = status
        self.retry_after_s = retry_after_s

    @property
    def is_refusal(self) -> bool:
        """Whether the server answered, and not because it has too much to do."""
        return self.status is not None and not self.busy


class ApiClient:
    """Asks one server. Redirects are not followed: what they name might not be who the key is for.

    Raises:
        BackendError: the key's variable is not set, or it would go over the network in the clear.
    """

    def __init__(self, settings: HttpSettings) -> None:
        try:
            url = httpx.URL(settings.url.rstrip("/").removesuffix("/v1").rstrip("/") + "/")
        except httpx.InvalidURL as error:
            raise BackendError(f"http backend: {settings.url} is no address: {error}. Mend url.") from error
        loopback = is_loopback(url.host)
        self.where = str(url).rstrip("/")
        self._key = _key(settings, url, loopback)
        self._answer_timeout_s = settings.answer_timeout_s
        self._silence_timeout_s = settings.silence_timeout_s
        self._dialects = Dialects(self.where, settings)
        self._http = httpx.AsyncClient(
            base_url=url,
            headers=_HEADERS | ({"Authorization": f"Bearer {self._key}"} if self._key else {}),
            timeout=httpx.Timeout(settings.silence_timeout_s, connect=settings.connect_timeout_s, pool=None),
            # A few more than may be under way, for what is asked beside them.
            limits=httpx.Limits(max_connections=settings.concurrency + 2),
            verify=tls(),
            follow_redirects=False,
            # A proxy of the environment is for other machines.
            trust_env=not loopback,
        )

    async def get(self, path: str) -> tuple[dict[str, Any], Mapping[str, str]]:
        """One JSON object, and the answer's headers; raises ServerError, HttpError."""
        async with self._response("GET", path) as response:
            return json_object(await whole(response)), response.headers

    async def post(self, path: str, body: dict[str, Any], method: str = "POST") -> dict[str, Any]:
        """One JSON object, empty where the server says nothing; raises ServerError, HttpError."""
        async with self._worded(method, path, body) as response:
            raw = await whole(response)
            # vLLM answers some requests with a bare sentence.
            is_json = "json" in response.headers.get("content-type", "")
            return json_object(raw) if raw.strip() and is_json else {}

    async def head(self, path: str) -> None:
        """Whether something is there: raises ServerError, of status 404 when it is not."""
        async with self._response("HEAD", path):
            pass

    async def upload(self, path: str, file: Path) -> None:
        """Send a file's bytes; raises ServerError, HttpError."""
        headers = {"Content-Length": str(file.stat().st_size), "Content-Type": "application/octet-stream"}
        async with self._response("POST", path, content=_read_pieces(file), headers=headers) as response:
            await whole(response)

    async def events(self, path: str, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """JSON objects as they come: those of a stream until its end, or the one of a server that does not stream.

        Raises:
            ServerError, HttpError: the server refuses, stalls or sends nonsense.
        """
        async with self._worded("POST", path, body) as response:
            if "text/event-stream" not in response.headers.get("content-type", ""):
                yield json_object(await whole(response))
                return
            lines = EventLines()
            async for piece in pieces(response):
                for event in lines.feed(piece):
                    yield event
                if lines.done:
                    return

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    def words(self, value: object) -> str:
        """Text of the server's, fit to be shown."""
        return printable(shown_text(self.without_key(str(value))))

    def without_key(self, text: str) -> str:
        """The text without the key, in case the server repeats it."""
        return text.replace(self._key, "***") if self._key else text

    def dialect(self, model: str) -> Dialect:
        """How this model's chat requests are worded, as far as is known."""
        return self._dialects.of(model)

    @asynccontextmanager
    async def _worded(self, method: str, path: str, body: dict[str, Any]) -> AsyncIterator[httpx.Response]:
        """The response to a body; that of a chat is worded as the server takes it, see `Dialect`."""
        is_chat, model = "messages" in body, str(body.get("model"))
        tried = [self._dialects.of(model)]
        while True:
            answered = False
            asked = tried[-1].worded(body) if is_chat else body
            try:
                async with self._response(method, path, content=json.dumps(asked).encode()) as response:
                    answered = True
                    if is_chat:
                        self._dialects.keep(model, tried[-1])
                    yield response
                    return
            except ServerError as refusal:
                if answered or not is_chat or refusal.status not in _REFUSED_FIELDS:
                    raise
                other = self._dialects.after(tried[-1], str(refusal), refusal.parameter, body, tried)
                if other is None:
                    raise
                tried.append(other)

    @asynccontextmanager
    async def _response(self, method: str, path: str, **content: Any) -> AsyncIterator[httpx.Response]:
        try:
            async with (
                asyncio.timeout(self._answer_timeout_s),
                self._http.stream(method, path.lstrip("/"), **content) as response,
            ):
                if not response.is_success:
                    raise await self._refusal(response)
                yield response
        except httpx.ConnectTimeout as error:
            raise ServerError(f"{self.where} does not accept the connection", again=True, busy=True) from error
        except httpx.TimeoutException as error:
            silence = f"{self.where}: nothing came for {self._silence_timeout_s:g} s"
            raise ServerError(silence, again=True, busy=True) from error
        except httpx.ConnectError as error:
            words = self.words(error)
            raise ServerError(f"cannot connect to {self.where}: {words}. Does it run?", again=True) from error
        except BodyError as error:
            raise ServerError(f"{self.where}: {self.words(error)}", again=False) from error
        except httpx.HTTPError as error:
            reason = f"{self.where}: the connection broke: {self.words(error)}".rstrip(": ")
            raise ServerError(reason, again=True) from error
        except TimeoutError as error:
            raise ServerError(
                f"{self.where}: no whole answer in {self._answer_timeout_s:g} s. Ask for fewer tokens, or raise "
                "answer_timeout_s.",
                again=False,
                busy=True,
            ) from error

    async def _refusal(self, response: httpx.Response) -> ServerError:
        status = response.status_code
        if response.is_redirect:
            to = self.words(response.headers.get("location", ""))
            message = f"{self.where} redirects to {to}: redirects are not followed. Put the final address into url."
            return ServerError(message, again=False, status=status)
        raw = await beginning(response)
        words = self.words(_words(raw)) or "no reason given"
        return ServerError(
            f"{self.where} answers with status {status}: {words}",
            again=status in _AGAIN or (status >= 500 and status != _NOT_IMPLEMENTED),
            busy=status in _BUSY,
            status=status,
            retry_after_s=retry_after(response.headers.get("retry-after"), datetime.now(UTC)),
            parameter=_parameter(raw),
        )


def error_words(event: Mapping[str, Any]) -> str | None:
    """What a server says in an event that tells of an error; None in any other."""
    return _message(event["error"]) if event.get("error") else None


def _words(raw: bytes) -> str:
    try:
        return _message(json_object(raw))
    except HttpError:
        return raw.decode("utf-8", "replace")


def _parameter(raw: bytes) -> str | None:
    """The field that OpenAI's errors call `param`."""
    try:
        answer = json_object(raw)
    except HttpError:
        return None
    error = answer.get("error")
    found = (error if isinstance(error, dict) else answer).get("param")
    return found if isinstance(found, str) and found else None


def _message(value: Any) -> str:
    """The innermost of what servers nest: {"error": {"message": ...}}, {"error": ...}, {"detail": ...}."""
    if isinstance(value, dict):
        return next((_message(value[name]) for name in _WHERE_WORDS_ARE if value.get(name)), str(value))
    return str(value)


async def _read_pieces(file: Path) -> AsyncIterator[bytes]:
    with file.open("rb") as source:
        while piece := source.read(_PIECE_BYTES):
            yield piece


def _key(settings: HttpSettings, url: httpx.URL, loopback: bool) -> str:
    name = settings.api_key_env
    if name is None:
        return ""
    key = os.environ.get(name, "").strip()
    if not key:
        raise BackendError(f"http backend: no API key: the environment variable {name} is not set. Set it.")
    if not (key.isascii() and key.isprintable()):
        raise BackendError(f"http backend: the API key in {name} holds characters that no key has. Copy it again.")
    if url.scheme == "http" and not loopback and not settings.allow_plain_http:
        raise BackendError(
            f"http backend: the API key in {name} would go to {url.host} unencrypted. Use https://, or set "
            "allow_plain_http if you trust every machine in between."
        )
    return key
