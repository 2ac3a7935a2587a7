"""Elementary functions of float32 kernels: how far from the correctly rounded value, and how fast.

The reference is torch's function in float64, rounded: its own error is far below a float32's last
place. A distance is counted in float32 numbers between the two.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from tests.engine.running import class_of, states_after
from thalweg.engine.backends.cpu import elementary, machine_code
from thalweg.engine.backends.cpu.compiler.llvm import compile_functions, optimized
from thalweg.engine.backends.cpu.printer import compile_stage
from thalweg.engine.formats import FORMATS
from thalweg.optim.optimizer import MODES
from thalweg.rule import Rule, functions
from thalweg.rule.tracer import trace

# The largest distance of any float32: the slow test finds it for all of them.
WORST = {"exp": 1, "expm1": 1, "log": 1, "log1p": 1, "sigmoid": 2, "tanh": 1, "atan": 1}
every_function = pytest.mark.parametrize("name", list(WORST))


def rule_of(name: str) -> Rule:
    function = getattr(functions, name)
    return Rule(lambda p, g, s, h: function(g), name=f"only_{name}")


class Kernel:
    """One function in a kernel that writes f(x) over a parameter, x being its gradient."""

    def __init__(self, name: str, dtype: torch.dtype = torch.float32) -> None:
        self.optimizers: dict[int, tuple[Parameter, torch.optim.Optimizer]] = {}
        self.cls, self.dtype = class_of(rule_of(name)), dtype

    def __call__(self, x: Tensor) -> Tensor:
        """f(x), in memory that the next call with as many numbers uses again."""
        if len(x) not in self.optimizers:
            p = Parameter(torch.zeros(len(x), dtype=self.dtype))
            self.optimizers[len(x)] = p, self.cls([p], {**MODES, "fused": True})
        p, optimizer = self.optimizers[len(x)]
        p.grad = x
        optimizer.step()
        return p.detach()


def float32_of(bits: Tensor) -> Tensor:
    """The float32 of each 32-bit pattern, which count from -2^31."""
    return bits.to(torch.int32).view(torch.float32)


FAR = 2**31 - 1


def distances(got: Tensor, wanted: Tensor) -> Tensor:
    """How many float32 apart two are; 0 for two NaN, FAR if the signs differ or only one is NaN."""
    a, b = (x.view(torch.int32) for x in (got, wanted))
    apart = torch.where((a ^ b) < 0, FAR, (a - b).abs())
    nans = got.isnan(), wanted.isnan()
    return torch.where(nans[0] | nans[1], torch.where(nans[0] & nans[1], 0, FAR), apart)


def worst(name: str, kernel: Kernel, x: Tensor) -> int:
    wanted = getattr(torch, name)(x.double()).float()
    return int(distances(kernel(x), wanted).max())


def test_distances_are_counted() -> None:
    one = torch.ones(1)
    after = torch.nextafter(one, 2 * one)
    nan, zero = one * math.nan, one * 0
    assert distances(one, after).tolist() == [1]
    assert distances(-after, -one).tolist() == [1]
    assert distances(one * math.inf, one * torch.finfo().max).tolist() == [1]
    assert distances(nan, -nan).sum() == 0
    assert distances(one, one).sum() == 0
    assert all(distances(*pair) == FAR for pair in [(zero, -zero), (one, nan), (nan, one)])


# ------------------------------------------------------------------------------------- correctness


def sample() -> Tensor:
    """Both signs, every exponent (subnormals, infinities and NaN too), 4096 mantissas each."""
    generator = torch.Generator().manual_seed(3)
    upper = torch.arange(-(2**20), 2**20) << 11
    return float32_of(upper + torch.randint(0, 2**11, upper.shape, generator=generator))


def around(*points: float) -> Tensor:
    """Two hundred numbers on either side of each."""
    bits = torch.tensor(points, dtype=torch.float32).view(torch.int32)
    return float32_of((bits[:, None] + torch.arange(-200, 201)).flatten())


# Where the functions change their ways, overflow, or stop changing.
EDGES = around(
    *(0.0, -0.0, 1.0, -1.0, 2**-25, -(2**-25), 2.0**-126, -(2.0**-126), 2.0**-149),
    *(math.sqrt(0.5), math.sqrt(2), math.sqrt(0.5) - 1, math.sqrt(2) - 1, 2.0**23, 2.0**24),
    *(88.72284, 89.0, -87.33655, -103.97208, -104.0, -20.0, 10.0, -10.0, 0.5625, -0.5625),
    *(k * math.log(2) / 2 for k in range(-60, 61)),
    *(3.4028235e38, -3.4028235e38),
)


@every_function
@pytest.mark.parametrize("numbers", [sample, lambda: EDGES], ids=["sample", "edges"])
def test_distance_from_the_correctly_rounded(name: str, numbers: Callable[[], Tensor]) -> None:
    x = numbers()
    assert worst(name, Kernel(name), x) <= WORST[name]


def every_float32(count: int = 2**18) -> Iterator[Tensor]:
    for start in range(-(2**31), 2**31, count):
        yield float32_of(torch.arange(start, start + count, dtype=torch.int32))


@pytest.mark.slow
@every_function
def test_distance_for_every_float32(name: str) -> None:
    kernel = Kernel(name)
    assert max(worst(name, kernel, x) for x in every_float32()) == WORST[name]


INF, NAN, PI = math.inf, math.nan, math.pi
SPECIAL = {  # of these numbers
    "x": [NAN, INF, -INF, 0.0, -0.0, -1.0, -2.0, 1e-45, -1e-45, 200.0, -200.0],
    "exp": [NAN, INF, 0.0, 1.0, 1.0, None, None, 1.0, 1.0, INF, 0.0],
    "expm1": [NAN, INF, -1.0, 0.0, -0.0, None, None, 1e-45, -1e-45, INF, -1.0],
    "log": [NAN, INF, NAN, -INF, -INF, NAN, NAN, -103.278929903432, NAN, None, NAN],
    "log1p": [NAN, INF, NAN, 0.0, -0.0, -INF, NAN, 1e-45, -1e-45, None, NAN],
    "sigmoid": [NAN, 1.0, 0.0, 0.5, 0.5, None, None, 0.5, 0.5, 1.0, 0.0],
    "tanh": [NAN, 1.0, -1.0, 0.0, -0.0, None, None, 1e-45, -1e-45, 1.0, -1.0],
    "atan": [NAN, PI / 2, -PI / 2, 0.0, -0.0, None, None, 1e-45, -1e-45, None, None],
}


@every_function
def test_special_values_are_exact(name: str) -> None:
    pairs = [(x, y) for x, y in zip(SPECIAL["x"], SPECIAL[name], strict=True) if y is not None]
    x, wanted = (torch.tensor(column) for column in zip(*pairs, strict=True))
    assert distances(Kernel(name)(x), wanted).sum() == 0


@every_function
def test_bits_do_not_depend_on_vectors(name: str) -> None:
    """A vector lane and a scalar tail, wherever a number lies, answer alike."""
    x = torch.cat([sample()[::40961], around(0.5625, -0.3, 1.4142135)[::97]])
    kernel = Kernel(name)
    whole = kernel(x).clone()
    for count in (1, 2, 3, 5, 8, 13, 21, 33):
        parts = torch.cat([kernel(part.clone()).clone() for part in x.split(count)])
        assert distances(parts, whole).sum() == 0, count


@every_function
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_16_bit_operands_are_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    x = torch.linspace(-12, 12, 4001).to(dtype)
    wanted = Kernel(name)(x.float()).to(dtype)
    torch.testing.assert_close(Kernel(name, dtype)(x), wanted, rtol=0, atol=0, equal_nan=True)


@every_function
def test_float64_is_as_exact_as_the_mathematical_library(name: str) -> None:
    x = torch.cat([torch.linspace(-700, 700, 2001), torch.logspace(-30, 0, 301)]).double()
    found = states_after(rule_of(name), torch.zeros_like(x), x, fused=True)["p"]
    torch.testing.assert_close(
        found, getattr(torch, name)(x), rtol=4e-15, atol=1e-300, equal_nan=True
    )


# ------------------------------------------------------------------------------------- polynomials


@dataclass(frozen=True)
class Polynomial:
    """f(x) is about a x + the sum of c_k x^(first + step k), for x up to ``end``."""

    f: Callable[[np.ndarray], np.ndarray]
    a: float
    first: int
    step: int
    start: float
    end: float
    coefficients: list[np.float32]
    bits: int  # the relative error is at most 2^-bits, as the source says

    def error(self, c: np.ndarray, x: np.ndarray) -> np.ndarray:
        return (self.columns(x) @ c - self.wanted(x)) / self.f(x)

    def columns(self, x: np.ndarray) -> np.ndarray:
        count = len(self.coefficients)
        return np.stack([x ** (self.first + self.step * k) for k in range(count)], axis=1)

    def wanted(self, x: np.ndarray) -> np.ndarray:
        return self.f(x) - self.a * x

    def best(self, x: np.ndarray) -> float:
        """The least largest error that any coefficients have, by Lawson's iteration."""
        columns, wanted = self.columns(x) / self.f(x)[:, None], self.wanted(x) / self.f(x)
        weights, least = np.ones(len(x)), math.inf
        for _ in range(200):
            root = np.sqrt(weights)
            c = np.linalg.lstsq(columns * root[:, None], wanted * root, rcond=None)[0]
            error = np.abs(columns @ c - wanted)
            least = min(least, error.max())
            weights *= error
            weights /= weights.sum()
        return least


def coefficients(letter: str) -> list[np.float32]:
    """In the order of their powers."""
    named = {k: v for k, v in vars(elementary).items() if re.fullmatch(letter + r"\d+", k)}
    return [named[k] for k in sorted(named, key=lambda k: int(k[1:]))]


R, S = math.log(2) / 2 * 1.0005, 3 - math.sqrt(8) + 1e-5  # a little more: n and m are rounded
POLYNOMIALS = {
    "exp": Polynomial(np.expm1, 1, 2, 1, -R, R, coefficients("E"), 31),
    "log": Polynomial(lambda s: 2 * np.arctanh(s), 2, 3, 2, 1e-3, S, coefficients("L"), 30),
    "tanh": Polynomial(np.tanh, 1, 3, 2, 1e-3, 0.5625, coefficients("T"), 29),
    "atan": Polynomial(np.arctan, 1, 3, 2, 1e-3, 1.0, coefficients("A"), 31),
}


@pytest.mark.parametrize("which", POLYNOMIALS)
def test_polynomials_are_as_good_as_stated_and_nearly_as_can_be(which: str) -> None:
    polynomial = POLYNOMIALS[which]
    middle, half = (polynomial.start + polynomial.end) / 2, (polynomial.end - polynomial.start) / 2
    x = middle + half * np.cos(np.pi * (np.arange(1000) + 0.5) / 1000)
    c = np.array(polynomial.coefficients, dtype=np.float64)
    error = np.abs(polynomial.error(c, x)).max()
    assert error <= 2.0**-polynomial.bits
    assert error <= 2 * polynomial.best(x)


# ------------------------------------------------------------------------------------- speed


@every_function
def test_the_loop_is_vectors_and_calls_nothing(name: str) -> None:
    program = trace(rule_of(name), {}, [1.0])
    formats = dict.fromkeys(program.operands, FORMATS[torch.float32])
    work = compile_stage(program, 0, formats).generated.names()["work"]
    text = str(optimized({"work": work}))
    assert re.search(r"fmul <\d+ x float>", text), "no vectors"
    packed = machine_code.pack(compile_functions({"work": work}), ["work"], "name")
    assert packed is not None
    assert b'"calls": []' in packed.split(b"\n", 2)[1]
    assert not re.search(r"\b(fma|contract|reassoc|fast)\b", text), "contraction was allowed"
