"""Signatures, warnings, errors and buffers of row losses: those of torch."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.losses.examples import NAN
from tests.losses.rows.examples import FIRST, REFERENCES, RowCase, dice_reference, focal_reference
from tests.losses.test_contract import assert_older_arguments, outcome, parameters
from thalweg import losses

FUNCTIONS = [*sorted(set(FIRST) - set(REFERENCES)), "linear_cross_entropy"]
MODULES = {
    "CrossEntropyLoss": {"weight": torch.ones(3), "label_smoothing": 0.1, "ignore_index": 3},
    "NLLLoss": {"weight": torch.ones(3), "ignore_index": 3},
    "MultiMarginLoss": {"weight": torch.ones(3), "p": 2, "margin": 0.5},
    "CosineEmbeddingLoss": {"margin": 0.5},
    "TripletMarginLoss": {"margin": 0.5, "p": 1, "swap": True, "eps": 1e-3},
    "TripletMarginWithDistanceLoss": {"margin": 0.5, "swap": True},
}
EACH_LOSS = pytest.mark.parametrize("case", FIRST.values(), ids=str)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_signatures_of_functions(name: str) -> None:
    assert parameters(getattr(losses, name)) == parameters(getattr(F, name))


@pytest.mark.parametrize("name", [*MODULES, "LinearCrossEntropyLoss"])
def test_signatures_of_modules(name: str) -> None:
    ours, torchs = getattr(losses, name), getattr(torch.nn, name)
    assert parameters(ours) == parameters(torchs)
    assert parameters(ours.forward) == parameters(torchs.forward)


@pytest.mark.parametrize("name", MODULES)
def test_attributes_names_and_buffers_of_modules(name: str) -> None:
    for given in ({}, MODULES[name]):
        ours = getattr(losses, name)(**given, reduction="sum")
        torchs = getattr(torch.nn, name)(**given, reduction="sum")
        if name != "TripletMarginWithDistanceLoss":  # torch's holds a module, ours None
            assert repr(ours) == repr(torchs)
        assert ours._buffers.keys() == torchs._buffers.keys()
        torchs.load_state_dict(ours.state_dict())
        ours.load_state_dict(torchs.state_dict())
        public = {n: v for n, v in vars(torchs).items() if not n.startswith("_")}
        found = {n: v for n, v in vars(ours).items() if not n.startswith("_")}
        found.pop("distance_function", None)  # a module in torch's
        assert found == public


# ------------------------------------------------------------------------------ reductions


@EACH_LOSS
@pytest.mark.parametrize("reduction", ["median", None, 3, "Mean", []], ids=repr)
def test_unknown_reduction(case: RowCase, reduction: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{case.name}: reduction must be one of 'none', 'mean'"):
        case.ours(case.make((3, 2)), reduction=reduction)


@pytest.mark.parametrize(
    "name",
    [n for n in FUNCTIONS if "size_average" in {p[0] for p in parameters(getattr(F, n))}],
)
@pytest.mark.parametrize(
    ("size_average", "reduce"), list(itertools.product([None, False, True], repeat=2))[1:]
)
def test_older_arguments(name: str, size_average: bool | None, reduce: bool | None) -> None:
    assert_older_arguments(name, FIRST[name].make((3, 2)), size_average, reduce)


@EACH_LOSS
def test_older_name_of_mean(case: RowCase) -> None:
    operands = case.make((3, 2))
    with pytest.warns(UserWarning, match="elementwise_mean") as caught:
        found = getattr(losses, case.name)(**operands, **case.options, reduction="elementwise_mean")
    assert caught[0].filename == __file__
    assert torch.equal(found, case.ours(operands, reduction="mean"))


# ------------------------------------------------------------------------------ bad arguments

X, Y = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 1])
P = X.softmax(1)
A, B, C = torch.randn(3, 4, 3, generator=torch.Generator().manual_seed(1))
S = torch.tensor([1, -1, 1, -1])
Z = torch.zeros
LONG = torch.int64
Call = Callable[[Any], Any]

OF_CLASSES: dict[str, Callable[[Any], Any]] = {
    "number for input": lambda f: f(torch.tensor(1.0), torch.tensor(0)),
    "number for input, targets": lambda f: f(torch.tensor(1.0), torch.tensor([0])),
    "vector, targets of its size": lambda f: f(Z(3), torch.tensor([1, 1, 1])),
    "vector, two targets": lambda f: f(Z(3), torch.tensor([1, 1])),
    "vector, matrix of targets": lambda f: f(Z(3), Z(2, 2, dtype=LONG)),
    "fewer targets": lambda f: f(X, Y[:3]),
    "one target without a dimension": lambda f: f(X, Y[0]),
    "column of targets": lambda f: f(X, Y[:, None]),
    "target of the input's size": lambda f: f(X, Z(4, 3, dtype=LONG)),
    "floating target": lambda f: f(X, Y.float()),
    "int32": lambda f: f(X, Y.int()),
    "int16": lambda f: f(X, Y.short()),
    "bool": lambda f: f(X, Y.bool()),
    "too large": lambda f: f(X, Y + 1),
    "negative": lambda f: f(X, Y - 1),
    "too large, none": lambda f: f(X, Y + 1, reduction="none"),
    "too large, sum": lambda f: f(X, Y + 1, reduction="sum"),
    "too large by far": lambda f: f(X, Y + 2**62),
    "too large with a gradient": lambda f: f(X.clone().requires_grad_(), Y + 1),
    "too large, float64": lambda f: f(X.double(), Y + 1),
    "too large, weighted": lambda f: f(X, Y + 1, weight=torch.ones(3)),
    "too large behind": lambda f: f(Z(2, 3, 5), torch.full((2, 5), 3)),
    "too large behind, none": lambda f: f(Z(2, 3, 5), torch.full((2, 5), 3), reduction="none"),
    "negative behind": lambda f: f(Z(2, 3, 5, 4), torch.full((2, 5, 4), -1)),
    "vector, too large": lambda f: f(Z(3), torch.tensor(3)),
    "weight of another size": lambda f: f(X, Y, weight=Z(2)),
    "matrix of weights": lambda f: f(X, Y, weight=Z(1, 3)),
    "number as weight": lambda f: f(X, Y, weight=torch.tensor(1.0)),
    "float64 weight": lambda f: f(X, Y, weight=torch.ones(3).double()),
    "integer weight": lambda f: f(X, Y, weight=torch.ones(3, dtype=LONG)),
    "float32 weight, float16": lambda f: f(X.half(), Y, weight=torch.ones(3)),
    "weight of another size behind": lambda f: f(Z(2, 3, 5), Z(2, 5, dtype=LONG), weight=Z(2)),
    "list of weights": lambda f: f(X, Y, weight=[1.0, 1.0, 1.0]),
    "integer input": lambda f: f(X.long(), Y),
    "complex input": lambda f: f(X.cfloat(), Y),
    "bool input": lambda f: f(X.bool(), Y),
    "other pixels": lambda f: f(Z(2, 3, 5), Z(2, 4, dtype=LONG)),
    "no pixels": lambda f: f(Z(2, 3, 5), Z(2, dtype=LONG)),
    "other pixels in order": lambda f: f(Z(2, 3, 5, 4), Z(2, 4, 5, dtype=LONG)),
    "fewer dimensions": lambda f: f(Z(2, 3, 5, 4), Z(2, 5, dtype=LONG)),
    "other batch behind": lambda f: f(Z(2, 3, 5), Z(3, 5, dtype=LONG)),
    "more dimensions": lambda f: f(Z(2, 3, 5, 4, 2), Z(2, 5, 4, 3, dtype=LONG)),
    "no classes": lambda f: f(Z(4, 0), Z(4, dtype=LONG)),
    "no classes behind": lambda f: f(Z(2, 0, 5), Z(2, 5, dtype=LONG)),
    "list": lambda f: f([1.0], Y),
    "list of targets": lambda f: f(X, [0, 1, 2, 1]),
    "None for targets": lambda f: f(X, None),
    "fraction to ignore": lambda f: f(X, Y, ignore_index=1.5),
    "None to ignore": lambda f: f(X, Y, ignore_index=None),
    "word to ignore": lambda f: f(X, Y, ignore_index="1"),
    "more than 64 bits to ignore": lambda f: f(X, Y, ignore_index=2**63),
}
SMOOTHED: dict[str, Callable[[Any], Any]] = {
    "smoothing of more than all": lambda f: f(X, Y, label_smoothing=1.5),
    "infinite smoothing": lambda f: f(X, Y, label_smoothing=float("inf")),
    "word for smoothing": lambda f: f(X, Y, label_smoothing="a"),
    "None for smoothing": lambda f: f(X, Y, label_smoothing=None),
    "too large, smoothed": lambda f: f(X, Y + 1, label_smoothing=0.1),
    "negative, smoothed": lambda f: f(X, Y - 1, label_smoothing=0.1),
    "probabilities, class to ignore": lambda f: f(X, P, ignore_index=1),
    "probabilities, fraction to ignore": lambda f: f(X, P, ignore_index=1.5),
    "probabilities, other weights": lambda f: f(X, P, weight=Z(2)),
    "probabilities, list of weights": lambda f: f(X, P, weight=[1.0, 2.0, 3.0]),
    "one row of probabilities": lambda f: f(X, P[:1]),
    "probabilities, integer input": lambda f: f(X.long(), P),
    "classes [N, 1] for scores [N, 1]": lambda f: f(Z(2, 1), Z(2, 1, dtype=LONG)),
}
HINGE: dict[str, Callable[[Any], Any]] = {
    "p of 3": lambda f: f(X, Y, p=3),
    "p of 1.5": lambda f: f(X, Y, p=1.5),
    "word for p": lambda f: f(X, Y, p="a"),
    "None for p": lambda f: f(X, Y, p=None),
    "word for margin": lambda f: f(X, Y, margin="a"),
    "too large": lambda f: f(X, Y + 1),
    "negative": lambda f: f(X, Y - 1),
    "too large, none": lambda f: f(X, Y + 1, reduction="none"),
    "too large, float64": lambda f: f(X.double(), Y + 1),
    "fewer targets": lambda f: f(X, Y[:3]),
    "column of targets": lambda f: f(X, Y[:, None]),
    "three dimensions": lambda f: f(Z(2, 3, 4), Z(2, 4, dtype=LONG)),
    "no classes": lambda f: f(Z(2, 0), Z(2, dtype=LONG)),
    "floating target": lambda f: f(X, Y.float()),
    "int32": lambda f: f(X, Y.int()),
    "uint8": lambda f: f(X, Y.byte()),
    "weight of another size": lambda f: f(X, Y, weight=Z(2)),
    "matrix of weights": lambda f: f(X, Y, weight=Z(1, 3)),
    "number as weight": lambda f: f(X, Y, weight=torch.tensor(1.0)),
    "float64 weight": lambda f: f(X, Y, weight=Z(3).double()),
    "integer input": lambda f: f(X.long(), Y),
    "complex input": lambda f: f(X.cfloat(), Y),
    "list": lambda f: f([1.0], Y),
    "list of targets": lambda f: f(X, [0, 1, 2, 1]),
}
COSINE: dict[str, Callable[[Any], Any]] = {
    "[1] for a vector": lambda f: f(A[0], B[0], torch.tensor([1])),
    "one target for all": lambda f: f(A, B, torch.tensor(1)),
    "fewer targets": lambda f: f(A, B, S[:3]),
    "column of targets": lambda f: f(A, B, S[:, None]),
    "other vectors": lambda f: f(A, B[:, :2], S),
    "three dimensions": lambda f: f(Z(2, 3, 4), Z(2, 3, 4), Z(2)),
    "numbers": lambda f: f(torch.tensor(1.0), torch.tensor(1.0), torch.tensor(1)),
    "matrix and vector": lambda f: f(A, B[0], S),
    "word for margin": lambda f: f(A, B, S, margin="a"),
    "None for margin": lambda f: f(A, B, S, margin=None),
    "complex": lambda f: f(A.cfloat(), B.cfloat(), S),
    "list": lambda f: f(A.tolist(), B, S),
    "list of targets": lambda f: f(A, B, S.tolist()),
}
TRIPLET: dict[str, Callable[[Any], Any]] = {
    "vector for positive": lambda f: f(A, B[0], C),
    "other vectors": lambda f: f(A, B[:, :2], C),
    "margin of 0": lambda f: f(A, B, C, margin=0),
    "margin below 0": lambda f: f(A, B, C, margin=-1),
    "word for margin": lambda f: f(A, B, C, margin="a"),
    "None for margin": lambda f: f(A, B, C, margin=None),
    "list": lambda f: f([1.0], B, C),
    "list for negative": lambda f: f(A, B, C.tolist()),
}
NORMS: dict[str, Callable[[Any], Any]] = {
    "word for p": lambda f: f(A, B, C, p="a"),
    "None for p": lambda f: f(A, B, C, p=None),
    "word for eps": lambda f: f(A, B, C, eps="a"),
    "largest of nothing": lambda f: f(Z(2, 0), Z(2, 0), Z(2, 0), p=float("inf")),
    "smallest of nothing": lambda f: f(Z(2, 0), Z(2, 0), Z(2, 0), p=-float("inf")),
    "inverse of nothing": lambda f: f(Z(2, 0), Z(2, 0), Z(2, 0), p=-1),
}
DISTANCE: dict[str, Callable[[Any], Any]] = {
    "number for a distance": lambda f: f(A, B, C, distance_function=3),
    "distance that gives a number": lambda f: f(A, B, C, distance_function=lambda u, v: 1.0),
}
BAD: dict[str, dict[str, Callable[[Any], Any]]] = {
    "cross_entropy": OF_CLASSES | SMOOTHED,
    "nll_loss": OF_CLASSES,
    "multi_margin_loss": HINGE,
    "cosine_embedding_loss": COSINE,
    "triplet_margin_loss": TRIPLET | NORMS,
    "triplet_margin_with_distance_loss": TRIPLET | DISTANCE,
}
# Messages of torch that are no checks: an error from within, of no type in particular.
KNOWN = {
    # It reshapes, which sizes of 0 do not allow; with one row after the other it is this.
    ("cross_entropy", "no classes behind"): IndexError,
    ("nll_loss", "no classes behind"): IndexError,
    # list.dim() and margins compared with a number; ours are checked as other arguments are.
    ("triplet_margin_with_distance_loss", "list"): TypeError,
    ("triplet_margin_with_distance_loss", "list for negative"): TypeError,
}


@pytest.mark.parametrize(("name", "what"), [(n, w) for n, calls in BAD.items() for w in calls])
def test_bad_arguments_as_torch(name: str, what: str) -> None:
    call = BAD[name][what]
    torchs = outcome(lambda: call(getattr(F, name)))
    assert torchs is not None, "torch takes it"
    owner = "triplet_margin_loss" if name.startswith("triplet") else name
    with pytest.raises(KNOWN.get((name, what), torchs), match=rf"^({name}|{owner}): "):
        call(getattr(losses, name))


@pytest.mark.parametrize("what", [w for w in OF_CLASSES if w != "target of the input's size"])
def test_focal_loss_refuses_what_the_likelihood_does(what: str) -> None:
    wanted = outcome(lambda: OF_CLASSES[what](losses.nll_loss))
    assert wanted is not None
    with pytest.raises(wanted, match=r"^focal_loss: "):
        OF_CLASSES[what](losses.focal_loss)


# What torch takes and ours refuses, or the other way round, and why.
OURS_ONLY: list[tuple[str, Callable[[Any], Any], type[Exception], str]] = [
    # It makes of it what has no meaning.
    ("cross_entropy", lambda f: f(X, Y, label_smoothing=-0.1), RuntimeError, "label_smoothing"),
    ("cross_entropy", lambda f: f(X, Y, label_smoothing=NAN), RuntimeError, "label_smoothing"),
    ("multi_margin_loss", lambda f: f(X, Y, margin=NAN), ValueError, "margin must be finite"),
    ("cosine_embedding_loss", lambda f: f(A, B, S, margin=NAN), ValueError, "margin must be"),
    ("triplet_margin_loss", lambda f: f(A, B, C, margin=NAN), ValueError, "margin must be"),
    ("triplet_margin_loss", lambda f: f(A, B, C, p=NAN), ValueError, "p must be finite"),
    # Its distances are real, but kernels have no complex numbers.
    (
        "triplet_margin_loss",
        lambda f: f(A.cfloat(), B.cfloat(), C.cfloat()),
        NotImplementedError,
        "anchor must hold real numbers",
    ),
    (
        "cosine_embedding_loss",
        lambda f: f(A, B, S.cfloat()),
        NotImplementedError,
        "target must hold real numbers",
    ),
    ("focal_loss", lambda f: f(X, Y, gamma=-1), ValueError, "gamma must be a finite number >= 0"),
    ("focal_loss", lambda f: f(X, Y, gamma="a"), TypeError, "gamma must be a number"),
    ("focal_loss", lambda f: f(X, Y, label_smoothing=2), RuntimeError, "label_smoothing must be"),
    ("focal_loss", lambda f: f(X, P), RuntimeError, "target must have"),
    ("dice_loss", lambda f: f(P, P[:, :2]), ValueError, "target must have the input's size"),
    ("dice_loss", lambda f: f(P, P, smooth=-1), ValueError, "smooth must be a finite number >= 0"),
    ("dice_loss", lambda f: f(P, P, smooth="a"), TypeError, "smooth must be a number"),
    ("dice_loss", lambda f: f(P, P, start_dim=2), IndexError, "start_dim must be a dimension"),
    ("dice_loss", lambda f: f(P, P, start_dim=-3), IndexError, "start_dim must be a dimension"),
    ("dice_loss", lambda f: f(P, P, start_dim=1.0), TypeError, "start_dim must be an integer"),
    ("dice_loss", lambda f: f(P, [1.0]), TypeError, "target must be a Tensor, got list"),
    ("dice_loss", lambda f: f(P.cfloat(), P), NotImplementedError, "input must hold real numbers"),
]


@pytest.mark.parametrize(("name", "call", "error", "message"), OURS_ONLY)
def test_bad_arguments(
    name: str, call: Callable[[Any], Any], error: type[Exception], message: str
) -> None:
    if name not in REFERENCES:
        assert outcome(lambda: call(getattr(F, name))) is None
    with pytest.raises(error, match=f"^{name}: {message}"):
        call(getattr(losses, name))


OURS_TAKE: dict[str, Callable[[Any], torch.Tensor]] = {
    "cross_entropy": lambda f: f(X, Y, weight=torch.ones(3, requires_grad=True)),
    "nll_loss": lambda f: f(X, Y, weight=torch.ones(3, requires_grad=True)),
    "multi_margin_loss": lambda f: f(X, Y, weight=torch.ones(3, requires_grad=True)),
}


@pytest.mark.parametrize("name", OURS_TAKE)
def test_weights_may_require_a_gradient(name: str) -> None:
    call = OURS_TAKE[name]
    assert outcome(lambda: call(getattr(F, name))) is RuntimeError
    call(getattr(losses, name)).backward()


def test_messages_name_the_class_and_the_remedy() -> None:
    with pytest.raises(IndexError, match=r"Target 7 is out of bounds: classes must be in \[0, 2\]"):
        losses.cross_entropy(X, torch.tensor([0, 7, 1, 1]))
    with pytest.raises(IndexError, match=r"Target -1 .*, or ignore_index, 5$"):
        losses.nll_loss(X, torch.tensor([0, 5, -1, 1]), ignore_index=5)
    with pytest.raises(RuntimeError, match=r"write target.long\(\)"):
        losses.cross_entropy(X, Y.int())


@pytest.mark.slow
def test_rows_without_classes_read_nothing() -> None:
    """In a process of its own: a kernel that reads what is not there ends it."""
    script = (
        "import itertools, torch; from thalweg import losses\n"
        "names = 'cross_entropy', 'nll_loss', 'focal_loss'\n"
        "sizes = [(4, 0), (2, 0, 5), (2, 0, 5, 3)]\n"
        "for name, n, how in itertools.product(names, sizes, ['none', 'mean', 'sum']):\n"
        "    x, call = torch.zeros(n, requires_grad=True), getattr(losses, name)\n"
        "    y = torch.full((n[0], *n[2:]), -100)\n"
        "    call(x, y, reduction=how).sum().backward()\n"
        "    try:\n"
        "        call(x, y * 0, reduction=how)\n"
        "    except IndexError: continue\n"
        "    raise SystemExit('no IndexError')\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", script], env=environment).returncode == 0


def test_empty_ones() -> None:
    for name in ("cross_entropy", "nll_loss", "focal_loss"):
        call = getattr(losses, name)
        assert call(Z(0, 3), Z(0, dtype=LONG)).isnan()
        assert call(Z(0, 3), Z(0, dtype=LONG), reduction="sum").item() == 0
        assert call(Z(2, 3, 0), Z(2, 0, dtype=LONG), reduction="none").shape == (2, 0)
    assert losses.multi_margin_loss(Z(0, 3), Z(0, dtype=LONG)).isnan()  # torch's: its memory's
    for m in (losses, F):
        assert m.cross_entropy(Z(2, 0), Z(2, 0)).isnan()
        assert m.cross_entropy(Z(2, 0), Z(2, 0), reduction="sum").item() == 0
        assert m.triplet_margin_loss(Z(2, 0), Z(2, 0), Z(2, 0), margin=3).item() == 3
        assert m.cosine_embedding_loss(Z(2, 0), Z(2, 0), torch.ones(2)).item() == 1


def test_numbers_where_torch_takes_them() -> None:
    x = torch.tensor(1.5, requires_grad=True)
    for m in (losses, F):
        value = m.multi_margin_loss(x, torch.tensor(0), p=2)
        assert value.item() == 0
        assert torch.autograd.grad(value, x)[0].item() == 0
        each = m.multi_margin_loss(Z(3), torch.tensor([1]), reduction="none")
        assert each.shape == (1,)
        far = m.triplet_margin_loss(torch.tensor(1.0), torch.tensor(2.0), torch.tensor(1.0))
        assert far.item() == pytest.approx(2, rel=1e-5)
        assert m.cross_entropy(Z(3), torch.tensor([1]), reduction="none").shape == ()


def test_own_references_agree_with_torch() -> None:
    """The references of what torch has not, against torch's where they meet."""
    x, y = torch.randn(5, 4).double(), torch.randint(0, 4, (5,))
    torch.testing.assert_close(focal_reference(x, y, gamma=0), F.cross_entropy(x, y))
    p = x.softmax(1)
    both = dice_reference(p, p, smooth=0.0, reduction="none")
    torch.testing.assert_close(both, 1 - (p * p).sum(1))
