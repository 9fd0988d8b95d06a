"""Which names the web server takes for its own; what it does with requests is tried on the real one, in `attacks`."""

from __future__ import annotations

import socket

import pytest

from ml_pipeline.web_server import is_own_host, origin, own_names


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1:3000", True),
        ("localhost", True),
        ("localhost.:3000", True),
        ("[::1]:3000", True),
        ("10.1.2.3:3000", True),
        ("dagster.example.org", True),
        ("DAGSTER.example.org:443", True),
        ("here.lan:3000", True),
        (f"{socket.gethostname()}:3000", True),
        ("evil.example:3000", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.nip.io", False),
        ("dagster.example.org.evil.example", False),
        ("me@localhost", False),
        ("localhost/x", False),
        ("localhost:99999", False),
        ("[::1", False),
        ("", False),
    ],
)
def test_a_name_is_its_own_or_not(host: str, own: bool) -> None:
    names = own_names("https://Dagster.example.org/ui", "here.lan")
    assert is_own_host(host, names) is own


def test_without_an_address_no_other_name_is_its_own() -> None:
    assert not is_own_host("dagster.example.org", own_names(None))


def test_origins() -> None:
    assert origin("https://a.example/x") == origin("https://A.example:443") == ("https", "a.example", 443)
    assert origin("http://a.example:3000") != origin("http://a.example")
    assert origin("null") is None
