"""What a terminal would obey never reaches one: neither from files nor from their names."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.running import thalweg
from thalweg import checkpoint, optim
from thalweg.checkpoint.parts import data_of
from thalweg.cli.progress import Clock, Lines
from thalweg.names import printable

CLEAR, TITLE, BACK, DELETE = "\x1b[2J", "\x9d0;a\x9c", "\u202e", "\x7f"
EVIL = f"w{CLEAR}{TITLE}{BACK}{DELETE}[red]"


def assert_plain(text: str) -> None:
    assert [each for each in text if not each.isprintable() and each != "\n"] == []


def evil(name: str, number: float) -> str:
    p = torch.nn.Parameter(torch.full((2,), number))
    p.grad = torch.ones(2)
    optimizer = optim.Adam([(EVIL, p)])
    optimizer.param_groups[0][EVIL] = EVIL
    optimizer.step()
    saved = {**data_of(optimizer, {}), "class": EVIL}
    weights = {EVIL: torch.tensor([number, torch.nan])}
    torch.save({EVIL: EVIL + str(number), "optimizer": saved, "model": weights}, name)
    return name


@pytest.mark.parametrize("options", [[], ["--all"], ["--json"]])
def test_inspect_and_its_differences(options: list[str]) -> None:
    first, second = evil(f"a{CLEAR}.pt", 1.0), evil("b.pt", 2.0)
    for arguments in ([first], [first, second, "--diff"]):
        done = thalweg("inspect", *arguments, *options)
        assert done.exit_code == 0, done.output
        assert_plain(done.stdout + done.stderr)
        if options == ["--json"]:
            told = json.loads(done.stdout)
            assert told["a" if "--diff" in arguments else "path"] == first
            assert json.dumps(EVIL)[1:-1] in json.dumps(told)


def test_messages_of_commands() -> None:
    Path(f"a{EVIL}.pt").write_bytes(b"none")
    for arguments in (["inspect", f"a{EVIL}.pt"], ["inspect", EVIL], [EVIL], ["list", EVIL]):
        done = thalweg(*arguments)
        assert done.exit_code != 0
        assert_plain(done.stdout + done.stderr)


def test_messages_of_loads(tmp_path: Path) -> None:
    path = tmp_path / f"a{EVIL}.pt"
    evil(str(path), 1.0)
    p = torch.nn.Parameter(torch.ones(3))
    model: Any = torch.nn.Linear(2, 1)
    for parts in (
        {"optimizer": optim.Adam([("own", p)])},
        {"optimizer": optim.SGD([(EVIL, p)])},
        {"model": model},
        {"models": model},
    ):
        with pytest.raises((ValueError, RuntimeError)) as error:
            checkpoint.load(path, **parts)
        assert_plain(str(error.value))
    found = checkpoint.load(path, strict=False, optimizer=optim.Adam([("own", p)]))
    assert_plain(str(found))
    path.write_bytes(b"none")
    with pytest.raises(checkpoint.CheckpointError) as broken:
        checkpoint.load(path)
    assert_plain(str(broken.value))


def test_progress() -> None:
    out = io.StringIO()
    times = iter([0.0, 9.0, 9.0, 9.0])
    Lines("inspect", Clock(lambda: next(times)), out)(0.5, EVIL)
    assert_plain(out.getvalue())
    assert printable(EVIL) in out.getvalue()
