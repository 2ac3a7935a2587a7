"""Files of torch.save with tensors that are not what they say: refused, at little cost."""

from __future__ import annotations

import pickle
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import numpy as np
import pytest
import torch

from thalweg import checkpoint
from thalweg.checkpoint import CheckpointError

pytestmark = [
    pytest.mark.filterwarnings("ignore:Sparse"),
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested"),
    pytest.mark.filterwarnings("ignore:TypedStorage is deprecated"),
]


def sparse(index: int) -> torch.Tensor:
    return torch.sparse_coo_tensor(
        torch.tensor([[index]]), torch.ones(1), (3,), check_invariants=False
    )


def many(levels: int) -> list[Any]:
    """2^levels numbers, of which few are in memory."""
    found: list[Any] = [1, 2]
    for _ in range(levels):
        found = [found, found]
    return found


def itself() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


def deep(levels: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(levels):
        found = [found]
    return found


class Nested:
    """A nested tensor whose second part ends behind its buffer."""

    def __reduce__(self) -> Any:
        sizes, strides = torch.tensor([[2], [10**9]]), torch.tensor([[1], [1]])
        return torch._utils._rebuild_nested_tensor, (
            torch.zeros(5), sizes, strides, torch.tensor([0, 2]),
        )  # fmt: skip


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (sparse(10**9), r"\['a'\]\['b'\]\[0\] is sparse"),
        (sparse(-1), "is sparse"),
        (Nested(), r"is nested|storage size"),
        (many(60), "over and over"),
        (itself(), "holds itself"),
        (deep(200), "levels deep"),
    ],
    ids=["index", "negative", "nested", "many", "itself", "deep"],
)  # fmt: skip
@pytest.mark.parametrize("how", [checkpoint.inspect, checkpoint.read])
def test_what_is_not_what_it_says_is_refused(
    how: Any, value: Any, reason: str, tmp_path: Path
) -> None:
    torch.save({"a": {"b": [value]}}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=reason):
        how(tmp_path / "a.pt")


def expanded(value: float, *shape: int) -> torch.Tensor:
    return torch.full((1,) * len(shape), value).expand(shape)


def test_expanded_tensors_take_the_work_of_their_memory(tmp_path: Path) -> None:
    first, second = tmp_path / "a.pt", tmp_path / "b.pt"
    torch.save({"w": expanded(2.0, 10**7, 10**7), "step": 1}, first)
    torch.save({"w": expanded(3.0, 10**7, 10**7), "step": 1}, second)
    begun = time.perf_counter()
    part = checkpoint.inspect(first).parts[0]
    (stored,) = part.tensors
    assert (stored.elements, stored.bytes, stored.numbers.rms) == (10**14, 4, 2.0)
    (changed,) = checkpoint.diff(first, second).tensors
    assert (changed.changed.different, changed.changed.overall) == (1, 0.5)
    copied = checkpoint.load(first)["w"]
    assert copied.untyped_storage().nbytes() == 4
    assert time.perf_counter() - begun < 10


def test_expanded_in_other_dimensions_is_another_form(tmp_path: Path) -> None:
    first, second = tmp_path / "a.pt", tmp_path / "b.pt"
    row = torch.arange(1e5)
    torch.save({"w": row.expand(10**5, 10**5), "step": 1}, first)
    torch.save({"w": row[:, None].expand(10**5, 10**5), "step": 1}, second)
    assert len(checkpoint.diff(first, second).forms) == 1
    assert checkpoint.diff(first, first).identical


def test_an_expanded_tensor_and_a_whole_one_are_compared_by_value(tmp_path: Path) -> None:
    first, second = tmp_path / "a.pt", tmp_path / "b.pt"
    torch.save({"w": expanded(2.0, 3, 3), "step": 1}, first)
    torch.save({"w": torch.full((3, 3), 2.0), "step": 1}, second)
    assert checkpoint.diff(first, second).identical


def test_compressed_archives_are_refused(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(10**5)}, tmp_path / "a.pt")
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as source,
        zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(CheckpointError, match="compressed"):
        checkpoint.inspect(tmp_path / "b.pt")


NUMBERS = [
    np.float64(0.9), np.float32(0.5), np.float16(2), np.int64(-3), np.uint8(7), np.bool_(True),
    np.complex64(1j),
]  # fmt: skip


@pytest.mark.parametrize("zipped", [True, False])
def test_numpy_numbers_are_read_as_numbers(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"best": NUMBERS, "epoch": 3}, path, _use_new_zipfile_serialization=zipped)
    allowed = set(torch.serialization.get_safe_globals())
    found = checkpoint.load(path)["best"]
    assert found == [each.item() for each in NUMBERS]
    assert [type(each) for each in found] == [type(each.item()) for each in NUMBERS]
    assert set(torch.serialization.get_safe_globals()) == allowed


@pytest.mark.parametrize("zipped", [True, False])
def test_numpy_numbers_are_read_in_one_thread_alone(zipped: bool, tmp_path: Path) -> None:
    """Two threads of ours at once, and torch's reader in a third, which refuses as ever."""
    path = tmp_path / "a.pt"
    torch.save({"best": NUMBERS[:2]}, path, _use_new_zipfile_serialization=zipped)
    allowed = torch.serialization.get_safe_globals()
    barrier, faults = Barrier(3), []

    def read(load: Callable[[], Any]) -> None:
        barrier.wait()
        for _ in range(60):
            try:
                if load is not plain and load()["best"] != [0.9, 0.5]:
                    faults.append("other numbers")
                elif load is plain:
                    load()
                    faults.append("torch's reader took NumPy's numbers")
            except pickle.UnpicklingError:
                pass  # as it should, of torch's reader
            except Exception as error:
                faults.append(repr(error))

    def plain() -> Any:
        return torch.load(path, weights_only=True)

    def ours() -> Any:
        return checkpoint.load(path)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [Thread(target=read, args=(load,)) for load in (ours, ours, plain)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert not faults
    assert torch.serialization.get_safe_globals() == allowed


def test_what_a_program_allows_is_read_as_before(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"kept": Path("a"), "best": np.float64(0.9)}, path)
    with torch.serialization.safe_globals([type(Path("a")), np.dtype, type(np.dtype("f8"))]):
        assert dict(checkpoint.load(path)) == {"kept": Path("a"), "best": 0.9}


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (np.zeros(3), "NumPy array.*from_numpy"),
        (np.str_("a"), "dtype 'U1' is no number"),
        (np.datetime64("2020-01-01"), "dtype 'M8' is no number"),
        (Path("a"), "pathlib"),
    ],
)
def test_what_is_not_read_is_named(value: Any, named: str, tmp_path: Path) -> None:
    torch.save({"a": value}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=named) as error:
        checkpoint.load(tmp_path / "a.pt")
    assert "\x1b" not in str(error.value)
    assert len(str(error.value)) < 600
