"""The quick tests again, with inaccessible memory around every tensor: no access outside."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
COMPILER = shutil.which("cc")
# Tests that measure memory or time, or start processes that need neither.
LEFT_OUT = ("soak", "memory_stays", "cache", "interrupts", "child", "without_memory", "handler")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux" or COMPILER is None, reason="needs a C compiler"),
]


@pytest.fixture(scope="module")
def guard(tmp_path_factory) -> Path:
    """The allocator, compiled."""
    assert COMPILER is not None
    library = tmp_path_factory.mktemp("guard") / "guard.so"
    source = str(HERE / "guard_allocator.c")
    options = ["-O2", "-shared", "-fPIC", "-Wall", "-Werror", "-o", str(library)]
    subprocess.run([COMPILER, *options, source, "-ldl", "-lpthread"], check=True)
    return library


def guarded(guard: Path, side: str, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "LD_PRELOAD": str(guard), "GUARD_SIDE": side, "OMP_NUM_THREADS": "2"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)


OUTSIDE = """
import ctypes, torch
t = torch.ones({count})
address = t.data_ptr() + {offset}
if {freed}:
    del t
ctypes.c_float.from_address(address).value = 1.0
"""


@pytest.mark.parametrize(
    ("side", "offset", "freed", "dies"),
    [
        ("behind", 4 * 64, False, True),
        ("before", -4, False, True),
        ("behind", 4 * 63, False, False),
        ("before", 0, False, False),
        ("behind", 0, True, True),
    ],
)
def test_an_access_outside_ends_the_process(
    guard: Path, side: str, offset: int, freed: bool, dies: bool
) -> None:
    code = OUTSIDE.format(count=64, offset=offset, freed=freed)
    assert (guarded(guard, side, ["-c", code]).returncode < 0) is dies


@pytest.mark.parametrize("side", ["behind", "before"])
@pytest.mark.parametrize("folder", ["engine", "optim", "losses", "checkpoint"])
def test_no_access_outside(guard: Path, folder: str, side: str) -> None:
    left_out = " and ".join(f"not {word}" for word in LEFT_OUT)
    options = ["-q", "-x", "-p", "no:cacheprovider", "-m", "not slow", "-k", left_out]
    done = guarded(guard, side, ["-m", "pytest", f"tests/{folder}", *options])
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
