"""The CPU back end keeps the contract of back ends."""

from tests.engine.backends.contract import BackendContract
from thalweg.engine.backends.cpu.backend import CpuBackend


class TestCpu(BackendContract):
    backend = CpuBackend()
