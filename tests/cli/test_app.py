"""The command line as a whole: help, exit codes, mistakes, JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import thalweg as package
from tests.cli.running import thalweg
from thalweg.cli import main
from thalweg.cli.app import COMMANDS, app

NAMES = [name for commands in COMMANDS.values() for name in commands]


def test_help_is_one_line_for_each_command() -> None:
    done = thalweg("--help", columns=80)
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    for name in NAMES:
        (line,) = [line for line in lines if line.startswith(f"│ {name} ")]
        assert line.rstrip("│ ").endswith("."), "too long for one line"
    for words in ("0 done", "1 something outside failed", "2 a mistake", "130", *COMMANDS):
        assert words in " ".join(done.stdout.replace("│", " ").split())


@pytest.mark.parametrize("name", NAMES)
def test_each_command_explains_itself_with_examples(name: str) -> None:
    done = thalweg(name, "--help", columns=80)
    assert done.exit_code == 0
    assert "\x08" not in done.stdout
    if name != "config":
        examples = [row for row in done.stdout.splitlines() if row.strip().startswith("thalweg ")]
        assert len(examples) >= 2
        assert all(example.split()[1] == name for example in examples)
    assert "--json" in done.stdout


def test_version_and_no_command() -> None:
    assert thalweg("--version").stdout.startswith("thalweg 0.")
    done = thalweg()
    assert done.exit_code == 2
    assert "Usage:" in done.output
    assert "race" in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing"], "No such command 'nothing'"),
        (["--nothing"], "No such option: --nothing"),
        (["race", "--nothing"], "No such option: --nothing"),
        (["race", "--preset", "smal"], "unknown preset 'smal'; did you mean small?"),
        (["race", "--task", "digit"], "unknown task 'digit'; did you mean digits?"),
        (["race", "--optimizers", "nadem"], "unknown optimizer 'nadem'; did you mean NAdam?"),
        (["race", "--optimizers", "sgd(momentum=0.9"], "the parentheses in"),
        (["race", "--lrs", "0"], "--lrs"),
        (["race", "--seeds", "x"], "--seeds"),
        (["race", "--length", "-1"], "race: length must be a finite number > 0, got -1"),
        (["race", "--task", "mine:nan"], "the loss is nan"),
        (["race", "--task", "mine:failing"], "RuntimeError: no data today"),
        (["race", "--task", "mine:bild"], "did you mean build?"),
        (["race", "--task", "nowhere:build"], "there is no module 'nowhere'"),
        (["landscape", "rosenbrok"], "did you mean rosenbrock?"),
        (["landscape", "bowl", "--out", "a.jpg"], "must end in .png, .svg, .gif, .html, got a.jpg"),
        (["landscape", "bowl", "--start", "1"], "must be two numbers, as 0.5,-1; got '1'"),
        (["landscape", "bowl", "--start", "1,nan"], "start"),
        (["landscape", "bowl", "--steps", "0"], "--steps"),
        (["landscape", "bowl", "--schedule", "cosin(9)"], "did you mean cosine?"),
        (["landscape", "bowl", "--optimizers", "sparseadam"], "SparseAdam does not support dense"),
        (["landscape", "bowl", "--optimizers", "sgd(nesterov=True)"], "SGD: nesterov needs"),
        (["lr-find", "--task", "digit"], "did you mean digits?"),
        (["lr-find", "--optimizer", "addam"], "unknown optimizer 'addam'; did you mean Adam?"),
        (["lr-find", "--task", "mine:table"], "AdamW does not support sparse gradients"),
        (["lr-find", "--task", "mine:build", "--low", "20"], "high must be a finite number > 20"),
        (["lr-find", "--task", "mine:build", "--out", "a.gif"], "must end in .png or .svg"),
        (["lr-find", "--task", "mine:constant"], "no rate can be suggested"),
        (["plot-schedule", "warmup(100) >> cosin(9)"], "did you mean cosine?\n  warmup(100) >> c"),
        (["plot-schedule", "constant(1)"], "constant(1) never ends; say how far"),
        (["plot-schedule", "linear(9)", "--out", "a.gif"], "must end in .png or .svg"),
        (["plot-schedule", "cosine(2e9)"], "has 2000000000 steps, of which at most 1000000 are"),
        (["bench", "--model", "mine:leaving"], "mine:leaving failed: SystemExit: 3"),
        (["doctor", "mine:model"], "must return a model and an optimizer"),
        (["doctor", "mine:failing"], "mine:failing failed: RuntimeError: no data today"),
        (["doctor", "mine:nothing"], "must return a model and an optimizer"),
        (["list", "rmsporp"], "unknown optimizer 'rmsporp'; did you mean RMSprop?"),
        (["explain", "rmsporp"], "did you mean RMSprop?"),
        (["explain", "hubber_loss"], "did you mean huber_loss?"),
        (["explain", "nothing_alike"], "unknown optimizer or loss 'nothing_alike'"),
        (["explain", "lbfgs"], "no rule to explain"),
        (["explain", "sparseadam", "--source"], "sparse"),
        (["bench", "--model", "mine:modell"], "did you mean model?"),
        (["bench", "--model", "mine:nothing"], "must return a torch.nn.Module or its parameters"),
        (["bench", "--optimizers", "adamm"], "unknown optimizer 'adamm'; did you mean Adam"),
        (["bench", "--repeats", "0"], "--repeats"),
        (["inspect", "mine.py", "mine.py"], "give one file, or two with --diff; got 2"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)  # fmt: skip
def test_a_users_mistake_is_a_message_and_exit_code_2(arguments: list[str], message: str) -> None:
    done = thalweg(*arguments)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert done.stderr.startswith("thalweg: ")
    assert done.stdout.startswith("picture: ") or not done.stdout  # what a test found is kept
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    "arguments",
    [
        ["race", "--task", "mine:build", "--optimizers", "sgd", "--out"],
        ["landscape", "bowl", "--optimizers", "sgd", "--out"],
        ["lr-find", "--task", "mine:build", "--out"],
        ["plot-schedule", "linear(9)", "--out"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_what_cannot_be_written_is_a_message_and_exit_code_1(arguments: list[str]) -> None:
    done = thalweg(*arguments, "/proc/nothing/a.png")
    assert done.exit_code == 1, done.output
    assert done.stderr.startswith("thalweg: ")
    assert "cannot write" in done.stderr
    assert "/proc/nothing" in done.stderr
    assert "Traceback" not in done.output


def test_a_missing_package_is_a_message_and_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = thalweg("plot-schedule", "linear(9)")
    assert done.exit_code == 1
    assert 'pip install "thalweg[race]"' in done.stderr
    assert done.stderr.startswith("thalweg: matplotlib is not installed")


@pytest.mark.parametrize(
    "error", [ValueError("boom"), TypeError("f() got 3"), KeyError("owner: x"), ImportError("x")]
)
def test_a_bug_keeps_its_traceback(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr("thalweg.optim.catalogue.catalogue", fail)
    done = thalweg("list")
    assert done.exception is error


def test_an_interrupt_is_exit_code_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("thalweg.optim.catalogue.catalogue", fail)
    done = thalweg("list")
    assert done.exit_code == 130
    assert done.stderr == "thalweg: interrupted\n"


JSON = {
    "race": ["race", "--task", "mine:build", "--optimizers", "sgd", "--seeds", "1", "--no-page"],
    "landscape": ["landscape", "bowl", "--optimizers", "sgd(lr=0.1)", "--steps", "3"],
    "lr-find": ["lr-find", "--task", "mine:build", "--steps", "20", "--low", "1e-3"],
    "plot-schedule": ["plot-schedule", "linear(9)"],
    "inspect": ["inspect", "mine.safetensors"],
    "list": ["list"],
    "explain": ["explain", "adamw"],
    "config": ["config"],
    "doctor": ["doctor", "mine:sound"],
    "bench": ["bench", "--model", "mine:model", "--optimizers", "sgd", "--repeats", "1"],
}


@pytest.mark.parametrize("name", NAMES)
def test_json_is_alone_on_stdout(name: str) -> None:
    done = thalweg(*JSON[name], "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)


def test_module_runs_as_a_program() -> None:
    # The package under test, however it was put on the path here.
    source = str(Path(package.__file__).resolve().parent.parent)
    done = subprocess.run(
        [sys.executable, "-m", "thalweg", "plot-schedule", "nothing(1)"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": source},
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("thalweg: schedule: unknown name 'nothing'")


@pytest.mark.parametrize("missing", ["typer", "rich.console"])
def test_missing_extra_is_one_sentence(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("thalweg.cli.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(SystemExit) as exit:
        main()
    name = missing.partition(".")[0]
    assert exit.value.code == f'thalweg: {name} is missing; run: pip install "thalweg[race]"'


def test_another_missing_module_is_not_blamed_on_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "thalweg.cli.app", None)
    with pytest.raises(ModuleNotFoundError, match="thalweg"):
        main()


def test_every_command_is_in_the_application() -> None:
    assert [command.name for command in app.registered_commands] == NAMES
