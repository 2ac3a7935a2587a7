"""explain of losses: what it says is what is computed, for every loss, and nothing is changed."""

from __future__ import annotations

import inspect
import math
import re
import threading
from typing import Any

import pytest
import torch

import thalweg
from tests.losses.examples import CASES, Case
from thalweg import losses
from thalweg.engine.observed import calls_of
from thalweg.losses.ctc import ctc_loss
from thalweg.losses.multilabel_margin import multilabel_margin_loss
from thalweg.rule import exp, log, logsumexp, maximum, minimum, pick, sigmoid, sign, sqrt, tanh

FUNCTIONS = sorted(
    name for name in losses.__all__ if not inspect.isclass(getattr(losses, name)) and name != "loss"
)
MODULES = sorted(name for name in losses.__all__ if name.endswith("Loss"))
BY_HAND = {ctc_loss: "_ctc.py", multilabel_margin_loss: "_multilabel_margin.py"}
NO_FORMULA = {*(f.__name__ for f in BY_HAND), "zero_one_loss"}
WORDS = {
    "exp": exp, "expm1": torch.expm1, "log": log, "log1p": torch.log1p, "sqrt": sqrt,
    "sign": sign, "abs": torch.abs, "maximum": maximum, "minimum": minimum, "sigmoid": sigmoid,
    "tanh": tanh,
    "where": lambda *choice: torch.where(*map(torch.as_tensor, choice)), "held": lambda x: x,
    "atan": torch.atan,
}  # fmt: skip
HUBER = """\
huber_loss: input float32 [3], target float32 [3]
  t1    = x - y
  t2    = abs(t1)
  t3    = delta < t2
  t4    = where(t3, 0, t1)
  t5    = 0.5 * t4
  value = where(t3, delta * (t2 - 0.5 * delta), t5 * t4)
  d_x   = where(t3, delta * sign(t1), t5 + t4 * 0.5)
  options    delta = 0.5
  operands   x is input, y is target (constant)
  memory     forward: 12 bytes per element: reads x, y; writes d_x
             without gradients: 8 bytes per element: reads x, y
  arithmetic float32; the sum in float64
  back end   cpu: one kernel for value and derivatives"""


def pair(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.ones(3, dtype=dtype, requires_grad=True), torch.zeros(3, dtype=dtype)


def equations(text: str) -> list[tuple[str, str]]:
    return re.findall(r"^  (\w+) += (.*)$", text, re.MULTILINE)


def test_huber() -> None:
    text = thalweg.explain(losses.huber_loss, *pair(), delta=0.5)
    assert text == HUBER
    assert repr(text) == text
    module = thalweg.explain(losses.HuberLoss(delta=0.5), *pair())
    assert module == HUBER.replace("huber_loss", "HuberLoss")


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_equations_give_value_and_gradients(case: Case) -> None:
    """Run as Python, on the operands that the call evaluated."""
    torch.manual_seed(0)
    arguments = {name: value.double().requires_grad_() for name, value in case.make((2, 3)).items()}
    (call,) = calls_of(lambda: case.ours(arguments, reduction="none"))
    text = thalweg.explain(
        getattr(losses, case.name), **arguments, **case.options, reduction="none"
    )
    names: dict[str, Any] = {**WORDS, **call.options, "pi": math.pi, "nan": math.nan}
    names |= {name: value.detach() for name, value in call.operands.items()}
    for name, right_side in equations(text):
        names[name] = eval(right_side, names.copy())
    leaves = {n: v for n, v in call.operands.items() if v.requires_grad}
    value = case.ours(arguments, reduction="none")
    if case.classes:  # which averages over the last dimension
        names["value"] = names["value"].mean(-1)
    torch.testing.assert_close(names["value"].expand(value.shape), value.detach())
    expected = torch.autograd.grad(value.sum(), list(leaves.values()))
    for name, gradient in zip(leaves, expected, strict=True):
        found = torch.as_tensor(names[f"d_{name}"], dtype=gradient.dtype).expand(gradient.shape)
        torch.testing.assert_close(found / (3 if case.classes else 1), gradient)


CLASS = {"target": torch.tensor([2])}
ROWS = {
    "cross_entropy": CLASS,
    "nll_loss": CLASS,
    "focal_loss": CLASS,
    "multi_margin_loss": CLASS,
    "dice_loss": {},
    "cosine_embedding_loss": {"target": torch.tensor([-1.0])},
    "triplet_margin_loss": {},
}


@pytest.mark.parametrize("name", ROWS)
def test_the_equations_of_a_row_give_value_and_gradients(name: str) -> None:
    """Run as Python, on one row."""
    torch.manual_seed(1)
    function = getattr(losses, name)
    needed = [n for n, p in inspect.signature(function).parameters.items() if p.default is p.empty]
    made = {n: torch.rand(1, 5, dtype=torch.float64, requires_grad=True) for n in needed}
    arguments = {**made, **ROWS[name]}
    found: list[torch.Tensor] = []
    (call,) = calls_of(lambda: found.append(function(**arguments)))
    (value,) = found
    row = {n: v.detach()[0] for n, v in call.operands.items()}
    names: dict[str, Any] = {**WORDS, **call.options, **row}
    names |= {"sum": torch.sum, "largest": torch.amax, "i": torch.arange(5), "elements": 5}
    for left_side, right_side in equations(thalweg.explain(function, **arguments)):
        names[left_side] = eval(right_side, names.copy())
    torch.testing.assert_close(names["value"], value.detach())
    for operand, leaf in call.operands.items():
        if leaf.requires_grad:
            (gradient,) = torch.autograd.grad(value, leaf, retain_graph=True)
            found = torch.as_tensor(names[f"d_{operand}"], dtype=torch.float64).expand(5)
            torch.testing.assert_close(found, gradient[0])


@pytest.mark.parametrize("name", [*FUNCTIONS, *MODULES])
def test_every_loss_explains_itself_without_tensors(name: str) -> None:
    subject = getattr(losses, name)
    if name in MODULES:
        subject = subject(4, 3) if name == "LinearCrossEntropyLoss" else subject()
    text = thalweg.explain(subject)
    assert text.startswith(f"{name}: ")
    assert "  back end   " in text
    if name in FUNCTIONS and name not in NO_FORMULA:
        found = dict(equations(text))
        assert "value" in found
        assert any(key.startswith("d_") for key in found)
        assert "  memory     " in text


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_source_on_request(name: str) -> None:
    subject = getattr(losses, name)
    assert "def work" not in thalweg.explain(subject)
    if name != "zero_one_loss":
        text = thalweg.explain(subject, source=True)
        assert "def work(arguments):" in text


@pytest.mark.parametrize("function", BY_HAND, ids=lambda function: function.__name__)
def test_a_kernel_written_by_hand(function: Any) -> None:
    text = thalweg.explain(function)
    assert (
        f"back end   cpu: a kernel written by hand, thalweg/engine/passes/{BY_HAND[function]}"
        in text
    )
    assert "def work(arguments):" in thalweg.explain(function, source=True)
    assert len(text.splitlines()) > 2, "the docstring's formula"


def test_passes_without_a_reduction() -> None:
    text = thalweg.explain(losses.mse_loss, *pair(torch.bfloat16), reduction="none")
    assert "memory     forward: 6 bytes per element: reads x, y; writes value\n" in text
    assert "           backward: 8 bytes per element: reads x, y, upstream; writes d_x\n" in text
    assert "arithmetic float32\n" in text
    assert text.endswith("cpu: a kernel for the value, one for the derivatives")
    source = thalweg.explain(losses.mse_loss, *pair(), reduction="none", source=True)
    assert source.count("def work(arguments):") == 2


def test_derivatives_are_by_what_requires_them_or_by_all() -> None:
    x, y = pair()
    assert {n for n, _ in equations(thalweg.explain(losses.mse_loss, x, y))} >= {"d_x"}
    assert "d_y" not in thalweg.explain(losses.mse_loss, x, y)
    assert "d_y" in thalweg.explain(losses.mse_loss, x.detach(), y)
    assert "d_held" not in thalweg.explain(losses.gaussian_nll_loss, x, y, torch.ones(3))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: torch.ones(3, device="meta"), "x is on meta, and kernels run on cpu"),
        (lambda: torch.imag(torch.ones(3, dtype=torch.complex64).conj()), "negates what lies in"),
        (lambda: Special(torch.ones(3)), "x is a Special"),
    ],
)
def test_why_there_is_no_kernel(make, reason: str) -> None:
    x = make()
    text = thalweg.explain(losses.mse_loss, x, torch.ones(3, device=x.device), reduction="none")
    assert "back end   eager, as tensor operations: " in text
    assert reason in text
    assert "bytes" not in text


class Special(torch.Tensor):
    """A tensor whose operations may be others."""


def test_a_loss_of_ones_own() -> None:
    @losses.loss(scale=1.0)
    def cauchy(x, y, h):
        return log(1 + ((x - y) / h.scale) ** 2)

    for text in (
        thalweg.explain(cauchy, scale=2.0),
        thalweg.explain(cauchy, *pair(), scale=2.0),
        thalweg.explain(cauchy, x=pair()[0], y=pair()[1], scale=2.0),
    ):
        assert text.startswith("cauchy: x float32 [")
        assert "options    scale = 2.0" in text
        assert "operands   x, y" in text


def test_a_loss_of_rows_of_ones_own() -> None:
    @losses.loss(y=losses.Kind.INDEX, weight=losses.Kind.COLUMN, scale=losses.Kind.ROW)
    def weighted(x, y, weight, scale, h):
        return (logsumexp(weight * x) - pick(x, y)) * scale

    text = thalweg.explain(weighted)
    assert "  d_scale  = held(largest(t1)) + log(sum(t2)) - x[y]\n" in text
    assert "  value    = d_scale * scale\n" in text
    assert "  operands   x, y (constant), weight, scale\n" in text
    assert "back end   eager, as tensor operations: the derivative by weight is a sum over" in text
    x = torch.ones(2, 3, requires_grad=True)
    text = thalweg.explain(weighted, x, torch.tensor([2, 0]), torch.ones(3), torch.ones(2))
    assert "memory     forward: 8 bytes per element and 12 per row: reads x, y, weight" in text
    assert re.search(r"back end   cpu: one kernel .*; it goes over a row \d times", text)


def test_a_loss_around_a_loss() -> None:
    def twice(x, y):
        return losses.mse_loss(x, y) + losses.mse_loss(y, x) + losses.l1_loss(x, y)

    text = thalweg.explain(twice, *pair())
    assert text.count("value = ") == 2
    assert "\nsquared_error\n" in text
    assert "\nabsolute_error\n" in text


def test_nothing_is_changed() -> None:
    x, y = pair()
    thalweg.explain(losses.huber_loss, x, y, source=True)
    assert x.grad is None
    assert x.tolist() == [1, 1, 1]
    thalweg.explain(losses.huber_loss, x.detach(), y)
    assert not y.requires_grad


def test_other_threads_are_not_observed() -> None:
    x, y = pair()

    def evaluate() -> None:
        thread = threading.Thread(target=losses.mse_loss, args=(x, y))
        thread.start()
        thread.join()
        losses.l1_loss(x, y)

    calls = calls_of(evaluate)
    losses.l1_loss(x, y)
    assert [call.formula.name for call in calls] == ["absolute_error"]


def test_mistakes() -> None:
    x, y = pair()
    with pytest.raises(TypeError, match="explain: mse_loss evaluates no formula of thalweg"):
        thalweg.explain(torch.nn.functional.mse_loss, x, y)
    with pytest.raises(TypeError, match="explain: got str"):
        thalweg.explain("mse_loss")
    with pytest.raises(TypeError, match=r"hinge_loss takes 3 arguments \(input, target, reduc.*6"):
        thalweg.explain(losses.hinge_loss, x, y, "mean", 1, 2, 3)
    with pytest.raises(ValueError, match="hinge_loss: reduction must be"):
        thalweg.explain(losses.hinge_loss, x, y, reduction="all")
