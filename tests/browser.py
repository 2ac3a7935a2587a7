"""Opens pages in a real headless Chromium, and checks what only a browser can tell.

Without a browser, or without playwright, the tests that need one are skipped. With
THALWEG_BROWSER=1 in the environment they fail instead, so that nobody takes a skip for a pass.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-quic", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
    # WebGL without a graphics card, for charts in three dimensions.
    *("--use-angle=swiftshader", "--enable-unsafe-swiftshader"),
]
NARROW, WIDE = 390, 1440
PATIENCE = 120_000  # ms: on a busy machine a page of many charts takes long


@dataclass(eq=False)
class Opened:
    """A page in the browser, and everything that it said and asked for since it was opened."""

    tab: Any
    url: str
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def run(self, script: str, argument: Any = None) -> Any:
        return self.tab.evaluate(script, argument)


def no_browser(reason: str) -> None:
    if os.environ.get("THALWEG_BROWSER") == "1":
        pytest.fail(f"THALWEG_BROWSER=1, but {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One Chromium for the tests of a file, which imports this; playwright runs no two at once."""
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        no_browser("playwright is not installed")
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        no_browser(f"no browser found: {', '.join(NAMES)}")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield running
        running.close()


@contextmanager
def opened(
    browser: Any, path: Path, width: int = WIDE, scheme: str = "light", wait: bool = True
) -> Iterator[Opened]:
    """The page at that path, with all charts drawn (or without waiting for them)."""
    touch = width <= NARROW
    tab = browser.new_page(
        viewport={"width": width, "height": 900}, color_scheme=scheme, has_touch=touch
    )
    page = Opened(tab, path.absolute().as_uri())
    tab.add_init_script(path=Path(__file__).with_suffix(".js"))
    tab.on("request", lambda request: page.requests.append(request.url))
    tab.on("pageerror", lambda error: page.complaints.append(f"error: {error}"))
    tab.on("console", lambda message: _hear(page, message))
    try:
        tab.goto(page.url)
        if wait:
            tab.wait_for_selector("html[data-ready]", timeout=PATIENCE)
        yield page
    finally:
        tab.close()


def _hear(page: Opened, message: Any) -> None:
    # Warnings are about the speed of software rendering, and not ours.
    if message.type in ("error", "assert"):
        page.complaints.append(f"{message.type}: {message.text}")


def assert_quiet(page: Opened) -> None:
    """No error in the console, and nothing asked for but the file itself."""
    assert not page.complaints, page.complaints
    inside = ("data:", "blob:")
    requests = [url for url in page.requests if not url.startswith(inside)]
    assert requests == [page.url], requests


def assert_charts_have_data(page: Opened) -> None:
    """There are charts, each of them drawn, with a trace of data that is to be seen."""
    charts = page.run("() => checks.charts()")
    assert charts, "the page has no charts"
    for chart in charts:
        assert chart["state"] == "drawn", chart
        assert sum(chart["points"]) > 0, f"no data: {chart}"
        assert chart["drawn"] > 0, f"nothing drawn: {chart}"


def assert_layout_holds(page: Opened, width: int, seconds: float = 10.0) -> None:
    """Nothing sticks out sideways at that width, text is legible, and fingers hit the controls."""
    page.tab.set_viewport_size({"width": width, "height": 900})
    page.tab.wait_for_timeout(300)  # charts follow the window after a moment

    def found() -> dict[str, Any]:
        named = {"low": "controls below 44 px"} if width <= NARROW else {}
        named |= {"overflow": "px too wide", "outside": "outside", "small": "text below 12 px"}
        faults: dict[str, Any] = page.run("() => checks.layout()")
        return {words: faults[key] for key, words in named.items() if faults[key]}

    until(page, lambda: not found(), seconds, found)


def assert_plays(page: Opened, seconds: float = 10.0) -> None:
    """Play moves the points of each animation, pause stops them, the slider goes to any step, and
    the last one shows where the trajectories end."""
    figures = page.tab.query_selector_all("figure.animation")
    assert figures, "the page has no animation"
    for figure in figures:
        _assert_plays(page, figure, seconds)


def _assert_plays(page: Opened, figure: Any, seconds: float) -> None:
    play, slider = figure.query_selector("button.play"), figure.query_selector(".scrub")

    def heads() -> Any:
        return page.run("figure => checks.heads(figure)", figure)

    def step() -> int:
        return int(slider.input_value())

    def scrub(to: int | str) -> None:
        page.run("arguments => checks.scrub(arguments)", [figure, to])

    ends = page.run("figure => checks.ends(figure)", figure)
    scrub(0)
    until(page, lambda: step() == 0 and heads() != ends, seconds)
    start = heads()
    play.click()
    assert play.inner_text() == "Pause"
    until(page, lambda: step() > 0 and heads() != start, seconds)
    play.click()
    assert play.inner_text() == "Play"
    page.tab.wait_for_timeout(100)  # a frame that is being drawn may still come
    stopped = step(), heads()
    page.tab.wait_for_timeout(300)
    assert (step(), heads()) == stopped, "pause does not stop it"
    scrub("end")
    until(page, lambda: heads() == ends, seconds)
    scrub(0)
    until(page, lambda: heads() == start, seconds)
    scrub("end")


def until(
    page: Opened, holds: Callable[[], bool], seconds: float = 10.0, why: Callable[[], Any] = str
) -> None:
    """Wait for something to become true. (The browser cannot wait for it: that needs eval, which
    the page forbids.)"""
    for _ in range(int(seconds * 20)):
        if holds():
            return
        page.tab.wait_for_timeout(50)
    assert holds(), f"not within {seconds} seconds: {why()}"
