"""A back end from outside, in less than eighty lines, keeps the contract of back ends."""

from pathlib import Path

from tests.engine.backends import numpy_backend
from tests.engine.backends.contract import BackendContract
from tests.engine.backends.numpy_backend import NumpyBackend


class TestNumpy(BackendContract):
    backend = NumpyBackend()


def test_it_is_short() -> None:
    lines = Path(numpy_backend.__file__).read_text(encoding="utf-8").splitlines()
    assert len([line for line in lines if line.strip()]) < 80
