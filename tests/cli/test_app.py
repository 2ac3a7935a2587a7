import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from thalweg.cli import main
from thalweg.cli.app import app
from thalweg.race.table import WIDTH


def thalweg(*arguments: str, columns: int = 200) -> Result:
    # A fixed plain terminal: error boxes must not break a message or colour it.
    return CliRunner().invoke(app, arguments, env={"COLUMNS": str(columns), "TERM": "dumb"})


def test_race_prints_one_table_and_writes_json(tmp_path: Path) -> None:
    out = tmp_path / "results.json"
    done = thalweg(
        "race", "--optimizers", "adam,sgd+momentum", "--lrs", "1", "--epochs", "1", "--seed", "3",
        "--out", str(out),
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    lines = done.stdout.splitlines()
    rows = [line for line in lines if line.startswith(("Adam ", "SGD+momentum ")) and "×" in line]
    assert len(rows) == 2
    assert lines[-1].startswith("2 trials in ")
    assert "cross_entropy of thalweg.losses in place of torch's (" in done.stdout
    data = json.loads(out.read_text())
    assert (data["seed"], data["epochs"], len(data["standings"])) == (3, 1, 2)


def test_race_prints_json_alone_on_stdout() -> None:
    done = thalweg("race", "--optimizers", "sgd", "--lrs", "2", "--epochs", "1", "--json")
    assert done.exit_code == 0, done.output
    (standing,) = json.loads(done.stdout)["standings"]
    assert [trial["steps"] for trial in standing["trials"]] == [43, 43]


def test_race_names_each_optimizer_once() -> None:
    done = thalweg("race", "--optimizers", "sgd, SGD", "--lrs", "1", "--epochs", "1", "--json")
    assert len(json.loads(done.stdout)["standings"]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["race", "--optimizers", "nadem"], "unknown optimizer 'nadem'; did you mean NAdam?"),
        (["race", "--optimizers", "sgd,"], "unknown optimizer ''"),
        (["race", "--lrs", "0"], "--lrs"),
        (["race", "--epochs", "x"], "--epochs"),
        (["race", "--out", "/no/such/folder/r.json"], "no such folder"),
        (["explain", "rmsporp"], "did you mean RMSprop?"),
        (["explain", "hubber_loss"], "did you mean huber_loss?"),
        (["explain", "nothing_alike"], "unknown optimizer or loss 'nothing_alike'"),
        (["explain", "lbfgs"], "no rule to explain"),
        (["explain", "sparseadam", "--source"], "sparse"),
        (["nothing"], "nothing"),
    ],
)
def test_a_users_mistake_is_a_message_and_exit_code_2(arguments: list[str], message: str) -> None:
    done = thalweg(*arguments)
    assert done.exit_code == 2
    assert message in done.output
    assert "Traceback" not in done.output


def test_explain_shows_the_equations_and_on_request_the_kernel() -> None:
    short = thalweg("explain", "AdamW")
    long = thalweg("explain", "adamw", "--source")
    assert short.exit_code == long.exit_code == 0, short.output + long.output
    assert "exp_avg_sq" in short.stdout
    assert "def " not in short.stdout
    assert "def " in long.stdout


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
    import torch

    done = thalweg("config")
    assert done.exit_code == 0, done.output
    assert torch.__version__ in done.stdout


def test_module_runs_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "thalweg", "--help"], capture_output=True, text=True, check=True
    )
    for command in ("race", "explain", "config"):
        assert command in done.stdout


@pytest.mark.parametrize("missing", ["typer", "rich.console"])
def test_missing_extra_is_one_sentence(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "thalweg.cli.app")
    with pytest.raises(SystemExit) as exit:
        main()
    package = missing.partition(".")[0]
    assert exit.value.code == f'thalweg: {package} is missing; run: pip install "thalweg[race]"'


def test_another_missing_module_is_not_blamed_on_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "thalweg.cli.app", None)
    with pytest.raises(ModuleNotFoundError, match="thalweg"):
        main()


def test_table_is_not_cut_where_the_terminal_is_narrow() -> None:
    done = thalweg("race", "--optimizers", "sgd", "--lrs", "1", "--epochs", "1", columns=40)
    rule = next(line for line in done.stdout.splitlines() if line.startswith("──"))
    assert 80 < len(rule) <= WIDTH
    assert "reaching 95%" in done.stdout
