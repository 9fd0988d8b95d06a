"""Addresses are shown without logins, whatever they look like; and logins in settings are refused, told nowhere."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
import yaml
from click.testing import CliRunner

from ml_pipeline.addresses import holds_login, secrets_in, shown_origin, shown_text, shown_url, shown_value
from ml_pipeline.cli import main
from ml_pipeline.stores.influx import InfluxV1Sender, InfluxV2Sender, InfluxV3Sender
from ml_pipeline_tests.hook_server import hook_server

SECRET = "SE/CR+ET"
PASSWORD = "PASSWD"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://user:pw@host:8086/x", "http://...@host:8086/x"),
        ("https://token@host/", "https://...@host/"),
        ("http://user:p@ss@host", "http://...@host"),
        ("http://user:pa?ss@host", "http://...@host"),
        ("http://user:pa#ss@host", "http://...@host"),
        ("s3://KEY:SECRET@bucket/runs", "s3://...@bucket/runs"),
        ("s3://KEY:SEC/RET+=@bucket/runs", "s3://...@bucket/runs"),
        ("s3://KEY:123/4@bucket", "s3://...@bucket"),
        ("simplecache::s3://KEY:SECRET@bucket", "simplecache::s3://...@bucket"),
        ("sftp://me:pw@host/x", "sftp://...@host/x"),
        ("https://host/x?token=abc", "https://host/x?..."),
        ("https://host/x#token", "https://host/x#..."),
        # Nothing secret in these.
        ("http://host:8086/a@b", "http://host:8086/a@b"),
        ("http://[::1]:80/a@b", "http://[::1]:80/a@b"),
        ("s3://bucket/runs@v2", "s3://bucket/runs@v2"),
        ("sftp://me@host/x", "sftp://me@host/x"),
        ("abfss://container@account.dfs.core.windows.net/x", "abfss://container@account.dfs.core.windows.net/x"),
        ("/a/path@x", "/a/path@x"),
    ],
)
def test_an_address_is_shown_without_its_login(address: str, shown: str) -> None:
    assert shown_url(address) == shown
    assert shown_text(f"cannot reach '{address}', so") == f"cannot reach '{shown}', so"
    assert bool(secrets_in(address, {})) == ("...@" in shown or "token=" in address)


def test_of_a_webhook_only_the_host_is_shown() -> None:
    assert shown_origin("https://hooks.slack.com:8443/services/T0/B0/secret?x=1") == "https://hooks.slack.com:8443"
    assert shown_origin("http://u:p@[::1]/secret") == "http://[::1]"


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"secret": "x"}, ["options: secret"]),
        ({"client_kwargs": {"aws_secret_access_key": "x"}}, ["options: aws_secret_access_key"]),
        ({"client_kwargs": {"endpoint_url": "http://u:p@minio:9000"}}, ["options: endpoint_url"]),
        ({"anon": True, "token": "anon", "key": ""}, []),
        ({"config_kwargs": {"signature_version": "s3v4"}, "endpoint_url": "http://minio:9000", "profile": "me"}, []),
    ],
)
def test_secrets_in_options(options: Mapping[str, Any], found: list[str]) -> None:
    assert secrets_in("s3://bucket", options) == found


@pytest.mark.parametrize(("text", "has"), [("me:pw@host", True), ("me@host:22", False), ("[::1]:22", False)])
def test_a_login_without_a_scheme(text: str, has: bool) -> None:
    assert holds_login(text) is has


def change(content: dict[str, Any], place: str, value: Any) -> None:
    *parents, last = place.split(".")
    for parent in parents:
        content = content.setdefault(parent, {})
    content[last] = value


PLAIN: dict[str, Any] = {
    "sources": {"s": {"type": "fsspec", "url": "s3://bucket/runs"}, "t": {"type": "ssh", "host": "mac", "path": "x"}},
    "base_models": {"m": {}},
}


@pytest.mark.parametrize(
    ("place", "value", "remedy"),
    [
        ("sources.s.url", f"s3://KEY:{SECRET}@bucket/runs", "AWS_SECRET_ACCESS_KEY"),
        ("sources.s.url", f"s3://bucket/runs?sig={PASSWORD}", "AWS_SECRET_ACCESS_KEY"),
        ("sources.s.options", {"secret": PASSWORD}, "AWS_SECRET_ACCESS_KEY"),
        ("sources.t.host", f"me:{PASSWORD}@mac", "sources.t.host"),
        ("sources.t.user", f"me:{PASSWORD}", "log in with a key"),
        ("sources.t.proxy_jump", f"me:{PASSWORD}@jump:22", "log in with a key"),
        ("stores.parquet", f"s3://KEY:{SECRET}@bucket", "AWS_SECRET_ACCESS_KEY"),
        ("stores.influx.url", f"http://me:{PASSWORD}@influx:8086", "token_env"),
        ("stores.influx.url", f"http://influx:8086?p={PASSWORD}", "token_env"),
        ("stores.influx.token_env", {"x": PASSWORD}, "token_env"),
        ("backend", {"type": "http", "url": f"http://me:{PASSWORD}@gpu"}, "backend.url"),
        ("backend", {"type": "http", "url": "http://gpu", "api_key_env": f"sk-{PASSWORD}"}, "api_key_env"),
        ("alerts.webhook", f"hooks.slack.com/{PASSWORD}", "alerts.webhook"),
        ("links.report", f"https://me:{PASSWORD}@host/report.html", "Leave it out"),
        ("links.dagster", f"https://me:{PASSWORD}@host", "Leave it out"),
    ],
)
@pytest.mark.parametrize("command", [("config", "check"), ("status",), ("replay",), ("discover",)])
def test_a_login_in_the_settings_is_refused_with_the_way_to_give_it_and_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, value: Any, remedy: str, command: tuple[str, ...]
) -> None:
    content = yaml.safe_load(yaml.safe_dump(PLAIN))
    change(content, place, value)
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setenv("ML_PIPELINE_CONFIG", str(tmp_path / "pipeline.yaml"))
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2
    told = " ".join(done.output.split())
    assert remedy in told
    assert PASSWORD not in told
    assert "CR+ET" not in told


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("sources.s.url", "s3://bucket/runs@v2"),
        ("sources.s.url", "abfss://container@account.dfs.core.windows.net/runs"),
        ("sources.s.url", "sftp://me@host/runs"),
        ("sources.s.options", {"client_kwargs": {"endpoint_url": "http://minio:9000"}, "profile": "me"}),
        ("sources.t.proxy_jump", "me@jump:22,[::1]:2222,ssh://you@other:22"),
        ("stores.parquet", "s3://bucket/tables"),
        ("stores.influx.url", "http://influx:8428/influx"),
        ("links.report", "https://host/report.html?version=2#top"),
    ],
)
def test_an_address_without_a_login_is_taken(tmp_path: Path, place: str, value: Any) -> None:
    from ml_pipeline.settings_file import load_settings

    content = yaml.safe_load(yaml.safe_dump(PLAIN))
    change(content, place, value)
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump(content))
    assert load_settings(tmp_path / "pipeline.yaml", {})


class _Taker(BaseHTTPRequestHandler):
    status = 204

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output clean."""


@contextmanager
def answering(status: int) -> Iterator[str]:
    """A server that answers every POST with this status."""
    with ThreadingHTTPServer(("127.0.0.1", 0), type("_Of", (_Taker,), {"status": status})) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("sender_type", [InfluxV1Sender, InfluxV2Sender, InfluxV3Sender])
@pytest.mark.parametrize("status", [204, 500])
def test_no_log_and_no_message_of_a_sender_has_the_login(
    sender_type: Any, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with answering(status) as address:
        sender = sender_type(address.replace("://", f"://me:{PASSWORD}@"), "bucket")
        answer = sender.send(["m a=1 1"])
    gone = sender.send(["m a=1 1"])
    assert PASSWORD not in f"{sender!r} {answer} {gone} {caplog.text}"


def test_no_line_of_the_http_client_has_a_login_or_a_token(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with hook_server() as server:
        httpx.post(f"{server.url.replace('://', f'://me:{PASSWORD}@')}/x?token={PASSWORD}", json={})
    (line,) = [record.getMessage() for record in caplog.records if record.name == "httpx"]
    assert "HTTP Request: POST http://...@127.0.0.1" in line
    assert PASSWORD not in line


def test_a_login_behind_a_long_word_is_not_shown() -> None:
    word = "x" * 200_000
    assert shown_text(f"{word}http://me:secret@host/path") == f"{word}http://...@host/path"
    assert shown_text(word) == word
    assert "secret" not in str(shown_value(f"{word}:{'y' * 2000} me:secret@host"))
