"""A real browser for tests that look at a page: the system's Chromium, led by Playwright."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from ml_pipeline_tests.servers import require_binary

HEIGHT = 900
_ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")


@dataclass
class Visit:
    """An open page, and what happened while it was: addresses asked for besides its own, and words on its console."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def overflow(self) -> int:
        """CSS pixels by which the page is wider than its window."""
        wide: int = self.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        return wide

    def open_details(self) -> None:
        """Unfold everything that is folded."""
        self.page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")

    def faults(self) -> list[str]:
        """What axe-core calls a serious or critical fault of accessibility, each with its first element."""
        found: list[dict[str, Any]] = Axe().run(self.page).response["violations"]
        return [
            f"{fault['id']}: {fault['help']}: {fault['nodes'][0]['html']}"
            for fault in found
            if fault["impact"] in ("serious", "critical")
        ]

    def load_ms(self) -> dict[str, float]:
        """Milliseconds from the start of the navigation to the first paint and to the end of loading."""
        times: dict[str, float] = self.page.evaluate(
            """() => ({
                first_paint_ms: performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0,
                loaded_ms: performance.getEntriesByType('navigation')[0].loadEventEnd,
            })"""
        )
        return times


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser, without a window; without Chromium the test is skipped, or fails where CI=true must have it."""
    program = require_binary("chromium", "chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=_ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def visit(
    browser: Browser, path: Path, *, width: int = 1280, scheme: Literal["light", "dark"] = "light"
) -> Iterator[Visit]:
    """Open a file in a window so many CSS pixels wide."""
    page = browser.new_page(viewport={"width": width, "height": HEIGHT}, color_scheme=scheme)
    try:
        visited = Visit(page)
        page.on("request", lambda request: visited.requests.append(request.url))
        page.on("console", lambda message: visited.complaints.append(message.text))
        page.on("pageerror", lambda error: visited.complaints.append(str(error)))
        page.goto(path.as_uri(), wait_until="load")
        visited.requests.remove(page.url)
        yield visited
    finally:
        page.close()
