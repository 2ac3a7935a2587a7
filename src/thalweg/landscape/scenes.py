"""Two scenes: many optimizers on one surface from one start, with their learning rates."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from thalweg import optim
from thalweg.landscape.catalogue import named
from thalweg.landscape.functions import rosenbrock
from thalweg.landscape.saddles import saddle
from thalweg.landscape.surfaces import Point, Surface
from thalweg.landscape.trajectory import Scheduling, Trajectory, trace_all

Recipe = partial[torch.optim.Optimizer]


@dataclass(frozen=True, eq=False)
class Scene:
    """A race on a surface.

    Attributes:
        name: for titles.
        surface: what the optimizers walk on.
        start: where all of them begin.
        steps: how many each makes.
        optimizers: by name, an optimizer's class with its options, as a ``functools.partial``
            whose keywords can be read: ``scene.optimizers["Adam"].keywords["lr"]``.
        text: what is to be seen, in a few sentences.
    """

    name: str
    surface: Surface
    start: Point
    steps: int
    optimizers: Mapping[str, Recipe]
    text: str

    @property
    def rates(self) -> str:
        """The learning rates in one sentence, those of one rate together.

        >>> saddle_scene().rates.endswith("; 1: Adadelta.")
        True
        """
        return rates_of({name: each.keywords["lr"] for name, each in self.optimizers.items()})

    @property
    def caption(self) -> str:
        """The text, and the learning rates."""
        return f"{self.text} {self.rates}"

    def run(
        self, dtype: torch.dtype = torch.float32, schedule: Scheduling | None = None
    ) -> tuple[Trajectory, ...]:
        """A trajectory for each optimizer, in their order.

        Args:
            dtype: of the parameters.
            schedule: a learning rate for all of them in place of their own: see :func:`trace`.

        Raises:
            TypeError: see :func:`trace`.
            ValueError: see :func:`trace`.
        """
        return trace_all(
            self.surface,
            self.optimizers,
            start=self.start,
            steps=self.steps,
            schedule=schedule,
            dtype=dtype,
        )


def ravine_scene() -> Scene:
    """Down Rosenbrock's ravine: every dense optimizer of thalweg, for 500 steps.

    The start is Rosenbrock's own. Across the ravine the curvature is up to 1500, along its bottom
    less than 1, so no single rate suits both directions.

    Learning rates: SGD, with momentum or without, and ASGD must stay below 2 over the greatest
    curvature, which is 0.0013; they get 0.001. RAdam gets it too: its first steps are not divided
    by the gradient's size. Adam and AdamW get 0.1, a thirtieth of the way per step, and Adamax, as
    by default, twice that; NAdam, which at 0.1 leaps from side to side, 0.03. Adagrad, whose steps
    shrink, gets 0.3. The others have torch's defaults. LBFGS makes one iteration a step, each with
    as many evaluations as its line search needs.

    >>> scene = ravine_scene()
    >>> scene.optimizers["Adam"].keywords
    {'lr': 0.1}
    """
    return Scene(
        name="Down a ravine",
        surface=replace(rosenbrock(), region=(-1.5, 1.5, -0.5, 1.75)),  # where they go
        start=(-1.2, 1.0),
        steps=500,
        optimizers=_recipes(
            {
                "SGD": 0.001,
                "SGD+momentum": 0.001,
                "SGD+Nesterov": 0.001,
                "ASGD": 0.001,
                "Adam": 0.1,
                "AdamW": 0.1,
                "Adamax": 0.2,
                "NAdam": 0.03,
                "RAdam": 0.001,
                "Adagrad": 0.3,
                "Adadelta": 1.0,
                "RMSprop": 0.01,
                "Rprop": 0.01,
                "LBFGS": 1.0,
            }
        ),
        text="Every optimizer starts on the side of Rosenbrock's ravine. The sides are steep and "
        "the bottom is nearly level: to get into the valley is easy, to get along it is not.",
    )


def saddle_scene() -> Scene:
    """Away from a saddle: the first-order optimizers beside its ridge, for 200 steps.

    The start lies a hundred-thousandth of the picture's half height from the ridge. SGD's distance
    from it grows by the factor ``1 + 2 lr`` a step: to a hundredth of the half height it takes 349
    steps at 0.01, and 38 at 0.1. Momentum makes the factor greater. The methods that divide by the
    size of the gradients move by about ``lr`` however small the slope is, and are off at once.

    Learning rates: 0.01 for all, torch's default for four of them. Adadelta's is a factor of a
    step that it finds itself; it has its default, 1. LBFGS is left out: the surface has no minimum
    that its line search could find.

    >>> sorted({recipe.keywords["lr"] for recipe in saddle_scene().optimizers.values()})
    [0.01, 1.0]
    """
    names = [name for name in _ENTRANTS if name != "LBFGS"]
    surface = saddle()
    return Scene(
        name="Away from a saddle",
        surface=surface,
        start=surface.start,
        steps=200,
        optimizers=_recipes({name: 1.0 if name == "Adadelta" else 0.01 for name in names}),
        text="Every optimizer starts almost on the ridge, where the slope leads to the saddle and "
        "next to nothing leads off. SGD's distance from the ridge grows by 2% a step, too little "
        "to be seen here; momentum makes more of it; methods that divide by the size of the "
        "gradients leave at once, because they take small slopes for large.",
    )


SCENES: dict[str, Callable[[], Scene]] = {"ravine": ravine_scene, "saddle": saddle_scene}


def scene(name: str) -> Scene:
    """The scene of that name, ``"ravine"`` or ``"saddle"``, in any case.

    Raises:
        TypeError: the name is not a string.
        ValueError: there is none; the message suggests the nearest name and lists all.

    >>> scene("ravine").steps
    500
    """
    return named("scene", name, SCENES)


def rates_of(rates: Mapping[str, float]) -> str:
    """Optimizers' learning rates in one sentence, those of one rate together.

    >>> rates_of({"Adam": 0.1, "SGD": 0.001, "AdamW": 0.1})
    'Learning rates: 0.001: SGD; 0.1: Adam, AdamW.'
    """
    by_rate: dict[float, list[str]] = {}
    for name, rate in rates.items():
        by_rate.setdefault(rate, []).append(name)
    groups = [f"{rate:g}: {', '.join(names)}" for rate, names in sorted(by_rate.items())]
    return f"Learning rates: {'; '.join(groups)}."


Class = Callable[..., torch.optim.Optimizer]

# Classes and options besides the learning rate.
_ENTRANTS: dict[str, tuple[Class, dict[str, Any]]] = {
    "SGD": (optim.SGD, {}),
    "SGD+momentum": (optim.SGD, {"momentum": 0.9}),
    "SGD+Nesterov": (optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "ASGD": (optim.ASGD, {}),
    "Adam": (optim.Adam, {}),
    "AdamW": (optim.AdamW, {}),
    "Adamax": (optim.Adamax, {}),
    "NAdam": (optim.NAdam, {}),
    "RAdam": (optim.RAdam, {}),
    "Adagrad": (optim.Adagrad, {}),
    "Adadelta": (optim.Adadelta, {}),
    "RMSprop": (optim.RMSprop, {}),
    "Rprop": (optim.Rprop, {}),
    # A line search takes up to 25 evaluations; by default a single iteration gets one, and stands
    # still.
    "LBFGS": (optim.LBFGS, {"max_iter": 1, "max_eval": 25, "line_search_fn": "strong_wolfe"}),
}


def _recipes(rates: Mapping[str, float]) -> dict[str, Recipe]:
    found = {}
    for name, lr in rates.items():
        optimizer, options = _ENTRANTS[name]
        found[name] = partial(optimizer, lr=lr, **options)
    return found
