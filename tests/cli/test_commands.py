"""The other commands: what each prints and writes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from tests.cli.running import thalweg
from thalweg import schedules
from thalweg.cli import landscape
from thalweg.landscape import SCENES, SURFACES, ravine_scene
from thalweg.optim.catalogue import catalogue

START = {
    ".png": b"\x89PNG",
    ".svg": b"<?xml",
    ".gif": b"GIF89a",
    ".html": b"<!doctype html>",
}


# -------------------------------------------------------------------------------------- landscape


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of the paths: a picture takes a second to draw."""
    monkeypatch.setattr(landscape, "_draw", lambda *arguments: None)


@pytest.mark.parametrize("suffix", [".png", ".svg", ".html"])
def test_landscape_writes_a_picture_or_a_page(suffix: str, folder: Path) -> None:
    out = f"picture{suffix}"
    done = thalweg(
        "landscape", "bowl", "--optimizers", "sgd(lr=0.01),adam(lr=0.1)", "--steps", "5",
        "--out", out,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert (folder / out).read_bytes()[:15].lower().startswith(START[suffix].lower())
    rates = "Learning rates: 0.01: SGD; 0.1: Adam."
    assert rates in done.stdout
    if suffix == ".html":
        assert rates in (folder / out).read_text(encoding="utf-8")
    assert done.stdout.endswith(f"{'page' if suffix == '.html' else 'picture'}: {out}\n")


@pytest.mark.slow
def test_landscape_writes_an_animation(folder: Path) -> None:
    done = thalweg("landscape", "bowl", "--optimizers", "sgd(lr=0.01)", "--out", "a.gif")
    assert done.exit_code == 0, done.output
    assert (folder / "a.gif").read_bytes().startswith(START[".gif"])


@pytest.mark.usefixtures("undrawn")
def test_landscape_paths_are_those_of_the_optimizers() -> None:
    done = thalweg(
        "landscape", "bowl", "--optimizers", "sgd(lr=0.05)", "--steps", "4", "--start", "2,1",
        "--schedule", "linear(4)", "--json",
    )  # fmt: skip
    data = json.loads(done.stdout)
    (path,) = data["paths"]
    assert data["start"] == [2, 1]
    assert (path["lr"], data["schedule"]) == (0.05, "linear(4)")
    x, y = 2.0, 1.0  # the bowl's curvatures are 1 and 10
    expected = [(x, y)]
    for step in range(4):
        rate = 0.05 * (1 - step / 4)
        x, y = x - rate * x, y - rate * 10 * y
        expected.append((x, y))
    for found, (x, y) in zip(path["points"], expected, strict=True):
        assert found == pytest.approx([x, y], rel=1e-5)


@pytest.mark.usefixtures("undrawn")
def test_landscape_says_that_rates_are_scheduled() -> None:
    done = thalweg(
        "landscape", "bowl", "--optimizers", "sgd", "--steps", "2", "--schedule", "linear(2)"
    )
    assert "Learning rates: 0.3: SGD. Each times linear(2).\n" in done.stdout


@pytest.mark.usefixtures("undrawn")
def test_a_scene_has_optimizers_start_and_steps_of_its_own() -> None:
    done = thalweg("landscape", "ravine", "--json", "--steps", "2")
    data = json.loads(done.stdout)
    scene = ravine_scene()
    assert [path["optimizer"] for path in data["paths"]] == list(scene.optimizers)
    assert data["start"] == list(scene.start)
    done = thalweg("landscape", "ravine", "--json", "--steps", "2", "--optimizers", "adam(lr=1)")
    (path,) = json.loads(done.stdout)["paths"]
    assert path["points"][1] == pytest.approx([scene.start[0] + 1, scene.start[1] + 1], abs=1e-3)


def test_help_names_every_surface_and_scene() -> None:
    text = thalweg("landscape", "--help").stdout
    assert [name for name in (*SURFACES, *SCENES) if name not in text] == []


@pytest.mark.usefixtures("undrawn")
def test_a_surface_without_optimizers_gets_some_that_come_down() -> None:
    data = json.loads(thalweg("landscape", "beale", "--json").stdout)
    assert len(data["paths"]) == 4
    for path in data["paths"]:
        assert not path["diverged"]
        assert path["values"][-1] < path["values"][0] / 2


# ----------------------------------------------------------------------------------------- lr-find


def test_lr_find_suggests_and_draws(folder: Path) -> None:
    done = thalweg("lr-find", "--task", "mine:build", "--optimizer", "sgd", "--out", "a.svg")
    assert done.exit_code == 0, done.output
    said, where = done.stdout.splitlines()
    assert said.startswith("suggested learning rate for SGD on sums: ")
    # Gradient descent on this task is stable below 2 over the greatest curvature, which is near 2.
    assert 0.01 < float(said.rpartition(" ")[2]) < 1
    assert where == "picture: a.svg"
    assert (folder / "a.svg").read_bytes().startswith(START[".svg"])


def test_lr_find_gives_the_curve_as_json() -> None:
    arguments = ("lr-find", "--task", "mine:build", "--optimizer", "sgd(momentum=0.5)", "--json")
    first, second = (json.loads(thalweg(*arguments, "--steps", "40").stdout) for _ in range(2))
    assert first == second
    assert first["optimizer"] == "SGD(momentum=0.5)"
    assert len(first["rates"]) == len(first["losses"]) == len(first["smoothed"]) <= 40
    assert first["rates"][0] == 1e-7
    assert first["suggestion"] > 0


def test_without_a_suggestion_the_picture_is_kept(folder: Path) -> None:
    done = thalweg("lr-find", "--task", "mine:constant", "--steps", "10")
    assert done.exit_code == 2
    assert done.stdout == "picture: lr-find.png\n"
    assert (folder / "lr-find.png").exists()


# ----------------------------------------------------------------------------------- plot-schedule


def test_plot_schedule_prints_values_and_draws(folder: Path) -> None:
    text = "0.1 * (warmup(100) >> cosine(900))"
    done = thalweg("plot-schedule", text)
    assert done.exit_code == 0, done.output
    head, *rows, where = done.stdout.splitlines()
    assert head.split() == ["step", "value"]
    schedule = schedules.parse(text)
    assert [int(row.split()[0]) for row in rows] == list(range(0, 1001, 100))
    for row in rows:
        step, value = map(float, row.split())
        assert value == pytest.approx(schedule(step), rel=1e-5, abs=1e-12)
    assert where == "picture: schedule.png"
    assert (folder / "schedule.png").read_bytes().startswith(START[".png"])


def test_plot_schedule_gives_every_value_as_json() -> None:
    done = thalweg("plot-schedule", "table((3, 1, 2))", "--steps", "9", "--json")
    data = json.loads(done.stdout)
    assert [row["value"] for row in data["values"]] == [3, 1, 2]  # it has no more
    assert data["schedule"] == "Table(entries=(3, 1, 2), interpolate=False)"


@pytest.mark.parametrize("steps", [1, 3, 7])
def test_plot_schedule_of_few_steps(steps: int) -> None:
    done = thalweg("plot-schedule", "exponential(0.5)", "--steps", str(steps))
    assert done.exit_code == 0, done.output
    rows = done.stdout.splitlines()[1:-1]
    assert [row.split() for row in rows] == [
        [str(t), f"{math.pow(0.5, t):.6g}"] for t in range(steps + 1)
    ]


# -------------------------------------------------------------------------- list, explain, config


def test_list_tells_of_every_optimizer() -> None:
    done = thalweg("list")
    assert done.exit_code == 0, done.output
    text = " ".join(done.stdout.split())
    for found in catalogue():
        assert f"{found.bytes_per_parameter} bytes per float32 parameter" in text
        assert " ".join(found.source.split()) in text
        for name, formula in found.update:
            assert " ".join(f"{name} = {formula}".split() if name else formula.split()) in text
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_list_of_one_is_its_part_of_the_whole() -> None:
    one = thalweg("list", "ADAMW").stdout
    assert one.startswith("AdamW\n")
    assert one.strip() in thalweg("list").stdout
    data = json.loads(thalweg("list", "adamw", "--json").stdout)
    assert data["defaults"]["weight_decay"] == 0.01
    assert data in json.loads(thalweg("list", "--json").stdout)


def test_explain_shows_the_equations_and_on_request_the_kernel() -> None:
    short = thalweg("explain", "AdamW")
    long = thalweg("explain", "adamw", "--source")
    assert short.exit_code == long.exit_code == 0, short.output + long.output
    assert "exp_avg_sq" in short.stdout
    assert "def " not in short.stdout
    assert "def " in long.stdout
    data = json.loads(thalweg("explain", "adamw", "--json").stdout)
    assert data == {"name": "AdamW", "text": short.stdout.splitlines()}


@pytest.mark.parametrize("name", ["cross_entropy", "HUBERLOSS", "huber_loss"])
def test_explain_shows_a_loss_and_on_request_its_kernels(name: str) -> None:
    short, long = thalweg("explain", name), thalweg("explain", name, "--source")
    assert short.exit_code == long.exit_code == 0, short.output + long.output
    assert short.stdout.lower().startswith(f"{name.lower()}: input float32 [2, 4], target ")
    assert "  value = " in short.stdout
    assert "  d_x   = " in short.stdout
    assert "def " not in short.stdout
    assert "def work(arguments):" in long.stdout


def test_config_shows_the_versions() -> None:
    done = thalweg("config")
    assert done.exit_code == 0, done.output
    assert torch.__version__ in done.stdout
    assert json.loads(thalweg("config", "--json").stdout)["torch"] == torch.__version__


# ------------------------------------------------------------------------------------------- bench


def test_bench_times_ones_own_model() -> None:
    done = thalweg(
        "bench", "--model", "mine:model", "--optimizers", "sgd,adamw,lbfgs,sparseadam",
        "--repeats", "2",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("mine:model: 2 tensors, 8 elements, ")
    lines = {line.split()[0]: line.split() for line in done.stdout.splitlines() if line.strip()}
    assert float(lines["AdamW"][-1]) >= 8  # and a step count for each tensor
    assert float(lines["SGD"][-1]) == 0
    assert lines["SGD"][3].endswith("×")
    assert lines["SparseAdam"][1:] == ["–"] * 5
    assert "SparseAdam: SparseAdam does not support dense gradients" in done.stdout


def test_bench_gives_json_and_takes_parameters() -> None:
    threads = torch.get_num_threads()
    try:
        done = thalweg(
            "bench", "--model", "mine:parameters", "--optimizers", "sgd,sparseadam", "--repeats",
            "1", "--threads", "1", "--json",
        )  # fmt: skip
    finally:
        torch.set_num_threads(threads)
    data = json.loads(done.stdout)
    assert (data["tensors"], data["elements"], data["threads"]) == (1, 5, 1)
    timed, refused = data["optimizers"]
    assert timed["time"]["ratio"] == timed["time"]["torch_us"] / timed["time"]["own_us"]
    assert refused["time"] is None
    assert "dense" in refused["failed"]


# ------------------------------------------------------------------------------------------ doctor


def test_the_doctor_finds_a_mistake_and_ends_with_1() -> None:
    done = thalweg("doctor", "mine:forgotten")
    assert done.exit_code == 1, done.output
    assert done.stdout.startswith("wrong: no group holds 1 of 2 trainable parameters (bias)")
    done = thalweg("doctor", "mine:forgotten", "--json")
    assert done.exit_code == 1
    data = json.loads(done.stdout)
    assert data["healthy"] is False
    assert [finding["check"] for finding in data["findings"]] == ["left_out"]


def test_the_doctor_has_nothing_to_complain_of() -> None:
    done = thalweg("doctor", "mine:sound")
    assert (done.exit_code, done.stdout) == (0, "nothing to complain of\n"), done.output
