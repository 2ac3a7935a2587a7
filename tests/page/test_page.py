from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import pytest

from tests.browser import (
    NARROW,
    WIDE,
    Opened,
    assert_charts_have_data,
    assert_layout_holds,
    assert_plays,
    assert_quiet,
    browser,
    opened,
    until,
)
from thalweg.page import Animation, Chart, Code, Page, Row, Section, Table, Text, Track

__all__ = ["browser"]  # a fixture

NASTY = """</script><script>alert("x")</script> & <b onclick='y'>"""
NAMES = ("SGD", "Adam", "a rather long name of an optimizer")


def lines() -> go.Figure:
    steps = np.arange(1, 60)
    figure = go.Figure()
    for i, name in enumerate(NAMES, 1):
        figure.add_scatter(x=steps, y=3.0**-i + np.exp(-steps / (9 * i)), name=name)
    return figure.update_layout(xaxis_title="steps", yaxis_title="loss", yaxis_type="log")


def bars() -> go.Figure:
    return go.Figure(go.Bar(y=NAMES, x=[8, 12, 4], orientation="h"))


def animation(solid: bool = False) -> Animation:
    turn = np.linspace(0, 3, 40)
    tracks = [
        Track(name, np.cos(turn) * i, np.sin(turn) * i, turn * i if solid else None, values=turn)
        for i, name in enumerate(NAMES, 1)
    ]
    tracks[1] = Track("Adam", tracks[1].x[:20], tracks[1].y[:20], z=None, note="diverged")
    if solid:
        tracks[1] = Track("Adam", tracks[0].x, tracks[0].y, tracks[0].y)
        return Animation("In space", go.Figure(go.Surface(z=np.eye(4), meta="relief")), tracks)
    x = np.linspace(-3, 3, 31)
    figure = go.Figure(go.Heatmap(x=x, y=x, z=x**2 + x[:, None] ** 2, meta="fill"))
    figure.update_layout(xaxis_range=[-3, 3], yaxis={"range": [-3, 3], "scaleanchor": "x"})
    return Animation("Round and round", figure, tracks, "Three of them.")


def page() -> Page:
    table = Table(
        "Settings", ["optimizer", *"abcdefghij"], [[name, *["0.123456"] * 10] for name in NAMES]
    )
    first = [Text(["One.", "Two."]), Chart("Loss", lines(), "How it falls."), table]
    second = [
        Row([Chart("Bytes", bars()), Chart("More bytes", bars())]),
        animation(),
        animation(True),
    ]
    command = Code("thalweg race --optimizers " + ",".join(NAMES) * 4)
    return Page(
        "A race", "Adam was first.", [Section("Digits", first), Section("Rest", [*second, command])]
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return page().write(tmp_path_factory.mktemp("page") / "race.html")


@pytest.fixture(scope="module")
def shown(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """A small page that the tests use one after the other."""
    parts = [Chart("Loss", lines()), animation()]
    path = Page("Small", "One chart.", [Section("s", parts)]).write(
        tmp_path_factory.mktemp("page") / "small.html"
    )
    with opened(browser, path, scheme="dark") as tab:
        yield tab


class Outline(HTMLParser):
    """Tags with their attributes, and the text of each script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self._in_script = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")
        self._in_script = tag == "script"

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_data(self, data: str) -> None:
        if self._in_script:
            self.scripts[-1] += data

    def named(self, *names: str) -> list[str]:
        return [tag for tag, _ in self.tags if tag in names]


def test_everything_is_escaped() -> None:
    figure = go.Figure(go.Scatter(x=[1, 2], y=[1, 2], name=NASTY))
    track = Track(NASTY, [0.0, 1.0], [0.0, 1.0], note=NASTY)
    parts = [
        Text([NASTY]),
        Code(NASTY, NASTY),
        Table(NASTY, [NASTY], [[NASTY]], NASTY),
        Chart(NASTY, figure, NASTY),
        Animation(NASTY, figure, [track], NASTY),
    ]
    text = Page(NASTY, NASTY, [Section(NASTY, parts), Section("b", [])]).html()
    outline = Outline(text)
    assert "b" not in outline.named("b")
    # Two of data, plotly and our own: none of the nasty ones.
    assert len(outline.scripts) == 4
    chart, animated = (json.loads(script) for script in outline.scripts[:2])
    assert chart["data"][0]["name"] == NASTY == animated["tracks"][0]["name"]


def test_structure_is_that_of_a_document() -> None:
    outline = Outline(page().html())
    tags = dict(outline.tags)
    assert tags["html"]["lang"] == "en"
    assert outline.named("h1", "h2", "h3") == ["h1", "h2", "h3", "h3", "h2", *["h3"] * 4]
    assert "width=device-width" in str([t for t in outline.tags if t[0] == "meta"])
    plots = [a for _, a in outline.tags if a.get("class") == "plot"]
    assert [plot["aria-label"] for plot in plots[:2]] == ["Loss. How it falls.", "Bytes."]
    assert [a["scope"] for t, a in outline.tags if t == "th"] == [*["col"] * 11, *["row"] * 3]
    targets = [str(a["href"])[1:] for t, a in outline.tags if t == "a"]
    assert targets == [a["id"] for t, a in outline.tags if t == "section"]


def test_plotly_is_there_once_or_not_at_all() -> None:
    assert page().html().count("plotly.js v") == 1
    plain = Page("Words", ["One.", "Two."], [Section("Only", [Text(["three"])])]).html()
    assert "plotly.js v" not in plain
    assert len(plain) < 50_000
    assert "<nav" not in plain


def test_same_page_has_the_same_text() -> None:
    assert page().html() == page().html()


def test_numbers_that_json_lacks_become_gaps() -> None:
    track = Track("a", [0.0, float("nan")], [0.0, float("inf")], values=[1.0, -float("inf")])
    figure = go.Figure(go.Scatter(x=[1, 2], y=[float("nan"), 1.0]))
    outline = Outline(Page("t", "l", [Section("s", [Animation("a", figure, [track])])]).html())
    found = json.loads(outline.scripts[0], parse_constant=pytest.fail)["tracks"][0]
    assert (found["x"], found["y"], found["values"]) == ([0.0, None], [0.0, None], [1.0, None])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Table("t", ["a", "b"], [["1"]]), r"rows\[0\] must have 2 cells.*got 1"),
        (lambda: Track("a", [1.0], [1.0, 2.0]), r"y of 'a' must be as long as x \(1\), got 2"),
        (lambda: Track("a", [1.0], [1.0], [1.0, 2.0]), "z of 'a'"),
        (lambda: Track("a", [1.0], [1.0], values=[1.0, 2.0]), "values of 'a'"),
        (lambda: Track("a", [], []), "x of 'a' must not be empty"),
        (lambda: Animation("a", None, []), "tracks must not be empty"),
        (lambda: Animation("a", None, [Track("a", [1.0], [1.0])], steps=[1, 2]), "steps must be"),
    ],
    ids=["row", "y", "z", "values", "no points", "no tracks", "steps"],
)
def test_parts_that_do_not_fit_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_what_is_no_part_is_refused() -> None:
    with pytest.raises(TypeError, match=r"one of thalweg\.page's, got str"):
        Page("t", "l", [Section("s", ["text"])]).html()  # type: ignore[list-item]


def test_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    small = Page("t", "l", [])
    target = small.write(tmp_path / "new" / "page.html")
    assert target.read_text(encoding="utf-8") == small.html()
    assert os.listdir(target.parent) == ["page.html"]
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=re.escape(str(tmp_path / "file"))):
        small.write(tmp_path / "file" / "page.html")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="cannot write folder"):
        small.write(tmp_path / "folder")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder", "new"]


@pytest.mark.parametrize(("width", "scheme"), [(NARROW, "dark"), (WIDE, "light")])
def test_page_in_a_browser(browser: Any, written: Path, width: int, scheme: str) -> None:
    with opened(browser, written, width, scheme) as shown:
        assert_charts_have_data(shown)
        assert_layout_holds(shown, width)
        assert_plays(shown)
        assert_quiet(shown)


def test_colours_follow_system_and_button(shown: Opened) -> None:
    colours = """() => { const {layout} = document.querySelector(".plot"); return [
      getComputedStyle(document.body).backgroundColor, layout.paper_bgcolor, layout.font.color] }"""
    dark = shown.run(colours)
    shown.tab.click("#theme")
    until(shown, lambda: shown.run(colours)[1] == "#ffffff")
    light = shown.run(colours)
    assert light[0] == "rgb(255, 255, 255)"
    assert all(a != b for a, b in zip(dark, light, strict=True))
    shown.tab.click("#theme")
    until(shown, lambda: shown.run(colours) == dark)


def test_paper_is_light_and_the_screen_as_it_was(shown: Opened) -> None:
    colours = """() => [document.documentElement.dataset.theme || "",
      getComputedStyle(document.body).backgroundColor,
      document.querySelector(".plot").layout.paper_bgcolor]"""
    before = shown.run(colours)
    shown.run("() => dispatchEvent(new Event('beforeprint'))")
    until(shown, lambda: shown.run(colours) == ["light", "rgb(255, 255, 255)", "#ffffff"])
    shown.run("() => dispatchEvent(new Event('afterprint'))")
    until(shown, lambda: shown.run(colours) == before)


def test_legend_switches_traces_off_and_leaves_one_alone(shown: Opened) -> None:
    visible = """() => document.querySelector(".plot")._fullData.map((trace) => trace.visible)"""
    first, second, _ = shown.tab.query_selector_all("figure.chart >> nth=0 >> .legend button")
    first.press("Enter")
    assert shown.run(visible) == ["legendonly", True, True]
    assert first.get_attribute("aria-pressed") == "false"
    first.press("Space")
    assert shown.run(visible) == [True, True, True]
    second.dblclick()
    assert shown.run(visible) == ["legendonly", True, "legendonly"]
    second.click(modifiers=["Shift"])
    assert shown.run(visible) == [True, True, True]


def test_animation_obeys_the_keyboard_and_shows_values(shown: Opened) -> None:
    figure = shown.tab.query_selector("figure.animation")
    slider, readout = figure.query_selector(".scrub"), figure.query_selector(".step")

    def values() -> list[str]:
        return [value.inner_text() for value in figure.query_selector_all(".value")]

    slider.focus()
    slider.press("Home")
    assert readout.inner_text() == "step 0 of 39"
    slider.press("ArrowRight")
    assert readout.inner_text() == slider.get_attribute("aria-valuetext") == "step 1 of 39"
    assert values() == ["0.0769", "", "0.0769"]
    slider.press("End")
    assert values() == ["3", "diverged", "3"]
    play = figure.query_selector(".play")
    play.press("Enter")
    assert play.inner_text() == "Pause"
    until(shown, lambda: slider.input_value() != "39")
    play.press("Enter")
    assert play.inner_text() == "Play"


def layout(tab: Opened) -> None:
    assert_layout_holds(tab, NARROW, seconds=0.5)


def plays(tab: Opened) -> None:
    assert_plays(tab, seconds=1.0)


# The checks must be able to fail: each of these breaks a page in one way.
EMPTY = Chart("Nothing", go.Figure(go.Scatter(x=[], y=[], name="a")))
HIDDEN = Chart("Nothing to see", go.Figure(go.Scatter(x=[1], y=[1], visible="legendonly")))
LOSS = Chart("Loss", lines())
PLAIN = Text(["Words."])  # without charts a page opens at once
BREAKS: dict[str, tuple[Any, str, str, Any]] = {
    "console": (PLAIN, "</body>", "<script>console.error('oh')</script></body>", assert_quiet),
    "exception": (PLAIN, "</body>", "<script>throw new Error('oh')</script></body>", assert_quiet),
    "network": (PLAIN, "</main>", '<img src="http://127.0.0.1:9/a.png"></main>', assert_quiet),
    "no data": (EMPTY, "", "", assert_charts_have_data),
    "hidden": (HIDDEN, "", "", assert_charts_have_data),
    "no charts": (Text(["a"]), "", "", assert_charts_have_data),
    "not drawn": (LOSS, "await Plotly.newPlot", "await Plotly.newPlo", assert_charts_have_data),
    "wide": (PLAIN, "</main>", "<p style='width:99rem'>wide</p></main>", layout),
    "outside": (PLAIN, "</main>", "<h2 style='margin-left:-2rem'>x</h2></main>", layout),
    "small text": (PLAIN, "</main>", "<p style='font-size:11px'>small</p></main>", layout),
    "small button": (PLAIN, "</main>", "<button style='min-height:0'>x</button></main>", layout),
    "still": (animation(), "show(step + moved", "show(step + 0 * moved", plays),
    "no pause": (animation(), "cancelAnimationFrame(timer);", "return;", plays),
    "no scrub": (animation(), "show(Number(scrub.value));", "", plays),
}


@pytest.mark.parametrize("name", BREAKS)
def test_checks_see_what_is_broken(browser: Any, name: str, tmp_path: Path) -> None:
    part, old, new, check = BREAKS[name]
    text = Page("t", "l", [Section("s", [part])]).html()
    head, middle, tail = text.rpartition(old) if old else ("", "", text)
    assert middle == old
    path = tmp_path / "broken.html"
    path.write_text(head + new + tail, encoding="utf-8")
    with opened(browser, path, NARROW) as tab, pytest.raises(AssertionError):
        check(tab)


def test_browser_itself_forbids_what_is_outside(browser: Any, tmp_path: Path) -> None:
    path = Page("t", "l", []).write(tmp_path / "page.html")
    with opened(browser, path) as shown:
        fetched = (
            """() => fetch("http://127.0.0.1:9/").then(() => "fetched", (error) => error.name)"""
        )
        assert shown.run(fetched) == "TypeError"
        assert any("Content Security Policy" in text for text in shown.complaints)
