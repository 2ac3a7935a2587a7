"""Adam's rule on states in formats of several buffers, bit for bit as NumPy has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.engine.formats.calls import call
from tests.engine.formats.samples import SPLIT, STOCHASTIC, blockwise
from thalweg import optim
from thalweg.engine.formats import FORMATS, Format, salt
from thalweg.rule import Program, Rule, Stage, norm, sqrt
from thalweg.rule.symbols import Symbol

FP32 = FORMATS[torch.float32]
COUNTS = (300, 1, 16384 + 257, 256)
STEPS = 3

Array = NDArray[Any]
Stored = tuple[Array, ...]

OPERATIONS: dict[str, Callable[..., Array]] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "divide": np.divide,
    "sqrt": np.sqrt,
}


def compute(
    stage: Stage, loaded: Mapping[str, Array], constants: Sequence[float]
) -> dict[Symbol, Array]:
    """The value of each node of a stage, each operation on whole float32 arrays."""
    values: dict[Symbol, Any] = dict(zip(stage.constants, np.float32(constants), strict=True))
    values |= {n: loaded[n.detail] for b in stage.body for n in b.args if n.op == "load"}
    for node in stage.body:
        values[node] = OPERATIONS[node.op](*(values[a] for a in node.args))
    return values


# ------------------------------------------------------------------------- the formats in NumPy


def bf16(x: Array) -> Array:
    """The nearest bfloat16 as its bits, ties to even."""
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def wide(bits: Array) -> Array:
    return (bits.astype(np.uint32) << 16).view(np.float32)


def load_blocks(stored: Stored, block: int) -> Array:
    codes, scales = stored
    return codes.astype(np.float32) * np.repeat(scales, block)[: len(codes)]


def store_blocks(x: Array, block: int) -> Stored:
    codes, scales = [], []
    for first in range(0, len(x), block):
        part = x[first : first + block]
        largest = np.abs(part).max()
        scales.append(largest / np.float32(127))
        inverse = np.float32(127) / largest if largest > 0 else np.float32(0)
        codes.append(np.rint(part * inverse).astype(np.int8))
    return np.concatenate(codes), np.array(scales, dtype=np.float32)


def store_split(x: Array) -> Stored:
    high = bf16(x)
    return high, bf16(x - wide(high))


def store_randomly(x: Array, seed: int) -> Stored:
    hashed = np.arange(len(x), dtype=np.uint32) * np.uint32(0x9E3779B9) + np.uint32(seed)
    hashed = (hashed ^ (hashed >> 16)) * np.uint32(0x7FEB352D)
    hashed = (hashed ^ (hashed >> 15)) * np.uint32(0x846CA68B)
    return (((x.view(np.uint32) + (hashed >> 16)) >> 16).astype(np.uint16),)


Load = Callable[[Stored], Array]
Store = Callable[[Array, int], Stored]

IN_NUMPY: dict[str, tuple[Load, Store]] = {
    "fp32": (lambda stored: stored[0], lambda x, seed: (x,)),
    "q8x256": (lambda stored: load_blocks(stored, 256), lambda x, seed: store_blocks(x, 256)),
    "q8x64": (lambda stored: load_blocks(stored, 64), lambda x, seed: store_blocks(x, 64)),
    "bf16x2": (lambda stored: wide(stored[0]) + wide(stored[1]), lambda x, seed: store_split(x)),
    "bf16s": (lambda stored: wide(stored[0]), store_randomly),
}


def arrays(buffers: Sequence[torch.Tensor]) -> Stored:
    """Copies; bfloat16 as its bits."""
    bits = (b.view(torch.uint16) if b.dtype is torch.bfloat16 else b for b in buffers)
    return tuple(b.clone().numpy() for b in bits)


# ------------------------------------------------------------------------- kernel and emulation


def traced(rule: Rule, options: dict[str, Any], step: int) -> tuple[Program, list[float]]:
    """A rule's program, and the constants of its first stage."""
    program = rule.program(options, [float(step)])
    scalars = program.scalars(options, [float(step)])
    assert scalars is not None
    values = dict(zip(program.constants, scalars[0], strict=True))
    return program, [values[c] for c in program.stages[0].constants]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "formats",
    [
        {"exp_avg": blockwise(256)},
        {"exp_avg": SPLIT},
        {"exp_avg": STOCHASTIC},
        {"exp_avg": blockwise(64), "exp_avg_sq": blockwise(256)},
        {"exp_avg": blockwise(256), "exp_avg_sq": blockwise(256)},
        {"p": SPLIT, "exp_avg": STOCHASTIC, "exp_avg_sq": STOCHASTIC},
    ],
    ids=lambda formats: "-".join(f"{name}-{form.name}" for name, form in formats.items()),
)
def test_adam(formats: dict[str, Format], threads: int) -> None:
    generator = torch.Generator().manual_seed(0)
    operands = ("p", "g", "exp_avg", "exp_avg_sq")
    used = {name: formats.get(name, FP32) for name in operands}
    tensors = []
    for count in COUNTS:
        x = torch.randn(count, generator=generator)
        buffers = {name: form.create(x, 0.0) for name, form in used.items()}
        used["p"].encode(x, buffers["p"])
        tensors.append(buffers)
    ours = [{name: arrays(buffers) for name, buffers in t.items()} for t in tensors]
    before = {name: stored[0].copy() for name, stored in ours[0].items()}
    options = optim.Adam([torch.zeros(1)], lr=0.01).param_groups[0]
    for step in range(1, STEPS + 1):
        program, constants = traced(optim.Adam.rule, options, step)
        (stage,) = program.stages
        seeds = [0x9E3779B9 * step + k & 0xFFFFFFFF for k in range(len(COUNTS))]
        for t, emulated in zip(tensors, ours, strict=True):
            t["g"][0].copy_(torch.randn(t["g"][0].shape, generator=generator))
            emulated["g"] = arrays(t["g"])
        call(program, used, tensors, constants, seeds, on_threads=threads)
        for t, emulated, seed in zip(tensors, ours, seeds, strict=True):
            loaded = {name: IN_NUMPY[used[name].name][0](emulated[name]) for name in operands}
            values = compute(stage, loaded, constants)
            for name, node in stage.stores:
                emulated[name] = IN_NUMPY[used[name].name][1](values[node], seed ^ salt(name))
            for name, buffers in t.items():
                for found, wanted in zip(arrays(buffers), emulated[name], strict=True):
                    assert np.array_equal(found, wanted), (name, step)
    for name in ("p", "exp_avg", "exp_avg_sq"):
        assert (arrays(tensors[0][name])[0] != before[name]).mean() > 0.5, "and something moved"


def scaled(p, g, s, h):
    s.exp_avg = 0.5 * s.exp_avg + g
    return p - s.exp_avg / norm(s.exp_avg)


def scaled_at_length(p, g, s, h):
    s.exp_avg = 0.5 * s.exp_avg + g
    x = sqrt(s.exp_avg * s.exp_avg + 1) * s.exp_avg / (2 + s.exp_avg * s.exp_avg)
    return p - x / norm(x)


@pytest.mark.parametrize("update", [scaled, scaled_at_length])
def test_sums_over_blocks(update: Callable[..., Any]) -> None:
    """A partial sum's block has formats' blocks within."""
    form = blockwise(256)
    program, constants = traced(Rule(update, {"exp_avg": 0.0}), {}, 1)
    formats = {"p": FP32, "g": FP32, "exp_avg": form}
    tensors = []
    for count in COUNTS:
        x = torch.randn(count, generator=torch.Generator().manual_seed(count))
        tensors.append({"p": (x,), "g": (x,), "exp_avg": form.create(x, 0.0)})
        form.encode(3 * x, tensors[-1]["exp_avg"])
    stage = program.stages[0]
    (found,) = call(program, formats, tensors, constants)
    for t, sum_of_squares in zip(tensors, found, strict=True):
        loaded = {"g": t["g"][0].numpy(), "exp_avg": load_blocks(arrays(t["exp_avg"]), 256)}
        values = compute(stage, loaded, constants)
        wanted = values[stage.reductions[0].args[0]].sum(dtype=np.float64)
        assert sum_of_squares == pytest.approx(wanted, rel=1e-12)
