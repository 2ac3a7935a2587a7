from collections.abc import Iterator

import pytest

from tests.checkpoint.faults.forks import Helper


@pytest.fixture(scope="session")
def helper() -> Iterator[Helper]:
    found = Helper()
    yield found
    found.close()
