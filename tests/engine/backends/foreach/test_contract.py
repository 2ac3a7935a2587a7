"""The foreach back end keeps the contract of back ends."""

from tests.engine.backends.contract import BackendContract
from thalweg.engine.backends.foreach.backend import ForeachBackend


class TestForeach(BackendContract):
    backend = ForeachBackend()


class TestForeachInPieces(BackendContract):
    """With so little memory for temporaries that all but the smallest parameters are cut."""

    backend = ForeachBackend(temporary_bytes=300)
