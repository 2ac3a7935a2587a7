from __future__ import annotations

from typing import Any

import pytest

from thalweg.optim.closure import takes_closure


class Torchs:
    def step(self, closure: Any = None) -> None: ...


class Needed:
    def step(self, evaluate: Any) -> None: ...


class Wrapper:
    def step(self, *args: Any, **kwargs: Any) -> None: ...


class Without:
    def step(self) -> None: ...


class Scaled:
    def step(self, scale: float = 1.0, *, check: bool = True) -> None: ...


class Named:
    def step(self, **options: Any) -> None: ...


@pytest.mark.parametrize(
    ("kind", "takes"),
    [(Torchs, True), (Needed, True), (Wrapper, True), (Without, False), (Scaled, False),
     (Named, False)],
    ids=lambda value: getattr(value, "__name__", None),
)  # fmt: skip
def test_only_an_argument_that_can_be_a_closure_counts(kind: type, takes: bool) -> None:
    assert takes_closure(kind()) is takes
