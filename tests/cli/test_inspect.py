"""``thalweg inspect``: what it prints of files, whatever is in them."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from rich.cells import cell_len
from rich.console import Console
from torch import nn
from typer.testing import CliRunner

from tests.cli.running import thalweg
from thalweg import checkpoint, optim
from thalweg.cli.app import app
from thalweg.cli.cells import ROWS
from thalweg.cli.printing import Name, escaped

PLAIN = "\N{NO-BREAK SPACE}"  # stands in numbers between thousands


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def saved(name: str, own: nn.Module | None = None, nan: bool = False, **more: Any) -> str:
    own = own or model()
    biases = [p for p in own.parameters() if p.ndim == 1]
    weights = [p for p in own.parameters() if p.ndim > 1]
    optimizer = optim.AdamW([{"params": weights}, {"params": biases, "weight_decay": 0.0}])
    for _ in range(2):
        optimizer.zero_grad()
        sum(p.square().sum() for p in own.parameters()).backward()
        optimizer.step()
    if nan:
        own[0].weight.data[0, :2] = math.nan
        optimizer.state[own[0].weight]["exp_avg"][0, 0] = math.inf
    checkpoint.save(name, model=own, optimizer=optimizer, step=2, **more)
    return name


def rows(text: str) -> dict[str, list[str]]:
    """Lines by their first word."""
    return {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}


def test_it_shows_all_parts() -> None:
    done = thalweg("inspect", saved("a.safetensors", schedule={"last_epoch": 7}))
    assert done.exit_code == 0, done.output
    text = done.stdout.replace(PLAIN, " ")
    assert text.startswith("a.safetensors: checkpoint of thalweg, ")
    assert f"torch {torch.__version__}" in text
    assert "whole: everything has its digest\nfinite: no tensor holds NaN or infinity\n" in text
    assert "optimizer: AdamW at step 2, 6 parameters by name in 2 groups\n" in text
    assert "all groups  lr 0.001, betas (0.9, 0.999), eps 1e-08, " in text
    found = rows(text)
    assert "\n\nmodel: module\n" in text
    assert found["model"][:3] == ["module", "9", "43"]
    assert found["step"] == ["2"]
    assert found["last_epoch"] == ["7"]
    assert found["1.num_batches_tracked"] == ["scalar", "int64", "8", "B", "=", "0"]
    assert found["0.weight"] == ["0", "4×3", "48", "B", "48", "B"]  # the optimizer's, as the last
    assert found["1.bias"] == ["1", "4", "16", "B", "16", "B"]
    assert "_random_state: random states of python, numpy, torch\n" in text


def test_what_is_not_finite_stands_at_the_top_and_in_its_row() -> None:
    done = thalweg("inspect", saved("a", nan=True, loss=math.nan))
    assert done.exit_code == 0
    assert (
        "NOT FINITE: 2 tensors, 1 value\n"
        "  model/0.weight: 2 NaN of 12 elements\n"
        "  optimizer/state/0.weight/exp_avg: 1 infinite of 12 elements\n"
        "  loss: NaN\n"
    ) in done.stdout
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    for remark in ("  2 NaN", "  exp_avg: 1 infinite"):
        (line,) = [line for line in lines if line.endswith(remark)]
        assert line.startswith("0.weight ")


def test_it_is_red_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    red = "\x1b[1;31m"
    for nan in (True, False):
        environment = {"TERM": "xterm", "NO_COLOR": None}
        done = CliRunner().invoke(app, ["inspect", saved("a", nan=nan)], env=environment)
        assert (f"{red}NOT FINITE" in done.stdout) == nan
        assert done.stdout.count(red) >= 5 * nan
        assert nan or red not in done.stdout


def test_long_tables_are_cut_but_not_what_is_alarming() -> None:
    tensors = {f"layers.{i}.weight": torch.ones(2) for i in range(100)}
    tensors["layers.70.weight"][1] = math.nan
    safetensors.torch.save_file(tensors, "a")
    done = thalweg("inspect", "a")
    found = rows(done.stdout)
    shown = [name for name in found if name.startswith("layers.")]
    assert shown == [*(f"layers.{i}.weight" for i in range(ROWS)), "layers.70.weight"]
    assert f"… {100 - ROWS - 1} more rows: --all" in done.stdout
    found = rows(thalweg("inspect", "a", "--all").stdout)
    assert [n for n in found if n.startswith("layers.")] == list(tensors)


def test_long_values_are_cut_and_shown_in_full_on_request() -> None:
    torch.save({"log": list(range(1000))}, "a.pt")
    assert "998, 999]" not in thalweg("inspect", "a.pt").stdout
    assert f"log  {list(range(1000))}" in thalweg("inspect", "a.pt", "--all").stdout


EVIL = "a\x1b[31mb\r[bold]c[/bold]\n:smile:\u202e[link=x]"
ESCAPED = r"a\x1b[31mb\r[bold]c[/bold]\n:smile:\u202e[link=x]"


def test_names_and_values_are_shown_as_they_are_and_never_interpreted() -> None:
    parameter = nn.Parameter(torch.tensor([math.nan]))
    optimizer = torch.optim.Adam([(EVIL, parameter)])
    parameter.grad = torch.full((1,), math.nan)
    optimizer.step()
    optimizer.param_groups[0][EVIL] = EVIL
    for name, value in (("a", 1), ("b", 2)):
        checkpoint.save(
            name, rng=False, **{f"part{EVIL}".replace("/", ""): {EVIL: EVIL, "x": value}},
            optimizer=optimizer, m={EVIL: torch.tensor([math.nan, value])},
        )  # fmt: skip
    one, two = thalweg("inspect", "a"), thalweg("inspect", "--diff", "a", "b")
    for done in (one, two):
        assert done.exit_code == 0, done.output
        assert ESCAPED[:20] in done.stdout
        assert not {"\x1b", "\r", "\u202e"} & set(done.stdout)
    for begin in ("m/", "optimizer/state/"):
        assert f"  {begin}{ESCAPED}" in one.stdout
    assert f"{ESCAPED}  1" in one.stdout  # a row of its own


@pytest.mark.parametrize("columns", [80, 140])
def test_tables_fit_a_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    layer = nn.Sequential()
    layer.add_module("a_layer_with_a_long_name_of_its_own", nn.Linear(2, 2))
    outer = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1), layer)
    for name in "ab":
        saved(name, outer, nan=name == "b", log=list(range(100)))
    for arguments in (["a"], ["b"], ["--diff", "a", "b"]):
        done = thalweg("inspect", *arguments, columns=columns)
        assert done.exit_code == 0, done.output
        assert [line for line in done.stdout.splitlines() if cell_len(line) > columns] == []


@pytest.mark.parametrize(
    "text", ["layers.10.self_attn.in_proj_weight", "x" * 90, "層.重み" * 9, ""]
)
@pytest.mark.parametrize("width", [5, 24, 80])
def test_a_folded_name_is_whole(text: str, width: int) -> None:
    out = io.StringIO()
    Console(file=out, width=width).print(Name(escaped(text)))
    lines = [line.rstrip() for line in out.getvalue().splitlines()]
    assert all(cell_len(line) <= width for line in lines)
    assert lines[:1] == [line.lstrip() for line in lines[:1]]
    assert "".join(line.removeprefix("  ") for line in lines) == text


def test_where_there_is_no_terminal_a_row_is_a_line() -> None:
    long = "layer." * 60 + "weight"
    safetensors.torch.save_file({long: torch.ones(2)}, "a")
    (line,) = [
        line for line in thalweg("inspect", "a", columns=80).stdout.splitlines() if long in line
    ]
    assert line.split() == [long, "2", "float32", "8", "B", "1"]


def test_an_optimizer_alone_by_number() -> None:
    linear = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.5, momentum=0.9)
    linear(torch.ones(2)).sum().backward()
    optimizer.step()
    torch.save(optimizer.state_dict(), "a.pt")
    text = thalweg("inspect", "a.pt").stdout
    assert "a.pt: file of torch.save, " in text
    assert "it has no digests: whether it is whole cannot be told\n" in text
    assert "optimizer: 2 parameters by number\n" in text
    assert "options  lr 0.5, momentum 0.9, " in text
    assert rows(text)["0"] == ["1×2", "8", "B"]


def test_many_steps_and_rates_that_are_tensors_are_told_exactly() -> None:
    states = {0: {"step": torch.tensor(12_345_678)}, 1: {"step": torch.tensor(12_345_679)}}
    rates = [torch.tensor(0.1), torch.tensor(0.100001)]
    groups = [{"params": [i], "lr": rate} for i, rate in enumerate(rates)]
    torch.save({"state": states, "param_groups": groups}, "a.pt")
    text = thalweg("inspect", "a.pt").stdout
    assert "optimizer: at steps 12345678 to 12345679, 2 parameters by number in 2 groups" in text
    assert [line.split()[-1] for line in text.splitlines() if line[:2] in ("0 ", "1 ")] == [
        str(rates[0].item()), str(rates[1].item()), "12345678", "12345679",
    ]  # fmt: skip


def test_a_difference_is_told() -> None:
    a, own = saved("a"), model()
    b = saved("b", own, extra=1)
    assert (
        thalweg("inspect", "--diff", a, a)
        .stdout.splitlines()[2]
        .startswith("the same in every bit: all ")
    )
    saved("b", own, extra=1)  # two steps on
    done = thalweg("inspect", "--diff", a, b)
    assert done.exit_code == 0, done.output
    text = done.stdout.replace(PLAIN, " ")
    assert text.startswith("A  a\nB  b\n")
    assert "\n\nonly in B\nextra\n" in text
    assert rows(text)["model/0.weight"][:2] == ["12", "all"]
    assert "NaN" not in text


def test_a_difference_tells_options_and_numbers_as_old_and_new() -> None:
    checkpoint.save("a", rng=False, data={"lr": 0.1, "n": torch.tensor(3), "log": [0.0] * 900})
    checkpoint.save(
        "b", rng=False, data={"lr": 0.2, "n": torch.tensor(4), "log": [0.0] * 899 + [7.0]}
    )
    lines = [line.rstrip() for line in thalweg("inspect", "--diff", "a", "b").stdout.splitlines()]
    assert "data/lr   0.1 → 0.2" in lines
    assert "data/n    3 → 4" in lines
    (log,) = [line for line in lines if line.startswith("data/log")]
    assert log.endswith("0.0, 7.0]")  # where they differ, not where they begin
    assert len(log) < 200


def test_steps_that_change_alike_are_one_line() -> None:
    for name, count in (("a", 1), ("b", 2)):
        states = {i: {"step": torch.tensor(float(count))} for i in range(50)}
        groups = [{"params": list(range(50)), "lr": 1.0}]
        torch.save({"state": states, "param_groups": groups}, name)
    text = thalweg("inspect", "--diff", "a", "b").stdout
    assert "optimizer/state/*/step (50)  1.0 → 2.0" in text
    assert text.count("→") == 2  # and in the heading


def test_nan_in_one_file_is_told_by_a_difference() -> None:
    done = thalweg("inspect", "--diff", saved("a"), saved("b", nan=True))
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    (line,) = [line for line in lines if line.startswith("model/0.weight")]
    assert line.endswith("  2 NaN or infinite in B")
    assert lines[3] == "NOT FINITE in B: 2 tensors of those that differ"


def test_json_of_both() -> None:
    a, b = saved("a"), saved("b", nan=True)
    data = json.loads(thalweg("inspect", b, "--json").stdout)
    assert data["nonfinite"] == ["model/0.weight", "optimizer/state/0.weight/exp_avg"]
    assert data == checkpoint.inspect(b).to_dict() | {"parts": data["parts"]}
    data = json.loads(thalweg("inspect", "--diff", a, b, "--json").stdout)
    assert (data["identical"], data["only_a"]) == (False, [])
    assert {each["name"] for each in data["tensors"]} == {
        "model/0.weight", "optimizer/state/0.weight/exp_avg",
    }  # fmt: skip


@pytest.mark.parametrize("arguments", [["a"], ["a", "--json"], ["--diff", "b", "a"]], ids=" ".join)
def test_a_damaged_file_is_a_message_and_exit_code_1(arguments: list[str], folder: Path) -> None:
    saved("b")
    data = bytearray((folder / saved("a")).read_bytes())
    for damaged in (data[:1000], b"nonsense", bytes([*data[:-5], data[-5] ^ 1, *data[-4:]])):
        (folder / "a").write_bytes(damaged)
        done = thalweg("inspect", *arguments)
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr.startswith("thalweg: checkpoint: a: ")
    assert "has digest" in done.stderr


def test_code_in_a_file_is_not_run(folder: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (folder / "run",)

    torch.save({"model": Evil()}, "a.pt")
    done = thalweg("inspect", "a.pt")
    assert done.exit_code == 1
    assert "would run code" in done.stderr
    assert not (folder / "run").exists()


def test_integers_of_more_digits_than_python_writes() -> None:
    for name, last in (("a", 0), ("b", 1)):
        checkpoint.save(name, rng=False, data={"n": 16**5000 + last, "list": [16**5000 + last]})
    text = thalweg("inspect", "a").stdout
    assert "n     0x1000" in text
    assert "list  list of huge numbers" in text
    data = json.loads(thalweg("inspect", "--diff", "a", "b", "--json").stdout)
    assert [each["name"] for each in data["values"]] == ["data/n", "data/list"]
    assert data["values"][0]["b"] == hex(16**5000 + 1)
    assert "→ …0000" in thalweg("inspect", "--diff", "a", "b").stdout
    assert thalweg("inspect", "--diff", "a", "a").stdout.splitlines()[2].startswith("the same")


ODD: dict[str, dict[Any, Any]] = {
    "an option that is no string": {"param_groups": [{"params": [0], True: 1}, {"params": []}]},
    "endless steps": {"state": {0: {"step": math.inf}}},
    "steps no float can hold": {"state": {0: {"step": 10**400}}},
    "steps of a word": {"state": {0: {"step": "x"}}},
    "a state that is a number": {"state": {0: 5, "no one's": torch.ones(2)}},
    "a tensor in lists": {"state": {0: {"x": [[torch.ones(2)], {"y": 1}], 5: None}}},
    "no groups": {"param_groups": []},
    "a class that is no name": {"class": 5, "shapes": [(2,)]},
}


@pytest.mark.parametrize("odd", ODD)
def test_odd_optimizers_are_shown_all_the_same(odd: str) -> None:
    torch.save({"state": {}, "param_groups": [{"params": [0]}], **ODD[odd]}, "a.pt")
    for arguments in (["a.pt"], ["a.pt", "--json"], ["--diff", "a.pt", "a.pt", "--json"]):
        done = thalweg("inspect", *arguments)
        assert done.exit_code == 0, done.output
        if "--json" in arguments:
            assert json.loads(done.stdout).get("identical", True)


def test_what_is_missing_is_exit_code_1() -> None:
    done = thalweg("inspect", "none")
    assert done.exit_code == 1
    assert "none" in done.stderr


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["--diff", "a"], ["--diff", "a", "b", "c"]])
def test_a_wrong_number_of_files_is_exit_code_2(arguments: list[str]) -> None:
    done = thalweg("inspect", *arguments)
    assert done.exit_code == 2
    assert "FILE" in done.stderr
