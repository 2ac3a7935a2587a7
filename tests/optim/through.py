"""State dicts as another process reads them."""

from __future__ import annotations

import io
from typing import Any

import torch


def through_a_file(state_dict: dict[str, Any]) -> dict[str, Any]:
    """No code, and no memory shared with the writer."""
    buffer = io.BytesIO()
    torch.save(state_dict, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=True)
