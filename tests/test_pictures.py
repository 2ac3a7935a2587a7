"""The documentation has a picture of every schedule, scheduler and loss, as the pages say."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import landscape_pictures
import loss_pictures
import pictures
import pytest
import torch
from loss_pictures import LOSSES
from pictures import COMPOSITIONS, SCHEDULERS, SCHEDULES, Picture

from thalweg import losses, schedules
from thalweg.optim import lr_scheduler

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
EVERY = SCHEDULES | COMPOSITIONS | SCHEDULERS
LONGEST = 74  # characters of a title's line that the width has room for


def classes(module: Any, but: str) -> set[str]:
    """The names of the classes that a module exports, without their base."""
    return {name for name in module.__all__ if inspect.isclass(getattr(module, name))} - {but}


def shown() -> list[str]:
    """The names of the pictures that the pages show."""
    link = re.compile(r"!\[[^\]]+\]\(pictures/([\w-]+)\.svg\)")
    return [name for page in PAGES for name in link.findall(page.read_text(encoding="utf-8"))]


def test_every_schedule_has_a_picture() -> None:
    assert set(SCHEDULES) == classes(schedules, but="Schedule")


def test_every_scheduler_has_a_picture() -> None:
    assert set(SCHEDULERS) == classes(lr_scheduler, but="LRScheduler")


def test_every_picture_is_shown_once() -> None:
    assert sorted(shown()) == sorted([*EVERY, *LOSSES])


def test_every_loss_has_a_picture() -> None:
    functions = {name for name in losses.__all__ if not inspect.isclass(getattr(losses, name))}
    assert set(LOSSES) == functions - {"loss"}


@pytest.mark.parametrize("module", [schedules, lr_scheduler, losses])
def test_every_name_is_in_the_reference(module: Any) -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    described = set(re.findall(rf"^::: {re.escape(module.__name__)}\.(\w+)$", text, re.MULTILINE))
    assert described == set(module.__all__)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedules_picture_is_of_it(name: str) -> None:
    for expression in SCHEDULES[name].expressions:
        assert type(pictures.schedule(expression)).__name__ == name


@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_schedulers_picture_is_of_it(name: str) -> None:
    for expression in SCHEDULERS[name].expressions:
        assert type(pictures.scheduler(expression)).__name__ == name


@pytest.mark.parametrize("name", LOSSES)
def test_a_losss_picture_is_of_it(name: str) -> None:
    picture = LOSSES[name]
    assert picture.expression.startswith(f"{name}(")
    for _, names in picture.lines:
        x, value, *gradient = loss_pictures.evaluated(picture, names)
        assert value.shape == x.shape
        assert value.isfinite().all()
        assert len(gradient) == picture.differentiable


@pytest.mark.parametrize("name", [*EVERY, *LOSSES])
def test_every_title_fits(name: str) -> None:
    title = (EVERY[name] if name in EVERY else LOSSES[name]).title
    assert max(map(len, title.split("\n"))) <= LONGEST


def test_lines_are_what_the_schedules_say() -> None:
    picture = Picture("Cosine(1, 0, steps={})", ("40", "100"))
    (axes,) = pictures.draw_schedule(picture).axes
    for line, steps in zip(axes.lines, (40, 100), strict=True):
        expected = schedules.Cosine(1, 0, steps=steps)
        assert [expected(float(t)) for t in line.get_xdata()] == list(line.get_ydata())


def test_lines_are_what_the_schedulers_set() -> None:
    (rate, momentum) = pictures.draw_scheduler(SCHEDULERS["OneCycleLR"]).axes
    one_cycle: Any = pictures.scheduler(SCHEDULERS["OneCycleLR"].expression)
    assert list(rate.lines[0].get_ydata()) == one_cycle.schedule().values(101)
    assert list(momentum.lines[0].get_ydata()) == one_cycle.momentum_schedule().values(101)


# ciou_loss differentiates with one of its factors held, as its paper has it.
@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"ciou_loss"}))
def test_gradients_are_the_slopes_of_the_values(name: str) -> None:
    """Where both halves of a step agree; at corners they do not."""
    for _, names in LOSSES[name].lines:
        x, value, *gradient = loss_pictures.evaluated(LOSSES[name], names)
        if gradient:
            slopes = value.diff() / x.diff()
            scale = slopes.abs().max()
            smooth = (slopes.diff().abs() <= 0.03 * scale).nonzero().flatten()
            assert len(smooth) > 0.9 * len(x)
            found, expected = gradient[0][smooth + 1], (slopes[smooth] + slopes[smooth + 1]) / 2
            assert (found - expected).abs().max() <= 0.02 * scale


def test_lines_are_what_the_losses_say() -> None:
    value, gradient = loss_pictures.draw(LOSSES["huber_loss"]).axes
    for k, delta in enumerate((0.5, 1, 2)):
        x = torch.tensor(value.lines[k].get_xdata(), requires_grad=True)
        expected = losses.huber_loss(x, torch.zeros_like(x), "none", delta)
        expected.sum().backward()
        assert value.lines[k].get_label() == f"delta = {delta}"
        assert list(value.lines[k].get_ydata()) == expected.tolist()
        assert list(gradient.lines[k].get_ydata()) == x.grad.tolist()


def test_a_line_is_drawn_for_each_target() -> None:
    value, gradient = loss_pictures.draw(LOSSES["hinge_loss"]).axes
    assert [line.get_label() for line in value.lines] == ["y = 1", "y = -1"]
    assert len(gradient.lines) == 2


def test_files_are_written_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "SCHEDULES", {"Cosine": SCHEDULES["Cosine"]})
    monkeypatch.setattr(pictures, "COMPOSITIONS", {})
    monkeypatch.setattr(pictures, "SCHEDULERS", {"CyclicLR": SCHEDULERS["CyclicLR"]})
    monkeypatch.setattr(loss_pictures, "LOSSES", {"l1_loss": LOSSES["l1_loss"]})
    monkeypatch.setattr(landscape_pictures, "MAPS", ("bowl",))
    (tmp_path / "gone.svg").write_text("of a schedule that is no more")
    pictures.main(tmp_path)
    written = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert set(written) == {"Cosine.svg", "CyclicLR.svg", "l1_loss.svg", "map-bowl.png"}
    assert "<svg" in (tmp_path / "Cosine.svg").read_text(encoding="utf-8")
    pictures.main(tmp_path)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == written
