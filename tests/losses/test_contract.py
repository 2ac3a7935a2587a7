"""Signatures, warnings, errors, buffers and names: those of torch."""

from __future__ import annotations

import ast
import inspect
import itertools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.losses.examples import CASES, MODULES, REFERENCES, Case
from tests.losses.rows.examples import FIRST as ROWS
from thalweg import losses

LOSSES = [n for n in losses.__all__ if n[0].islower() and n != "loss"]  # which makes them
ELEMENTWISE = {case.name for case in CASES}
FUNCTIONS = [n for n in LOSSES if n in ELEMENTWISE and n not in REFERENCES]
OWN_MODULES = ["HingeLoss", "BinaryFocalLoss"]
TORCHS_MODULES = [n for n in MODULES if n not in OWN_MODULES]
# Losses that are no elementwise formula have tests of their own.
OTHERS = {"ctc_loss", "linear_cross_entropy", "multilabel_margin_loss", "zero_one_loss"}
BOXES = {"iou_loss", "giou_loss", "diou_loss", "ciou_loss"}
FIRST = {case.name: case for case in reversed(CASES)}  # each with its default options
EACH_LOSS = pytest.mark.parametrize("case", FIRST.values(), ids=str)
LEGACY = [n for n in FUNCTIONS if "size_average" in inspect.signature(getattr(F, n)).parameters]


# In which torch has no label_smoothing.
SMOOTHED = losses.binary_cross_entropy_with_logits, losses.BCEWithLogitsLoss


def parameters(function: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    found = inspect.signature(function).parameters.values()
    own = "label_smoothing" if function in SMOOTHED else None
    return [(p.name, p.kind, p.default) for p in found if p.name != own]


def test_each_function_has_an_example() -> None:
    assert set(FIRST) | set(ROWS) | OTHERS | BOXES == set(LOSSES)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_signatures_of_functions(name: str) -> None:
    assert parameters(getattr(losses, name)) == parameters(getattr(F, name))


@pytest.mark.parametrize("name", TORCHS_MODULES)
def test_signatures_of_modules(name: str) -> None:
    ours, torchs = getattr(losses, name), getattr(torch.nn, name)
    assert parameters(ours) == parameters(torchs)
    assert parameters(ours.forward) == parameters(torchs.forward)


@pytest.mark.parametrize("name", TORCHS_MODULES)
def test_attributes_names_and_buffers_of_modules(name: str) -> None:
    weights = {
        n: torch.rand(3)
        for n in inspect.signature(getattr(torch.nn, name)).parameters
        if n in ("weight", "pos_weight")
    }
    for given in ({}, weights):
        ours = getattr(losses, name)(**given, reduction="sum")
        torchs = getattr(torch.nn, name)(**given, reduction="sum")
        assert isinstance(ours, getattr(torch.nn, name))
        assert type(ours).forward is not type(torchs).forward
        assert type(ours).__init__.__module__.startswith("thalweg")
        assert repr(ours) == repr(torchs)
        assert list(ours.state_dict()) == list(torchs.state_dict()) == list(given)
        assert ours._buffers.keys() == torchs._buffers.keys()
        torchs.load_state_dict(ours.state_dict())
        ours.load_state_dict(torchs.state_dict())
        public = {n: v for n, v in vars(torchs).items() if not n.startswith("_")}
        own = {n: v for n, v in vars(ours).items() if not n.startswith("_")}
        if type(ours) in SMOOTHED:
            assert own.pop("label_smoothing") == 0
        assert own == public


def test_weights_follow_their_module() -> None:
    loss = losses.BCEWithLogitsLoss(torch.ones(2), pos_weight=torch.ones(2)).double()
    assert loss.weight is not None
    assert loss.pos_weight is not None
    assert loss.weight.dtype is loss.pos_weight.dtype is torch.float64


TRANSFORMS = "_are_functorch_transforms_active"  # a question, not an implementation


def test_nothing_of_torchs_losses_is_called() -> None:
    names = {n for n in dir(F) if n.endswith(("_loss", "entropy", "kl_div", "logits"))}
    assert {"mse_loss", "binary_cross_entropy", "kl_div"} <= names
    for path in Path(losses.__file__).parent.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                root = ast.unparse(node).split(".")
                called = root[0] in ("torch", "F") and node.attr in names
                inner = root[1:2] == ["_C"] and root[2:] not in ([], [TRANSFORMS])
                assert not called, ast.unparse(node)
                assert not inner, ast.unparse(node)
                assert node.attr != "functional", ast.unparse(node)
            elif isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] != "torch", ast.unparse(node)


# ------------------------------------------------------------------------------ reductions


@EACH_LOSS
@pytest.mark.parametrize("reduction", ["median", "", None, 3, "Mean", []], ids=repr)
def test_unknown_reduction(case: Case, reduction: Any) -> None:
    with pytest.raises(ValueError, match=f"^{case.name}: reduction must be one of 'none', 'mean'"):
        case.ours(case.make((3, 2)), reduction=reduction)


@EACH_LOSS
def test_older_name_of_mean(case: Case) -> None:
    operands = case.make((3, 2))
    with pytest.warns(UserWarning, match="elementwise_mean") as caught:
        found = getattr(losses, case.name)(**operands, reduction="elementwise_mean")
    assert caught[0].filename == __file__
    assert torch.equal(found, case.ours(operands, reduction="mean"))


def assert_older_arguments(
    name: str, operands: dict[str, torch.Tensor], size_average: bool | None, reduce: bool | None
) -> None:
    """Both warn, at the line of the call, and mean the same."""
    found = []
    for module in (losses, F):
        with pytest.warns(UserWarning, match="size_average and reduce") as caught:
            found.append(
                getattr(module, name)(
                    **operands, size_average=size_average, reduce=reduce, reduction="sum"
                )
            )
        assert len(caught) == 1
        assert module is F or caught[0].filename == __file__
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("name", LEGACY)
@pytest.mark.parametrize(
    ("size_average", "reduce"), list(itertools.product([None, False, True], repeat=2))[1:]
)
def test_older_arguments(name: str, size_average: bool | None, reduce: bool | None) -> None:
    assert_older_arguments(name, FIRST[name].make((3, 2)), size_average, reduce)


@pytest.mark.parametrize(
    "name", [n for n in TORCHS_MODULES if n not in ("HuberLoss", "GaussianNLLLoss")]
)
def test_older_arguments_of_modules(name: str) -> None:
    with pytest.warns(UserWarning, match=f"{name}: size_average and reduce.*'sum'"):
        ours = getattr(losses, name)(size_average=False)
    assert ours.reduction == "sum"
    with pytest.warns(UserWarning, match="'none'"):
        assert getattr(losses, name)(reduce=False).reduction == "none"


def test_warning_of_the_mean_of_a_divergence() -> None:
    x, y = torch.rand(3, 2).log(), torch.rand(3, 2)
    with pytest.warns(UserWarning, match="batchmean") as caught:
        losses.kl_div(x, y)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        losses.kl_div(x, y, reduction="batchmean")


# ------------------------------------------------------------------------------ shapes


@pytest.mark.parametrize("name", ["l1_loss", "mse_loss", "smooth_l1_loss", "huber_loss"])
def test_warning_of_sizes(name: str) -> None:
    with pytest.warns(UserWarning, match=r"Using a target size \(torch.Size\(\[3\]\)\)") as caught:
        getattr(losses, name)(torch.zeros(3, 1), torch.zeros(3))
    assert caught[0].filename == __file__


def outcome(call: Callable[[], Any]) -> type[Exception] | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            call()
        except Exception as error:
            return type(error)
    return None


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("sizes", [[(4,), (3,)], [(4, 2), (3, 2)], [(2, 3), (3, 2)]], ids=str)
def test_sizes_that_do_not_fit(name: str, sizes: list[tuple[int, ...]]) -> None:
    case = FIRST[name]
    operands = case.make(sizes[0])
    operands["target"] = case.operands["target"](sizes[1])
    wanted = outcome(lambda: case.torchs(operands))
    assert wanted in (ValueError, RuntimeError)
    assert outcome(lambda: case.ours(operands)) is wanted


BAD_WEIGHTS = [
    ("l1_loss", {"weight": torch.ones(1)}, "weight must have the input's size"),
    ("mse_loss", {"weight": torch.ones(4, 1)}, "weight must have the input's size"),
    ("huber_loss", {"weight": torch.ones(3)}, "weight must have the input's size"),
    ("binary_cross_entropy", {"weight": torch.ones(2, 4, 2)}, "weight must broadcast"),
    ("binary_cross_entropy", {"weight": torch.ones(3)}, "sizes must broadcast"),
    ("binary_cross_entropy_with_logits", {"weight": torch.ones(3)}, "sizes must broadcast"),
    ("binary_cross_entropy_with_logits", {"pos_weight": torch.ones(3)}, "sizes must broadcast"),
    ("multilabel_soft_margin_loss", {"weight": torch.ones(3)}, "sizes must broadcast"),
    ("gaussian_nll_loss", {"var": torch.ones(3)}, "var must have the input's size"),
    ("gaussian_nll_loss", {"var": torch.ones(4, 3)}, "var must have the input's size"),
    ("gaussian_nll_loss", {"var": -torch.ones(4, 2)}, "var must be >= 0, got -1"),
    ("gaussian_nll_loss", {"var": -1.0}, "var must be a finite number >= 0, got -1"),
]
BAD_OPTIONS = [
    ("smooth_l1_loss", {"beta": -1}, "beta must be a finite number >= 0, got -1"),
    ("smooth_l1_loss", {"beta": float("nan")}, "beta must be"),
    ("smooth_l1_loss", {"beta": "a"}, "beta must be a number, got str 'a'"),
    ("huber_loss", {"delta": 0}, "delta must be a finite number > 0, got 0"),
    ("huber_loss", {"delta": -2.0}, "delta must be"),
    ("huber_loss", {"delta": "a"}, "delta must be a number"),
    ("hinge_embedding_loss", {"margin": "a"}, "margin must be a number"),
    ("margin_ranking_loss", {"margin": None}, "margin must be a number"),
]
OURS_ONLY = [
    ("gaussian_nll_loss", {"eps": -1.0}, ValueError, "eps must be"),
    ("poisson_nll_loss", {"eps": -1.0}, ValueError, "eps must be"),
    ("poisson_nll_loss", {"eps": "a"}, TypeError, "eps must be a number"),
    ("hinge_embedding_loss", {"margin": float("inf")}, ValueError, "margin must be finite"),
    ("sigmoid_focal_loss", {"alpha": 1.5}, ValueError, r"alpha must be in \[0, 1\]"),
    ("sigmoid_focal_loss", {"gamma": -1}, ValueError, "gamma must be"),
    ("mse_loss", {"weight": 2.0}, TypeError, "weight must be a Tensor"),
]


@pytest.mark.parametrize(("name", "bad", "message"), [*BAD_WEIGHTS, *BAD_OPTIONS])
def test_bad_arguments_as_torch(name: str, bad: dict[str, Any], message: str) -> None:
    operands = {**FIRST[name].make((4, 2)), **bad}
    torchs = outcome(lambda: FIRST[name].torchs(operands))
    assert torchs is not None
    with pytest.raises(torchs, match=message):
        FIRST[name].ours(operands)


@pytest.mark.parametrize(("name", "bad", "error", "message"), OURS_ONLY)
def test_bad_arguments(
    name: str, bad: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^{name}: {message}"):
        FIRST[name].ours({**FIRST[name].make((4, 2)), **bad})


def test_type_of_delta_is_checked_at_once() -> None:
    with pytest.raises(TypeError, match="delta must be a number, got 'a'"):
        losses.HuberLoss(delta="a")  # type: ignore[arg-type]


@EACH_LOSS
def test_arguments_that_are_no_tensors(case: Case) -> None:
    for name in case.operands.keys() - {"var"}:
        with pytest.raises(TypeError, match=f"^{case.name}: {name} must be a Tensor, got list"):
            case.ours({**case.make((2, 2)), name: [1.0]})


@pytest.mark.parametrize("case", [c for c in FIRST.values() if c.name != "l1_loss"], ids=str)
def test_complex_numbers(case: Case) -> None:
    operands = {n: t.to(torch.cfloat) for n, t in case.make((2, 2)).items()}
    with pytest.raises(NotImplementedError, match=f"^{case.name}: .* must hold real numbers"):
        case.ours(operands)


@pytest.mark.parametrize("bad", [2.0, -0.1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["input", "target"])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_probabilities_out_of_range(name: str, bad: float, reduction: str) -> None:
    operands = {"input": torch.rand(5), "target": torch.rand(5)}
    operands[name][3] = bad
    with pytest.raises(RuntimeError, match="should be between 0 and 1"):
        F.binary_cross_entropy(**operands, reduction=reduction)
    with pytest.raises(RuntimeError, match=f"all elements of {name} must lie between 0 and 1, got"):
        losses.binary_cross_entropy(**operands, reduction=reduction)


def test_a_weight_of_nan_is_no_probability() -> None:
    x = torch.rand(5)
    assert losses.binary_cross_entropy(x, x, torch.full((5,), float("nan"))).isnan()


def test_classes_need_a_dimension() -> None:
    with pytest.raises(IndexError, match="input must have a dimension of classes"):
        losses.multilabel_soft_margin_loss(torch.ones(()), torch.ones(()))


def test_ranking_needs_as_many_dimensions() -> None:
    with pytest.raises(RuntimeError, match="as many dimensions"):
        losses.margin_ranking_loss(torch.ones(3), torch.ones(3), torch.ones(1, 3))


@pytest.mark.parametrize("name", ["binary_cross_entropy_with_logits", "sigmoid_focal_loss"])
def test_smoothed_labels_are_targets_between(name: str) -> None:
    x, y = torch.randn(9), torch.randint(0, 2, (9,)).float()
    call = getattr(losses, name)
    torch.testing.assert_close(call(x, y, label_smoothing=0.2), call(x, 0.8 * y + 0.1))
    with pytest.raises(RuntimeError, match=f"^{name}: label_smoothing must be"):
        call(x, y, label_smoothing=1.5)
