"""One call of a program's kernel on buffers that the caller made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from thalweg.engine.backends.cpu import printer, threads
from thalweg.engine.backends.cpu.chunks import chunk_table
from thalweg.engine.formats import Format, buffers_of, compute_type
from thalweg.rule import Program

Buffers = Mapping[str, tuple[torch.Tensor, ...]]


def call(
    program: Program,
    formats: Mapping[str, Format],
    tensors: Sequence[Buffers],
    constants: Sequence[float] = (),
    seeds: Sequence[int] | None = None,
    stage: int = 0,
    on_threads: int = 1,
) -> np.ndarray:
    """Run a stage.

    Args:
        program: the program.
        formats: of its operands.
        tensors: of each parameter, every operand's buffers.
        constants: of the stage, for all of them.
        seeds: one for each parameter.
        stage: its number.
        on_threads: how many threads share the work.

    Returns:
        The sums of each parameter, ``[reductions, parameters]``.
    """
    kernel = printer.compile_stage(program, stage, formats)
    chunks, spans, blocks = chunk_table([buffers["p"][0].numel() for buffers in tensors])
    rows = buffers_of(program.operands, formats)
    places = [(operand, formats[operand].buffers.index(buffer)) for operand, buffer in rows]
    addresses = np.array([[t[o][k].data_ptr() for t in tensors] for o, k in places])
    table = np.array([constants], dtype=compute_type(formats.values()))
    row = np.zeros(len(tensors), dtype=np.int64)
    partials = np.zeros((len(program.stages[stage].reductions), blocks[-1]))
    each = np.array(seeds if seeds is not None else [], dtype=np.int64)
    arguments = np.zeros(printer.ARGUMENTS + 1, dtype=np.int64)
    for place, array in (
        (printer.SPANS, spans),
        (printer.CHUNKS, chunks),
        (printer.ADDRESSES, addresses),
        (printer.ROWS, row),
        (printer.CONSTANTS, table),
        (printer.PARTIALS, partials),
        (printer.SEEDS, each),
    ):
        arguments[place] = array.ctypes.data
    arguments[printer.SPAN_COUNT] = len(spans) - 1
    arguments[printer.TENSORS] = len(tensors)
    arguments[printer.WIDTH] = table.shape[1]
    arguments[printer.BLOCKS] = blocks[-1]
    threads.run(kernel, arguments.ctypes.data, on_threads)
    return np.add.reduceat(partials, blocks[:-1], axis=1)
