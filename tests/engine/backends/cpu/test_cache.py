"""The kernel cache: written once, found again, shared by processes, and done without if need be."""

from __future__ import annotations

import ctypes
import inspect
import linecache
import os
import stat
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.running import states_after
from tests.fuzz.apart import Returned, apart
from thalweg.engine.backends.cpu import cache, machine_code
from thalweg.engine.backends.cpu.compiler import compile_functions
from thalweg.rule import Rule

SOURCE = """\
from thalweg.engine.backends.cpu.intrinsics import int64_pointer


def f(x):
    int64_pointer(x)[0] += {number}
"""

STEP = """\
import sys, torch, thalweg.optim as optim
p = torch.nn.Parameter(torch.linspace(-1, 1, 1000))
p.grad = torch.ones(1000)
optim.Adam([p], lr=0.125).step()
print(p.double().sum().item(), "thalweg.engine.backends.cpu.compiler" in sys.modules)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("THALWEG_CACHE", str(tmp_path / "kernels"))
    monkeypatch.setattr(cache, "_warned", False)
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
    number = ctypes.c_int64(x)
    ctypes.CFUNCTYPE(None, ctypes.c_int64)(address)(ctypes.addressof(number))
    return number.value


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


@pytest.mark.parametrize(
    "name",
    [
        "<lambda>",
        "Größe 名",
        "x" * 300,
        "../up",
        "/top",
        "a\0b",
        "a\nb",
        "\udc80",
        "\\d",
        '"""; 1 / 0 #',
    ],
    ids=ascii,
)
def test_a_rule_may_have_any_name(folder: Path, name: str) -> None:
    rule = Rule(lambda p, g, s, h: p - g, name=name)
    found = states_after(rule, torch.ones(3), torch.ones(3), fused=True)
    assert found["p"].tolist() == [0.0] * 3
    files = [path.name for path in folder.iterdir()]
    assert len(files) == 2 * len({file.split(".")[0] for file in files}), "source and code of each"
    assert os.listdir(folder.parent) == [folder.name]
    assert all(file.isascii() and "<" not in file for file in files)


def test_a_rules_file_may_have_any_name(folder: Path) -> None:
    names: dict[str, Any] = {}
    code = "def update(p, g, s, h):\n    return p - g\n"
    exec(compile(code, "a\n1 / 0  # \udc80.py", "exec"), names)
    found = states_after(Rule(names["update"]), torch.ones(3), torch.ones(3), fused=True)
    assert found["p"].tolist() == [0.0] * 3


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


DAMAGE = {
    "empty": lambda good: b"",
    "cut short": lambda good: good[:-10],
    "other bytes": lambda good: good[:-1] + bytes([good[-1] ^ 1]),
    "other symbol": lambda good: good.replace(b'"symbols": ["', b'"symbols": ["x', 1),
    "not even lines": lambda good: b"machine",
}


def mended(folder: Path, source: str, number: int) -> None:
    """The code is compiled anew with one warning, and kept if it was not there."""
    with pytest.warns(RuntimeWarning, match=r"compiles it anew|cannot keep its kernels") as seen:
        assert call(cache.keep("k", source).address("f"), 1) == number + 1
    assert len(seen) == 1
    assert str(folder) in str(seen[0].message)


@pytest.fixture(scope="module")
def packed() -> tuple[str, bytes]:
    """A file's name and content."""
    functions = {"packed": cache.Generated("k", SOURCE.format(number=5), None).names()["f"]}
    content = machine_code.pack(compile_functions(functions), list(functions), "name")
    assert content is not None
    return "name", content


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found(packed: tuple[str, bytes], damage: str) -> None:
    name, good = packed
    with pytest.raises(ValueError, match=r"damaged"):
        machine_code.unpack(DAMAGE[damage](good), name)
    with pytest.raises(ValueError, match=r"another name"):
        machine_code.unpack(good, "other")
    assert call(machine_code.unpack(good, name)["packed"], 1) == 6


def test_damaged_machine_code_is_made_again(folder: Path) -> None:
    source = SOURCE.format(number=100)
    cache.keep("k", source).address("f")
    (kept,) = folder.glob("*.bin")
    kept.write_bytes(kept.read_bytes()[:-10])
    mended(folder, source, 100)
    assert call(cache.keep("k", source).address("f"), 1) == 101


def test_code_that_calls_what_is_not_there_is_refused(packed: tuple[str, bytes]) -> None:
    name, good = packed
    rest = good.split(b"\n", 1)[1].replace(b'"calls": [', b'"calls": ["no_such"', 1)
    with pytest.raises(ValueError, match="no_such"):
        machine_code.unpack(machine_code._digest(name, rest) + b"\n" + rest, name)


# ------------------------------------------------------------------------------------- whose it is


def test_the_folder_is_made_for_its_user_alone(folder: Path, tmp_path: Path) -> None:
    cache.keep("k", SOURCE.format(number=1)).address("f")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}


@pytest.mark.parametrize("mode", [0o770, 0o702])
def test_a_folder_that_others_can_write_into_is_not_used(folder: Path, mode: int) -> None:
    source = SOURCE.format(number=mode)
    cache.keep("k", source).address("f")
    (kept,) = folder.glob("*.bin")
    folder.chmod(mode)
    before = kept.stat().st_mtime_ns
    mended(folder, source, mode)
    assert kept.stat().st_mtime_ns == before


def test_a_file_that_others_can_write_to_is_replaced(folder: Path) -> None:
    mode = 0o606
    source = SOURCE.format(number=mode)
    cache.keep("k", source).address("f")
    (kept,) = folder.glob("*.bin")
    kept.chmod(mode)
    mended(folder, source, mode)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="root alone can give")
@pytest.mark.parametrize("what", ["folder", "file"])
def test_what_belongs_to_another_user_is_not_used(folder: Path, what: str) -> None:
    source = SOURCE.format(number=7 + len(what))
    cache.keep("k", source).address("f")
    (kept,) = folder.glob("*.bin")
    os.chown(folder if what == "folder" else kept, 12345, 12345)
    mended(folder, source, 7 + len(what))


@pytest.mark.parametrize("kind", ["pipe", "folder", "link"])
def test_what_is_no_file_is_not_read(folder: Path, kind: str) -> None:
    source = SOURCE.format(number=20 + len(kind))
    cache.keep("k", source).address("f")
    (kept,) = folder.glob("*.bin")
    aside = kept.rename(folder / "aside")
    if kind == "pipe":
        os.mkfifo(kept)
    elif kind == "folder":
        kept.mkdir()
    else:
        kept.symlink_to(aside)
    mended(folder, source, 20 + len(kind))


def test_source_in_the_folder_is_not_what_is_compiled(folder: Path) -> None:
    source = SOURCE.format(number=500)
    path = cache.keep("k", source).path
    assert path is not None
    path.write_text(SOURCE.format(number=600))
    assert call(cache.keep("k", source).address("f"), 1) == 501


def test_another_processor_or_compiler_gives_it_another_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = machine_code.target.__wrapped__
    names = [target()]
    name, features = machine_code.processor()
    monkeypatch.setattr(machine_code, "processor", lambda: (name, f"{features},+more"))
    names.append(target())
    monkeypatch.setattr("llvmlite.__version__", "0.0")
    names.append(target())
    assert len(set(names)) == 3


def forked_while_compiling(folder: str) -> int:
    """How a child ends that compiles, forked while another thread of its parent does."""
    os.environ["THALWEG_CACHE"] = folder
    begun = threading.Event()

    @cache.once
    def compiled(number: int) -> int:
        begun.set()
        time.sleep(0.2)
        return cache.keep("k", SOURCE.format(number=number)).address("f")

    thread = threading.Thread(target=compiled, args=(1,))
    thread.start()
    begun.wait()
    if (child := os.fork()) == 0:
        os._exit(call(compiled(2), 40))
    thread.join()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_child_forked_while_a_kernel_is_compiled_can_compile(folder: Path) -> None:
    assert apart(forked_while_compiling, str(folder), longest=20) == Returned(42)


def test_machine_code_that_calls_the_mathematical_library(folder: Path) -> None:
    source = (
        "import math\n\n"
        "from thalweg.engine.backends.cpu.intrinsics import float64_pointer\n\n\n"
        "def f(x):\n"
        "    y = float64_pointer(x)\n"
        "    y[0] = math.exp(math.log(y[0])) + math.pow(y[0], 2.5)\n"
    )
    addresses = [cache.keep("k", source).address("f") for _ in range(2)]
    for address in addresses:
        x = ctypes.c_double(4.0)
        ctypes.CFUNCTYPE(None, ctypes.c_int64)(address)(ctypes.addressof(x))
        assert x.value == pytest.approx(36.0)


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
