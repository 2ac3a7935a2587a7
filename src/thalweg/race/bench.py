"""The time of optimizer steps on a model of one's own, beside torch's classes."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from thalweg.race.objects import build
from thalweg.race.racers import Racer
from thalweg.race.result import StepTime
from thalweg.race.step_time import measure_steps
from thalweg.race.training import OptimizerError

SMALL = "thalweg.race.bench:small"
ROWS = 16  # of the rows of a sparse embedding, one in so many gets a gradient


@dataclass(frozen=True)
class Timed:
    """What a step of one optimizer costs.

    Attributes:
        name: the racer's.
        optimizer: its class, as a dotted path.
        time: medians beside torch's class; None if the optimizer refuses the model.
        failed: what it says then.
    """

    name: str
    optimizer: str
    time: StepTime | None
    failed: str | None = None


def small() -> nn.Module:
    """A transformer of 4 layers of width 128 (0.8 million parameters), for a first look."""
    layer = nn.TransformerEncoderLayer(128, 4, 512, batch_first=True)
    return nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)


def parameters_of(spec: str, seed: int = 0) -> Callable[[], list[nn.Parameter]]:
    """A function that gives the parameters of a model, with gradients, anew at each call.

    The model is built once. Each call copies its parameters that require a gradient, in their
    layout, and gives them the same random gradients: standard normal, of the parameter's dtype and
    layout. The weight of an ``nn.Embedding(sparse=True)`` gets a sparse one, on a sixteenth of its
    rows.

    Args:
        spec: ``my_module:build``, a function without arguments that returns a model, or its
            parameters; importable from the current folder.
        seed: of the gradients.

    Raises:
        ValueError: there is no such function, it fails, or what it returns has no parameters that
            require a gradient, or some that are not on the CPU.
    """
    built = _built(spec)
    modules = list(built.modules()) if isinstance(built, nn.Module) else []
    given = built.parameters() if isinstance(built, nn.Module) else built
    originals = [p for p in given if p.requires_grad]
    if not originals:
        raise ValueError(f"bench: {spec} gives no parameters that require a gradient")
    for p in originals:
        if p.device.type != "cpu":
            raise ValueError(
                f"bench: {spec} gives parameters on {p.device}; steps are timed on the CPU only"
            )
    sparse = {id(m.weight) for m in modules if getattr(m, "sparse", False) is True}
    generator = torch.Generator().manual_seed(seed)
    gradients = [_gradient(p, id(p) in sparse, generator) for p in originals]

    def parameters() -> list[nn.Parameter]:
        copies = [nn.Parameter(p.detach().clone()) for p in originals]
        for copy, gradient in zip(copies, gradients, strict=True):
            copy.grad = gradient.clone()
        return copies

    return parameters


def bench(
    parameters: Callable[[], list[nn.Parameter]],
    racers: Sequence[Racer],
    repeats: int = 100,
    progress: Callable[[int, str], None] | None = None,
) -> tuple[Timed, ...]:
    """Time a step of each optimizer on these parameters; see :func:`measure_steps`.

    Args:
        parameters: of :func:`parameters_of`, or like them.
        racers: whose steps are timed.
        repeats: steps per optimizer.
        progress: called before each with the number done and its name.

    >>> from thalweg.race import find
    >>> p = nn.Parameter(torch.ones(100))
    >>> p.grad = torch.ones(100)
    >>> [timed] = bench(lambda: [p], [find("sgd")], repeats=5)
    >>> timed.time.state_bytes
    0.0
    """
    timed = []
    for done, racer in enumerate(racers):
        if progress is not None:
            progress(done, racer.name)
        try:
            time, failed = measure_steps(parameters, racer, repeats), None
        except OptimizerError as error:
            time, failed = None, str(error)
        timed.append(Timed(racer.name, racer.optimizer, time, failed))
    return tuple(timed)


def _built(spec: str) -> nn.Module | list[Tensor]:
    built = build("bench", spec)
    if isinstance(built, nn.Module):
        return built
    found = (
        list(built) if isinstance(built, Iterable) and not isinstance(built, Tensor) else [built]
    )
    for each in found:
        if not isinstance(each, Tensor):
            raise ValueError(
                f"bench: {spec} must return a torch.nn.Module or its parameters, got "
                f"{type(each).__name__}"
            )
    return found


def _gradient(p: Tensor, sparse: bool, generator: torch.Generator) -> Tensor:
    like = p.detach()
    if not sparse:
        # Drawn for each element in its place: the layout is the parameter's.
        return torch.empty_like(like).copy_(_normal(p.shape, p.dtype, generator))
    rows = (
        torch.randperm(len(p), generator=generator, device="cpu")[: max(1, len(p) // ROWS)]
        .sort()
        .values
    )
    values = _normal((len(rows), *p.shape[1:]), p.dtype, generator)
    return torch.sparse_coo_tensor(
        rows[None], values, p.shape, is_coalesced=True, check_invariants=True
    )


def _normal(shape: Sequence[int], dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    drawn = torch.complex64 if dtype.is_complex else torch.float32
    return torch.randn(tuple(shape), dtype=drawn, generator=generator, device="cpu").to(dtype)
