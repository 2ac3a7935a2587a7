"""Checkpoints in one file: whole or not there, checked to the last bit, and without pickle."""

from thalweg.checkpoint.container import CheckpointError

__all__ = [
    "CheckpointError",
]
