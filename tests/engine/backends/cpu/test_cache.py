"""The kernel cache: written once, found again, shared by processes, and done without if need be."""

from __future__ import annotations

import ctypes
import inspect
import json
import linecache
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import torch

from tests.engine.running import states_after
from thalweg.engine.backends.cpu import cache, machine_code
from thalweg.rule import Rule

SOURCE = """\
from numba import cfunc


@cfunc("int64(int64)")
def f(x):
    return x + {number}
"""

STEP = """\
import sys, torch, thalweg.optim as optim
p = torch.nn.Parameter(torch.linspace(-1, 1, 1000))
p.grad = torch.ones(1000)
optim.Adam([p], lr=0.125).step()
print(p.double().sum().item(), "numba" in sys.modules)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("THALWEG_CACHE", str(tmp_path / "kernels"))
    return tmp_path / "kernels"


@pytest.fixture
def unwritable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file where the folder should be: not even root can write into that."""
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    monkeypatch.setenv("THALWEG_CACHE", str(blocked / "kernels"))
    monkeypatch.setattr(cache, "_warned", False)
    return blocked / "kernels"


def call(address: int, x: int) -> int:
    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(address)(x)


def unique_rule() -> Rule:
    """A rule that no kernel exists for yet, in memory or on disk."""
    return Rule(lambda p, g, s, h: p - g, name=f"rule_{uuid.uuid4().hex[:8]}")


# ---------------------------------------------------------------------------------------- the place


def test_the_folder_is_chosen_by_the_environment(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("THALWEG_CACHE", str(tmp_path))
    assert cache.folder() == tmp_path
    monkeypatch.delenv("THALWEG_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    if sys.platform == "linux":
        assert cache.folder() == tmp_path / "xdg" / "thalweg"
        monkeypatch.delenv("XDG_CACHE_HOME")
        assert cache.folder() == Path.home() / ".cache" / "thalweg"


def test_a_kernel_lies_there_and_names_the_rules_lines(folder: Path) -> None:
    rule = unique_rule()
    found = states_after(rule, torch.ones(3), torch.ones(3), fused=True)
    assert found["p"].tolist() == [0.0] * 3
    (path,) = folder.glob(f"{rule.name}_fp32_*.py")
    line = inspect.getsourcelines(unique_rule)[1] + 2
    assert f"# test_cache.py:{line}" in path.read_text()
    assert not list(folder.glob("*.tmp"))


def test_names_are_made_from_content(folder: Path) -> None:
    a, b = (cache.keep("k", SOURCE.format(number=n)) for n in (1, 2))
    again, other = (cache.keep("k", SOURCE.format(number=1), also=x) for x in ("", "more"))
    assert a.path == again.path
    assert len({a.path, b.path, other.path}) == 3
    assert a.path is not None
    assert a.path.parent == folder
    assert a.path.name.startswith("k_")
    assert a.path.read_text() == SOURCE.format(number=1)


def test_what_is_there_is_left_as_it_is(folder: Path) -> None:
    source = SOURCE.format(number=41)
    first = cache.keep("k", source)
    assert call(first.address("f"), 1) == 42
    files = sorted(folder.iterdir())
    for file in files:
        os.utime(file, ns=(10**18, 10**18))
    second = cache.keep("k", source)
    assert call(second.address("f"), 2) == 43
    assert second._names == {}, "loaded, not compiled"
    assert sorted(folder.iterdir()) == files
    assert all(file.stat().st_mtime_ns == 10**18 for file in files)


@pytest.mark.parametrize(
    "damage", ["empty", "cut short", "other bytes", "not json", "unknown symbol"]
)
def test_damaged_machine_code_is_made_again(folder: Path, damage: str) -> None:
    source = SOURCE.format(number=100)
    cache.keep("k", source).address("f")
    (kept,) = folder.glob("*.bin")
    good = kept.read_bytes()
    header, code = good.split(b"\n", 1)
    wrong = {**json.loads(header), "calls": ["a_symbol_that_nothing_defines"]}
    kept.write_bytes(
        {
            "empty": b"",
            "cut short": good[:-10],
            "other bytes": good[:-1] + bytes([good[-1] ^ 1]),
            "not json": b"machine\n" + code,
            "unknown symbol": json.dumps(wrong).encode() + b"\n" + code,
        }[damage]
    )
    assert machine_code.load(kept) is None
    assert call(cache.keep("k", source).address("f"), 1) == 101
    assert machine_code.load(kept) is not None


def test_machine_code_that_calls_the_mathematical_library(folder: Path) -> None:
    source = (
        "import math\nfrom numba import cfunc\n\n@cfunc('float64(float64)')\n"
        "def f(x):\n    return math.exp(math.log(x)) + math.pow(x, 2.5)\n"
    )
    addresses = [cache.keep("k", source).address("f") for _ in range(2)]
    for address in addresses:
        f = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(address)
        assert f(4.0) == pytest.approx(36.0)


# ---------------------------------------------------------------------------------- without a place


def test_without_a_folder_it_works_and_warns_once(unwritable: Path) -> None:
    with pytest.warns(
        RuntimeWarning, match=r"cannot keep its kernels in .*Set THALWEG_CACHE"
    ) as seen:
        found = [
            states_after(unique_rule(), torch.ones(3), torch.ones(3), fused=True) for _ in range(2)
        ]
    assert all(state["p"].tolist() == [0.0] * 3 for state in found)
    assert len(seen) == 1
    assert str(unwritable) in str(seen[0].message)


@pytest.mark.filterwarnings("ignore:thalweg cannot keep its kernels")
def test_without_a_folder_tracebacks_still_show_the_source(unwritable: Path) -> None:
    source = "def broken():\n    raise ArithmeticError  # the line to show\n"
    generated = cache.keep("k", source)
    assert generated.path is None
    with pytest.raises(ArithmeticError) as error:
        generated.names()["broken"]()
    entry = error.traceback[-1].frame.code.raw
    assert (
        linecache.getline(entry.co_filename, 2) == "    raise ArithmeticError  # the line to show\n"
    )
    linecache.checkcache()
    assert "the line to show" in linecache.getline(entry.co_filename, 2)


# -------------------------------------------------------------------------------- several processes


def run(folder: Path, count: int) -> list[list[str]]:
    env = {**os.environ, "THALWEG_CACHE": str(folder), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", "-c", STEP]
    started = [
        subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(count)
    ]
    results = [process.communicate() for process in started]
    assert [p.returncode for p in started] == [0] * count, results[0][1]
    return [out.split() for out, _ in results]


@pytest.mark.slow
def test_processes_that_start_at_once_and_one_that_comes_later(folder: Path) -> None:
    together = run(folder, 4)
    assert len({total for total, _ in together}) == 1
    files = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert {file.suffix for file in files} == {".py", ".bin"}
    assert len(list(folder.glob("adam_*.py"))) == 1
    ((total, compiled),) = run(folder, 1)
    assert total == together[0][0]
    assert compiled == "False", "a later process needs no compiler"
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == files
