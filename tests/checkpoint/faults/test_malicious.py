"""Headers that were forged: refused, or data comes out; never code, and never without bounds."""

from __future__ import annotations

import json
import random
import resource
import signal
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import xxhash
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from tests.checkpoint.faults.forging import Forgery, Victim, forged, framed
from tests.checkpoint.faults.forks import Helper
from tests.checkpoint.faults.odd_json import Pairs, Raw
from tests.checkpoint.faults.subjects import raised, seeded
from thalweg import checkpoint
from thalweg.checkpoint import CheckpointError

MEMORY = 300 << 20  # bytes beyond what a process has that has loaded a checkpoint


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Victim:
    return Victim(tmp_path_factory.mktemp("victim"))


@settings(
    max_examples=50, deadline=5000, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
@given(some.randoms(use_true_random=False))
def test_forged_headers(victim: Victim, draw: random.Random) -> None:
    victim.read(forged(victim.original, draw))


def forge_within_bounds(folder: Path, begin: int, cases: int) -> dict[str, int]:
    """Forgeries from a number on, each with 10 s, and with little more memory than there is."""
    victim = Victim(folder)
    with open("/proc/self/statm") as file:
        held = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY, resource.RLIM_INFINITY))
    for case in range(begin, begin + cases):
        signal.alarm(10)  # ends the process
        try:
            victim.read(forged(victim.original, seeded("forged", case)))
        except BaseException as error:
            raise AssertionError(f"case {case}: {error!r}") from error
    signal.alarm(0)
    return dict(victim.found)


@pytest.mark.parametrize(
    ("begin", "cases"), [(0, 200), pytest.param(1000, 20_000, marks=pytest.mark.slow)]
)
def test_forged_headers_within_bounds(
    begin: int, cases: int, tmp_path: Path, helper: Helper
) -> None:
    found = helper.run(forge_within_bounds, tmp_path, begin, cases, seconds=3600)
    assert sum(found.values()) == cases
    assert found.keys() == {"refused", "does not fit", "loaded"}


# ------------------------------------------------------------------------ what may be thought of


def small(folder: Path) -> tuple[Path, Forgery]:
    """A checkpoint with a tensor "w" of six numbers, twice in a tuple, and an empty one."""
    path, w = folder / "a.safetensors", torch.arange(6.0)
    checkpoint.save(path, x=(w, w), n=torch.ones(0), rng=False)
    return path, Forgery.of(path.read_bytes())


def entry(of: Forgery, name: str) -> Pairs:
    """What safetensors' part says of a tensor."""
    found: Pairs = dict(of.header)[name]
    return found


def set_in(pairs: Pairs, key: str, value: Any) -> None:
    number = [each for each, _ in pairs].index(key)
    pairs[number] = (key, value)


def part(of: Forgery) -> Pairs:
    found: Pairs = dict(of.text)["parts"]
    return found


@pytest.mark.parametrize(
    "offsets",
    [
        [0, 2**62], [0, 2**63], [0, 2**64 - 1], [0, 2**64], [-1, 24], [24, 0], [0, 25], [0, 23],
        [2**64 - 24, 2**64], [0], [0, 24, 24], ["0", "24"], None, [0.0, 24.0], [1, 25],
    ],
    ids=str,
)  # fmt: skip
def test_places_in_the_file(tmp_path: Path, offsets: Any) -> None:
    path, of = small(tmp_path)
    set_in(entry(of, "x/0"), "data_offsets", offsets)
    path.write_bytes(of.file())
    with pytest.raises(CheckpointError, match="it is no whole safetensors file"):
        checkpoint.read(path)


def test_tensors_that_overlap(tmp_path: Path) -> None:
    path, of = small(tmp_path)
    twin = Pairs(entry(of, "x/0"))
    of.header.append(("twin", twin))
    dict(of.text)["tensors"].append(("twin", ["F32", [6], ""]))
    path.write_bytes(of.file())
    with pytest.raises(CheckpointError, match="it is no whole safetensors file"):
        checkpoint.read(path)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/dev/zero", "a\0b", "..", "C:\\NUL", "\n"])
def test_names_that_look_like_paths_are_names(tmp_path: Path, name: str) -> None:
    path, of = small(tmp_path)
    of.header[:] = [(name if key == "x/0" else key, item) for key, item in of.header]
    tensors = dict(of.text)["tensors"]
    tensors[:] = [(name if key == "x/0" else key, item) for key, item in tensors]
    set_in(part(of), "x", [Pairs([("$tensor", name)])])
    path.write_bytes(of.file())
    before = sorted(tmp_path.iterdir())
    (found,) = checkpoint.read(path)["x"]
    assert found.equal(torch.arange(6.0))
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "shape", [[2**64], [2**32, 2**32, 6], [3], [7], [6.0], ["6"], [-6], [-2, -3], [True] * 3, 6]
)
def test_shapes_that_are_no_six_numbers(tmp_path: Path, shape: Any) -> None:
    path, of = small(tmp_path)
    set_in(entry(of, "x/0"), "shape", shape)
    dict(dict(of.text)["tensors"])["x/0"][1] = shape
    path.write_bytes(of.file())
    with pytest.raises(CheckpointError):
        checkpoint.read(path)


@pytest.mark.parametrize("shape", [[6, *[1] * 70], [6, *[1] * 5000], [1] * 90 + [6]], ids=len)
def test_many_dimensions(tmp_path: Path, shape: list[int]) -> None:
    path, of = small(tmp_path)
    set_in(entry(of, "x/0"), "shape", shape)
    dict(dict(of.text)["tensors"])["x/0"][1] = shape
    path.write_bytes(of.file())
    result: list[Any] = []
    error = raised(lambda: result.append(checkpoint.read(path)), kinds=(CheckpointError,))
    assert error is not None or result[0]["x"][0].flatten().equal(torch.arange(6.0))


@pytest.mark.parametrize("shape", [[0, 2**62], [2**62, 0], [0, 2**63 - 1, 2], [0] * 65], ids=str)
def test_shapes_of_nothing(tmp_path: Path, shape: list[int]) -> None:
    path, of = small(tmp_path)
    set_in(entry(of, "n"), "shape", shape)
    dict(dict(of.text)["tensors"])["n"][1] = shape
    path.write_bytes(of.file())
    result: list[Any] = []
    error = raised(lambda: result.append(checkpoint.read(path)), kinds=(CheckpointError,))
    assert error is not None or result[0]["n"].numel() == 0


@pytest.mark.parametrize("length", [2**63, 2**64 - 1, 100_000_001, 10**12, 3, 0])
def test_lengths_of_the_header(tmp_path: Path, length: int) -> None:
    path, _ = small(tmp_path)
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    with pytest.raises(CheckpointError, match="it is no whole safetensors file"):
        checkpoint.read(path)


TEXTS: list[Callable[[], Any]] = [
    lambda: Raw("[" * 1_000_000),
    lambda: Raw('{"a":' * 1_000_000),
    lambda: Raw("[" * 132 + "]" * 132),
    lambda: Raw('{"$tuple":[' * 140 + "]}" * 140),
    lambda: Raw("1" * 1_000_000),
    lambda: Raw("-" + "1" * 5000),
    lambda: Raw("NaN"),
    lambda: Pairs([("$int", "z")]),
    lambda: Pairs([("$bytes", "ä")]),
    lambda: Pairs([("$bytes", "A")]),
    lambda: Pairs([("$tensor", "missing")]),
    lambda: Pairs([("$tensor", None)]),
    lambda: Pairs([("$complex_tensor", "x/0")]),
    lambda: Pairs([("$array", 3)]),
    lambda: Pairs([("$dtype", "Tensor")]),
    lambda: Pairs([("$dtype", "_C._log_api_usage_once")]),
    lambda: Pairs([("$device", "cuda:99999999999999999999")]),
    lambda: Pairs([("$device", "\ud800")]),
    lambda: Pairs([("$size", [2**63])]),
    lambda: Pairs([("$set", [[]])]),
    lambda: Pairs([("$dict", [[1, 1], [1.0, 2]])]),
    lambda: Pairs([("$dict", [[1]])]),
    lambda: Pairs([("$counter", [["a", "b"]])]),
    lambda: Pairs([("$ordered", [])]),
    lambda: Pairs([("$float", 1)]),
    lambda: Pairs([("$complex", [1, 2, 3])]),
    lambda: Pairs([("$tuple", []), ("a", 1)]),
    lambda: Pairs([("$reduce", "os.system")]),
    lambda: Pairs([("a", 1), ("a", 2)]),
]


@pytest.mark.parametrize("text", TEXTS, ids=lambda make: str(make())[:40])
def test_data_that_stands_for_nothing(tmp_path: Path, text: Callable[[], Any]) -> None:
    path, of = small(tmp_path)
    set_in(part(of), "x", text())
    path.write_bytes(of.file())
    with pytest.raises(CheckpointError) as error:
        checkpoint.read(path)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 1000


def test_a_dtypes_name_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, of = small(tmp_path)
    set_in(part(of), "x", Pairs([("$dtype", "a_module_of_torch")]))
    path.write_bytes(of.file())
    asked: list[str] = []
    # torch imports some of its modules when they are asked for as attributes.
    monkeypatch.setattr(torch, "__getattr__", asked.append)
    with pytest.raises(CheckpointError, match="there is no dtype"):
        checkpoint.read(path)
    assert asked == []


def many_times_one_tensor(folder: Path) -> int:
    """The peak of memory in bytes while a file of 5 MB is read, whose text grows a thousandfold."""
    path = folder / "a.safetensors"
    odd, w = torch.ones(1), torch.ones(1 << 20)
    checkpoint.save(path, x=odd, w=w, rng=False)
    of = Forgery.of(path.read_bytes())
    # Complex numbers that do not begin where complex numbers may.
    names = [name for name, _ in of.header]
    assert names == ["x", "w"]
    set_in(entry(of, "w"), "shape", [1 << 19, 2])
    dict(dict(of.text)["tensors"])["w"][1] = [1 << 19, 2]
    set_in(part(of), "w", [Pairs([("$complex_tensor", "w")])] * 1000)
    path.write_bytes(of.file())
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = resident()
    raised(lambda: checkpoint.read(path), kinds=(CheckpointError,))
    return resident("VmHWM") - before


def resident(which: str = "VmRSS") -> int:
    with open("/proc/self/status") as file:
        (line,) = [line for line in file if line.startswith(which)]
    return int(line.split()[1]) << 10


def test_memory_does_not_grow_with_mentions(tmp_path: Path, helper: Helper) -> None:
    assert helper.run(many_times_one_tensor, tmp_path) < 100 << 20


def test_a_header_of_the_largest_size_is_refused_in_time(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    text = '{"format":' + "[" * 90_000_000
    digest = xxhash.xxh3_128(text.encode()).hexdigest()
    header = json.dumps({"__metadata__": {"thalweg": text, "digest": digest}})
    path.write_bytes(framed(header, b""))
    with pytest.raises(CheckpointError, match="the header cannot be read"):
        checkpoint.read(path)
