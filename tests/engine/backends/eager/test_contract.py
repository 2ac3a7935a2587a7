"""The eager back end keeps the contract of back ends."""

from tests.engine.backends.contract import BackendContract
from thalweg.engine.backends.eager.backend import EagerBackend


class TestEager(BackendContract):
    backend = EagerBackend()
