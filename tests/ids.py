"""Names of parametrized tests, the same in every process: pytest-xdist compares them."""

import re
from typing import Any


def shown(x: Any) -> str:
    """What is printed of an object, without the addresses of functions."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(x))


def shown_briefly(x: Any) -> str:
    return shown(x)[:60]
