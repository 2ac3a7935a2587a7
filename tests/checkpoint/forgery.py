"""Files that nobody wrote: with any header and any tensors, and digests that fit them."""

import json
import struct
from pathlib import Path
from typing import Any

import xxhash


def digest(data: bytes) -> str:
    return xxhash.xxh3_128(data).hexdigest()


def safetensors_file(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
    """A file with this header, as JSON unless it is bytes, and this much of a length told."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def text_of(**changes: Any) -> dict[str, Any]:
    """A sound text for one part ``x`` that is a tensor of two numbers; with changes."""
    return {
        "format": 1,
        "versions": {"thalweg": "0"},
        "saved": "2026-01-01T00:00:00+00:00",
        "kinds": {"x": "data"},
        "parts": {"x": {"$tensor": "x"}},
        "tensors": {"x": ["F32", [2], digest(b"12345678")]},
    } | changes


def forged(
    path: Path,
    text: Any,
    tensors: dict[str, Any] | None = None,
    data: bytes = b"12345678",
    **metadata: str,
) -> Path:
    """A file with this text in its header, and the digest that belongs to it."""
    told = text if isinstance(text, str) else json.dumps(text)
    if tensors is None:
        tensors = {"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, len(data)]}}
    metadata = {"thalweg": told, "digest": digest(told.encode()), **metadata}
    return safetensors_file(path, {"__metadata__": metadata, **tensors}, data)
