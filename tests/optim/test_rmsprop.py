"""RMSprop where the variance of centered gradients vanishes in rounding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import Parameter

from thalweg.optim import RMSprop


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", [{}, {"fused": False}, {"fused": False, "foreach": True}])
def test_equal_gradients_have_no_negative_variance(
    options: dict[str, Any], dtype: torch.dtype
) -> None:
    p = Parameter(torch.zeros(1000, dtype=dtype))
    gradient = torch.logspace(-3, 3, 1000, dtype=dtype)
    optimizer = RMSprop([p], lr=1e-4, alpha=0.5, centered=True, **options)
    for _ in range(70):
        p.grad = gradient
        optimizer.step()
    assert (p <= 0).all(), "each step is downhill, and none is NaN"
