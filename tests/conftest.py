"""Every test starts from the same global state; long sweeps are shortened where time counts.

``make test`` runs a part of each sweep: of a test with many cases it takes some that are spread
evenly over all, another part for each test, so that together they meet every loss, optimizer and
dtype. The others are marked ``slow``: ``make test-all`` runs them, too.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

# How many cases of one test run by default, by folder. Where each case compiles a kernel, a third
# of a second, they are fewest.
CASES = {
    **{"losses": 2, "engine": 4, "optim": 3},
    **{"checkpoint": 8, "landscape": 4, "schedules": 40, "transforms": 12},
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what exceeds a folder's number of cases as slow."""
    root = Path(__file__).parent
    sweeps: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        whole = item.get_closest_marker("whole") is not None
        if root in item.path.parents and hasattr(item, "callspec") and not whole:
            sweeps[item.nodeid.partition("[")[0]].append(item)
    for name, cases in sweeps.items():
        kept = CASES.get(cases[0].path.relative_to(root).parts[0], len(cases))
        cases = [case for case in cases if case.get_closest_marker("slow") is None]
        if len(cases) <= kept:
            continue
        first = zlib.crc32(name.encode()) % len(cases)
        chosen = {(first + k * len(cases) // kept) % len(cases) for k in range(kept)}
        for k, case in enumerate(cases):
            if k not in chosen:
                case.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def _global_state() -> Iterator[None]:
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    torch.set_grad_enabled(True)  # whatever an interrupt in a test before has left
    torch.manual_seed(0)
    # The tensors are small, and idle OpenMP threads spin: on a busy machine that costs minutes.
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_default_dtype(dtype)
