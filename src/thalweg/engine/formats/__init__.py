"""How operands are stored. Read :mod:`~thalweg.engine.formats.base` first."""

from thalweg.engine.formats.base import Buffer, Format, Names, buffers_of, compute_type, salt
from thalweg.engine.formats.plain import FORMATS, REAL_PARTS, Plain, format_of

__all__ = [
    "FORMATS",
    "REAL_PARTS",
    "Buffer",
    "Format",
    "Names",
    "Plain",
    "buffers_of",
    "compute_type",
    "format_of",
    "salt",
]
