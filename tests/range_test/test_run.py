"""What the range test computes, what it suggests, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tests.range_test.subjects import batches
from thalweg import optim
from thalweg.range_test import LRFound, lr_find
from thalweg.range_test.run import range_test


def line(lr: float | Tensor = 0.1, **options: Any) -> tuple[nn.Linear, optim.SGD]:
    torch.manual_seed(0)
    model = nn.Linear(4, 1).double()
    return model, optim.SGD(model.parameters(), lr=lr, **options)


def rows(count: int = 5) -> list[tuple[Tensor, Tensor]]:
    return [(x.double(), y.double()) for x, y in batches(count)]


def reference(
    model: nn.Linear, data: list[tuple[Tensor, Tensor]], rates: list[float]
) -> tuple[list[float], list[float]]:
    """Gradient descent on the mean squared error by hand, and the means of its losses."""
    w, b = model.weight.detach().clone()[0], model.bias.detach().clone()
    losses: list[float] = []
    for i, rate in enumerate(rates):
        x, y = data[i % len(data)]
        error = x @ w + b - y[:, 0]
        losses.append(float((error**2).mean()))
        w = w - rate * 2 * (error[:, None] * x).mean(0)
        b = b - rate * 2 * error.mean()
    return losses, w.tolist()


def mean(values: list[float], beta: float) -> list[float]:
    """The exponential moving average with bias correction, from its definition as a sum."""
    return [
        (1 - beta) * sum(beta ** (k - i) * values[i] for i in range(k + 1)) / (1 - beta ** (k + 1))
        for k in range(len(values))
    ]


def test_it_is_training_at_growing_rates() -> None:
    model, optimizer = line()
    data = rows()
    found = lr_find(model, data, optimizer, nn.MSELoss(), low=1e-4, high=0.1, steps=12)
    expected = [1e-4 * 1000 ** (i / 11) for i in range(12)]
    assert found.rates == pytest.approx(expected, rel=1e-12)
    losses, _ = reference(model, data, expected)
    assert found.losses == pytest.approx(losses, rel=1e-9)
    assert not found.diverged
    means = mean(losses, 0.85)
    top = max(losses[: means.index(min(means)) + 1])
    smoothed = mean(mean([min(loss, top) for loss in losses], 0.85)[::-1], 0.85)[::-1]
    assert found.smoothed == pytest.approx(smoothed, rel=1e-9)


def test_it_ends_where_the_mean_has_risen_too_far() -> None:
    model, optimizer = line()
    data = rows()
    found = lr_find(
        model, data, optimizer, nn.MSELoss(), low=0.01, high=100, steps=60, smoothing=0.5, stop=3
    )
    assert found.diverged
    assert len(found.losses) < 60
    means = mean(list(found.losses), 0.5)
    assert means[-1] > 3 * min(means)
    assert all(means[k] <= 3 * min(means[: k + 1]) for k in range(len(means) - 1))


def test_a_loss_below_zero_rises_by_its_size() -> None:
    model, optimizer = line()
    values = iter([-1.0, -2.0, -1.5, 1.9, 2.1, 0.0, 0.0, 0.0])

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return x.sum() * 0 + next(values)

    found = lr_find(model, rows(), optimizer, loss, steps=8, smoothing=0, stop=3)
    assert found.losses == (-1.0, -2.0, -1.5, 1.9, 2.1)  # -2 and twice its size is 2
    assert found.diverged


def test_a_loss_that_is_not_finite_ends_it_and_is_left_out() -> None:
    model, optimizer = line()
    values = iter([1.0, 0.5, math.nan, 0.1, 0.1])

    def loss(x: Tensor, y: Tensor) -> Tensor:
        return x.sum() * 0 + next(values)

    found = lr_find(model, rows(), optimizer, loss, steps=5)
    assert found.losses == (1.0, 0.5)
    assert found.diverged


def test_groups_keep_their_ratios() -> None:
    model, _ = line()
    groups = [{"params": [model.bias], "lr": 0.02}, {"params": [model.weight], "lr": 0.1}]
    optimizer = optim.SGD(groups, lr=0.5)
    seen: list[list[float]] = []
    optimizer.register_step_pre_hook(
        lambda *rest: seen.append([group["lr"] for group in optimizer.param_groups])
    )
    found = lr_find(model, rows(), optimizer, nn.MSELoss(), low=1e-3, high=0.1, steps=5)
    assert seen == [pytest.approx([0.2 * rate, rate]) for rate in found.rates]


@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_a_rate_that_is_a_tensor_is_written_to_in_place(rate: float) -> None:
    given = torch.tensor(rate, dtype=torch.float64)
    model, optimizer = line(given)
    plain, other = line(rate)
    options: Any = {"low": 1e-3, "high": 0.1, "steps": 6}
    found = lr_find(model, rows(), optimizer, nn.MSELoss(), **options)
    expected = lr_find(plain, rows(), other, nn.MSELoss(), **options)
    assert found.losses == pytest.approx(expected.losses, rel=1e-12)
    assert optimizer.param_groups[0]["lr"] is given
    assert given.item() == rate


def test_a_data_loader_begins_anew_and_an_iterator_does_not() -> None:
    x = torch.randn(12, 4).double()
    loader = DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), batch_size=4, shuffle=True)
    model, optimizer = line()
    assert len(lr_find(model, loader, optimizer, nn.MSELoss(), steps=7, high=0.1).losses) == 7
    with pytest.raises(ValueError, match="data ended after 3 of 7 batches"):
        lr_find(model, iter(loader), optimizer, nn.MSELoss(), steps=7, high=0.1)
    assert (
        len(lr_find(model, iter(rows(7)), optimizer, nn.MSELoss(), steps=7, high=0.1).losses) == 7
    )


def test_batches_of_any_kind() -> None:
    model, optimizer = line()

    def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        return nn.functional.mse_loss(model(batch["x"]), batch["y"])

    data = [{"x": x, "y": y} for x, y in rows()]
    options: Any = {"low": 1e-3, "high": 0.1, "steps": 6}
    found = range_test(model, data, optimizer, loss, **options)
    assert found == lr_find(model, rows(), optimizer, nn.MSELoss(), **options)


def test_progress_is_told_after_each_step() -> None:
    model, optimizer = line()
    told: list[tuple[int, int]] = []
    lr_find(
        model, rows(), optimizer, nn.MSELoss(), steps=4, high=0.1,
        progress=lambda done, total: told.append((done, total)),
    )  # fmt: skip
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


# --------------------------------------------------------------------------------- the suggestion


def curve(smoothed: list[float], noise: float = 0.0) -> LRFound:
    rates = tuple(10.0**i for i in range(len(smoothed)))
    losses = tuple(s + noise * (-1) ** i for i, s in enumerate(smoothed))
    return LRFound(rates, losses, tuple(smoothed), False)


@pytest.mark.parametrize(
    ("smoothed", "place"),
    [
        ([10, 9, 5, 2.1, 1.9, 0, 8], 3),  # the level is 2
        ([10, 1, 9, 5, 1, 0, 8], 3),  # of several falls, the last one
        ([10, 10, 10, 0], 2),
        ([-1, -3, -5, -9, -11], 2),  # the level is -9, and that itself
    ],
)
def test_suggestion(smoothed: list[float], place: int) -> None:
    found = curve(smoothed)
    at = max(i for i in range(len(smoothed)) if found.suggestion * 2 >= found.rates[i] * 0.999)
    assert at in (place, place + 1)
    assert found.suggestion == found.rates[at] / 2
    lowest = min(smoothed)
    level = lowest + (smoothed[0] - lowest) / 5
    assert smoothed[at] >= level
    assert all(s < level for s in smoothed[at + 1 : smoothed.index(lowest) + 1])


@pytest.mark.parametrize(
    "found",
    [curve([1, 2, 3, 4]), curve([2, 2, 2]), curve([1, 0.9, 0.95], noise=0.5)],
    ids=["rises", "level", "noise"],
)
def test_no_suggestion_where_the_loss_never_fell(found: LRFound) -> None:
    with pytest.raises(ValueError, match="no rate can be suggested; check loss and targets"):
        _ = found.suggestion


def test_a_test_that_ends_at_once_says_so() -> None:
    found = LRFound(rates=(1e-7,), losses=(1.0,), smoothed=(1.0,), diverged=True)
    with pytest.raises(ValueError, match=r"right after the rate of 1e-07.*begin at a lower rate"):
        _ = found.suggestion


def test_random_targets_give_no_suggestion() -> None:
    def noise() -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(3)
        while True:
            yield torch.zeros(4, 4).double(), torch.randn(4, 1, generator=generator).double() + 3

    model, _ = line()
    with torch.no_grad():
        model.bias.fill_(3.0)  # as good as it gets
    found = lr_find(model, noise(), optim.SGD(model.parameters()), nn.MSELoss(), high=0.1)
    with pytest.raises(ValueError, match="no rate can be suggested"):
        _ = found.suggestion


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": optim.SGD,
    "SGD+momentum": lambda p: optim.SGD(p, momentum=0.9),
    "Adam": optim.Adam,
    "AdamW": optim.AdamW,
    "Adagrad": optim.Adagrad,
    "RMSprop": optim.RMSprop,
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_on_digits_the_suggested_rate_works(name: str) -> None:
    """Training with it for 200 steps makes more than 9 of 10 test digits right."""
    pytest.importorskip("sklearn")
    from thalweg.race import find_task
    from thalweg.race.protocol import endless, new_model

    task = find_task("digits")
    model, _ = new_model(task, 1)
    data = endless(task, torch.Generator().manual_seed(1))
    suggestion = range_test(model, data, OPTIMIZERS[name](model.parameters()), task.loss).suggestion
    optimizer = OPTIMIZERS[name](model.parameters())
    optimizer.param_groups[0]["lr"] = suggestion
    for _ in range(200):
        optimizer.zero_grad()
        task.loss(model, next(data)).backward()
        optimizer.step()
    assert task.score is not None
    with torch.no_grad():
        tests = list(task.batches("test", torch.Generator()))
        score = sum(float(task.score(model, batch)) for batch in tests) / len(tests)
    assert score > 0.9


# ---------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model": lambda x: x}, TypeError, "model must be a torch.nn.Module, got function"),
        ({"optimizer": 3}, TypeError, "optimizer must be a torch.optim.Optimizer, got int"),
        ({"data": 3}, TypeError, "data must be iterable, got int"),
        ({"data": []}, ValueError, "data has no batches"),
        ({"data": [torch.ones(1)]}, TypeError, "must be a pair .input, target., got a Tensor"),
        ({"data": [(1, 2, 3)]}, TypeError, "got a tuple of 3"),
        ({"loss": None}, TypeError, "loss must be a function or a module, got None"),
        ({"loss": lambda x, y: 3.0}, TypeError, "the loss must be a tensor, got float"),
        ({"loss": lambda x, y: x - y}, ValueError, r"must have one element, got shape \(8, 1\)"),
        ({"loss": lambda x, y: (y - y).sum()}, ValueError, "does not depend on parameters"),
        ({"loss": lambda x, y: (x - y).sum() * math.nan}, ValueError, "is nan before the first"),
        ({"low": 0}, ValueError, "low must be a finite number > 0, got 0"),
        ({"low": "a"}, TypeError, "low must be a number, got str 'a'"),
        ({"high": 1e-8}, ValueError, "high must be a finite number > 1e-07, got 1e-08"),
        ({"steps": 2}, ValueError, "steps must be at least 3, got 2"),
        ({"steps": 3.5}, TypeError, "steps must be an integer"),
        ({"smoothing": 1}, ValueError, "smoothing must be a finite number >= 0 and < 1, got 1"),
        ({"stop": 1}, ValueError, "stop must be a finite number > 1, got 1"),
    ],
    ids=lambda value: repr(sorted(value)) if isinstance(value, dict) else None,
)
def test_refused(change: dict[str, Any], error: type[Exception], message: str) -> None:
    model, optimizer = line()
    arguments: dict[str, Any] = {
        "model": model, "data": rows(), "optimizer": optimizer, "loss": nn.MSELoss(), **change
    }  # fmt: skip
    with pytest.raises(error, match=f"lr_find: .*{message}"):
        lr_find(**arguments)


def test_a_model_that_is_not_made_yet_and_one_that_is_not_the_optimizers() -> None:
    lazy = nn.LazyLinear(1)
    with pytest.raises(ValueError, match="call the model once before"):
        lr_find(lazy, rows(), torch.optim.SGD(lazy.parameters()), nn.MSELoss())
    model, _ = line()
    _, other = line()
    with pytest.raises(ValueError, match="holds none of the model's parameters"):
        lr_find(model, rows(), other, nn.MSELoss())


def test_an_optimizer_that_does_not_call_its_closure() -> None:
    class Deaf(torch.optim.SGD):
        def step(self, closure: Any = None) -> None: ...

    model, _ = line()
    with pytest.raises(TypeError, match=r"Deaf\.step\(closure\) did not call the closure"):
        lr_find(model, rows(), Deaf(model.parameters(), lr=0.1), nn.MSELoss())


def test_an_optimizer_whose_step_takes_no_closure() -> None:
    class Plain(torch.optim.SGD):
        def step(self) -> None:  # type: ignore[override]
            super().step()

    model, _ = line()
    made = [cls(model.parameters(), lr=0.1) for cls in (Plain, torch.optim.SGD)]
    found, expected = (lr_find(model, rows(), each, nn.MSELoss(), high=0.1) for each in made)
    assert found == expected


# ------------------------------------------------------------------------------------ the picture


def found_example() -> LRFound:
    model, optimizer = line()
    return lr_find(model, rows(40), optimizer, nn.MSELoss(), low=1e-4, steps=60)


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_picture(suffix: str, tmp_path: Path) -> None:
    found = found_example()
    for name in ("a", "b"):
        axes = found.plot(tmp_path / f"{name}{suffix}")
        assert f"{found.suggestion:.2g}" in axes.get_title(loc="left")
        assert axes.get_xscale() == "log"
        drawn = {line.get_label(): tuple(line.get_ydata()) for line in axes.get_lines()}
        assert drawn["one batch"] == found.losses
        assert drawn["smoothed"] == found.smoothed
    first, second = ((tmp_path / f"{name}{suffix}").read_bytes() for name in ("a", "b"))
    assert first == second
    assert first[:8] == (b"\x89PNG\r\n\x1a\n" if suffix == ".png" else b"<?xml ve")


def test_picture_into_axes_and_without_a_suggestion(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    assert curve([1, 2, 3]).plot(axes) is axes
    assert axes.get_title(loc="left") == "The loss never fell: no rate to suggest"
    with pytest.raises(ValueError, match=r"path must end in one of \.png, \.svg"):
        curve([3, 2, 1]).plot(tmp_path / "a.jpg")
    with pytest.raises(OSError, match=r"cannot write a\.png"):
        curve([3, 2, 1]).plot("/proc/nothing/a.png")
