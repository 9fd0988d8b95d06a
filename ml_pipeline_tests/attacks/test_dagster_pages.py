"""The pages of the real Dagster web server in a real browser: hostile names load nothing and are no links there, and
no page of a stranger gets anything from it.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import dagster as dg
import httpx
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from ml_pipeline.assets.check_specs import ANSWERS_ARE_SCORED
from ml_pipeline.assets.checks import unscored_check
from ml_pipeline.assets.metadata import fact_value
from ml_pipeline.assets.run_freshness import freshness_evaluation
from ml_pipeline.automation.discovery_sensor import _observation
from ml_pipeline.automation.local_runs import project_instance
from ml_pipeline.checkpoints.catalogue import Catalogue
from ml_pipeline.checkpoints.run_pace import StalledRun
from ml_pipeline.monitoring_settings import FreshnessCheck, UnscoredCheck
from ml_pipeline.settings import Settings
from ml_pipeline.settings_file import load_settings
from ml_pipeline_tests.servers import free_port, require_binary, running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
WORKSPACE = "load_from: [{python_module: {module_name: ml_pipeline.definitions, location_name: ml_pipeline}}]\n"
STRANGER = "stranger.example"
WORDS = "Read me"
"""What a forged link would say."""


class Leaks(ThreadingHTTPServer):
    """Keeps the paths that it was asked for; answers with an empty page, or with `page`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Leak)
        self.asked: list[str] = []
        self.page = b""
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Leak(BaseHTTPRequestHandler):
    server: Leaks

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(self.server.page)))
        self.end_headers()
        self.wfile.write(self.server.page)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output clean."""


@dataclass(frozen=True)
class Site:
    """A running Dagster web server of a project, and another server that hostile names lead to."""

    url: str
    leaks: Leaks
    instance: dg.DagsterInstance
    settings: Settings

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def hostile(self) -> str:
        return (
            f"![x]({self.leaks.url}/image) [{WORDS}]({self.leaks.url}/link) <img src={self.leaks.url}/tag> "
            f"{self.leaks.url}/bare www.{STRANGER} <{self.leaks.url}/angle> someone@{STRANGER}"
        )


@contextmanager
def leaking() -> Iterator[Leaks]:
    with Leaks() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("site")
    (root / "runs").mkdir()
    content = {"sources": {"mac": {"type": "local", "path": "runs"}}, "base_models": {"tiny": {}}}
    (root / "pipeline.yaml").write_text(json.dumps({**content, "discovery": {"settle_s": 0}}))
    (root / "workspace.yaml").write_text(WORKSPACE)
    settings, port = load_settings(root / "pipeline.yaml", {}), free_port()
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return httpx.get(f"{url}/server_info", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    with pytest.MonkeyPatch.context() as patch, leaking() as leaks:
        patch.chdir(root)
        patch.setenv("ML_PIPELINE_CONFIG", str(root / "pipeline.yaml"))
        patch.setenv("DAGSTER_HOME", str(root))
        with project_instance(settings) as instance:
            command = [sys.executable, "-m", "ml_pipeline.web_server", "-w", "workspace.yaml", "-p", str(port)]
            with running([*command, "-h", "127.0.0.1"], root / "log", answers, timeout_s=120):
                yield Site(url, leaks, instance, settings)


@pytest.fixture(scope="module")
def browser(site: Site) -> Iterator[Browser]:
    """Chromium, to which the stranger's name means this machine."""
    program = require_binary("chromium", "chromium")
    rules = f"--host-resolver-rules=MAP {STRANGER} 127.0.0.1"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu", rules])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, address: str) -> Iterator[Page]:
    page = browser.new_page(viewport={"width": 1600, "height": 1200})
    try:
        page.goto(address, wait_until="domcontentloaded", timeout=60_000)
        yield page
    finally:
        page.close()


def shown_words(page: Page, words: str) -> None:
    """Wait until the page shows these words."""
    page.wait_for_function("words => document.body.innerText.includes(words)", arg=words, timeout=60_000)


def foreign_links(page: Page, site: Site) -> list[str]:
    found: list[str] = page.evaluate("[...document.querySelectorAll('a[href], img[src]')].map(e => e.href || e.src)")
    return [one for one in found if STRANGER in one or str(site.leaks.server_port) in one]


def live_parts(page: Page, site: Site) -> list[str]:
    """The links and pictures of the page that lead elsewhere, also of what it shows on a click."""
    found = foreign_links(page, site)
    for one in page.get_by_text("[Show Markdown]").all():
        one.click()
        page.wait_for_timeout(700)
        found += foreign_links(page, site)
        page.keyboard.press("Escape")
        page.wait_for_selector(".bp5-overlay-backdrop", state="detached", timeout=10_000)
    return found


def test_a_look_at_hostile_names_loads_nothing_and_makes_no_link(site: Site, browser: Browser) -> None:
    name = f"adapters-{site.hostile}".replace("/", "\u2215")[:150] + "\u00e9" * 40
    folder = site.settings.root / "runs" / name
    folder.mkdir()
    (folder / "0000100_adapters.safetensors").write_bytes(b"\x02" + b"\0" * 7 + b"{}")
    (folder / "adapter_config.json").write_text("{}")
    found = Catalogue(site.settings).look()
    assert any(WORDS in problem for problem in found.problems)
    site.instance.report_runless_asset_event(_observation(found, 0))
    # The same with the slashes that no folder on a disk has: an object store's keys and a server's words have them.
    found.problems[:] = [f"source mac: {site.hostile}"]
    observation = dg.AssetObservation("training_runs", metadata={**_observation(found, 0).metadata})
    site.instance.report_runless_asset_event(observation)
    before = list(site.leaks.asked)
    with opened(browser, f"{site.url}/assets/training_runs?view=events") as page:
        shown_words(page, "known_checkpoints")
        page.wait_for_timeout(1500)
        assert live_parts(page, site) == []
    assert site.leaks.asked == before


def test_tables_texts_and_checks_are_text(site: Site, browser: Browser) -> None:
    hostile, key = site.hostile, "mac.x@1"
    metadata = {"table": fact_value([{"answer": hostile, hostile: 1}]), "text": fact_value(hostile)}
    site.instance.add_dynamic_partitions("checkpoint", [key])
    site.instance.report_runless_asset_event(dg.AssetMaterialization("probe_results", partition=key, metadata=metadata))
    site.instance.report_runless_asset_event(dg.AssetObservation("training_runs", metadata=metadata))
    rows = [{"suite": hostile, "passed": None, "unscored_reason": hostile}] * 3
    site.instance.report_runless_asset_event(unscored_check(ANSWERS_ARE_SCORED, key, rows, "passed", UnscoredCheck()))
    stalled = [StalledRun("mac", hostile, 100, 0, 60.0)]
    site.instance.report_runless_asset_event(freshness_evaluation(stalled, FreshnessCheck()))
    before = list(site.leaks.asked)
    for address, shown in (
        ("assets/training_runs?view=events", WORDS),
        ("assets/training_runs?view=checks&checkDetail=runs_go_on", WORDS),
        ("assets/probe_results?view=checks&checkDetail=answers_are_scored", WORDS),
        ("assets/probe_results?view=partitions&partition=mac.x%401", WORDS),
    ):
        with opened(browser, f"{site.url}/{address}") as page:
            shown_words(page, shown)
            page.wait_for_timeout(1500)
            assert live_parts(page, site) == [], address
    assert site.leaks.asked == before


def test_the_browser_would_show_and_load_what_is_live(site: Site, browser: Browser) -> None:
    live = f"![x]({site.leaks.url}/live) [{WORDS} live]({site.leaks.url}/live-link)"
    site.instance.report_runless_asset_event(
        dg.AssetObservation("response_files", metadata={"live": dg.MetadataValue.md(live)})
    )
    with opened(browser, f"{site.url}/assets/response_files?view=events") as page:
        shown_words(page, "live")
        page.wait_for_timeout(1500)
        assert live_parts(page, site)
    assert "/live" in site.leaks.asked


def test_a_name_that_is_bound_to_this_machine_gets_nothing(site: Site, browser: Browser) -> None:
    with opened(browser, f"http://{STRANGER}:{site.port}/assets") as page:
        assert "This is no name of this server" in page.inner_text("body")
    with opened(browser, f"http://localhost:{site.port}/assets") as page:
        shown_words(page, "training_runs")


ASKING = """
const seen = [];
async function ask() {
  const url = `http://127.0.0.1:PORT/graphql`;
  for (const how of [{}, {mode: 'no-cors'}, {method: 'POST', mode: 'no-cors', body: '{"query": "{version}"}'}]) {
    try { const answer = await fetch(url + '?query={version}', how); seen.push(answer.type + ' ' + answer.status); }
    catch (error) { seen.push('refused'); }
  }
  seen.push(await new Promise(done => {
    const socket = new WebSocket('ws://127.0.0.1:PORT/graphql', 'graphql-ws');
    socket.onopen = () => done('open'); socket.onerror = () => done('refused');
  }));
  document.title = seen.join(',');
}
ask();
"""


def test_a_page_of_a_stranger_gets_nothing_and_sets_nothing_going(site: Site, browser: Browser) -> None:
    script = ASKING.replace("PORT", str(site.port))
    site.leaks.page = f"<body><script>{script}</script><iframe src='{site.url}/assets'></iframe>".encode()
    answers: list[tuple[str, int]] = []
    page = browser.new_page()
    try:
        page.on("response", lambda answer: answers.append((answer.url, answer.status)))
        page.goto(f"{site.leaks.url.replace('127.0.0.1', STRANGER)}/page")
        page.wait_for_function("document.title !== ''", timeout=30_000)
        page.wait_for_timeout(1000)
        title = page.title()
    finally:
        page.close()
        site.leaks.page = b""
    assert title.split(",")[0] == "refused"
    assert title.split(",")[-1] == "refused"
    ours = [status for address, status in answers if address.startswith(site.url)]
    assert ours
    assert set(ours) == {403}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:PORT"}, 200),
        ({"Host": "LOCALHOST:PORT"}, 200),
        ({"Host": "[::1]:PORT"}, 200),
        ({"Host": "192.168.1.7:PORT"}, 200),
        ({"Origin": "http://127.0.0.1:PORT"}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "localhost@evil.example"}, 403),
        ({"Host": ""}, 403),
        ({"Host": "localhost:x"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, 403),
    ],
)
def test_who_may_ask_the_programs_own_questions(site: Site, headers: dict[str, str], status: int) -> None:
    sent = {name: value.replace("PORT", str(site.port)) for name, value in headers.items()}
    answer = httpx.get(f"{site.url}/graphql", params={"query": "{version}"}, headers=sent, timeout=30)
    assert answer.status_code == status, answer.text
    if status == 200:
        assert answer.json()["data"]["version"]


def test_links_to_its_pages_work_from_everywhere(site: Site) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert httpx.get(f"{site.url}/assets", headers=headers, timeout=30).status_code == 200
    assert (
        httpx.get(f"{site.url}/assets", headers={**headers, "Sec-Fetch-Dest": "iframe"}, timeout=30).status_code == 403
    )
