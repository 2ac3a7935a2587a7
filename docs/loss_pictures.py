"""Pictures of every loss: its value and its gradient over one number x.

Each is drawn by the package itself, from the expression in its title. The gradient is the one that
``backward`` gives.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from drawing import INK, LEGEND, LINES, titled
from matplotlib.figure import Figure

from thalweg import losses

POINTS = 401


@dataclass(frozen=True)
class Picture:
    """What a picture shows: a loss over x, for one or several values of another name.

    Attributes:
        expression: a call of the loss. A list stands for a row of numbers, a number for a tensor
            of it, one for each x.
        span: the first x and the last.
        over: a name of the expression, and the values that it takes, a line for each.
        fixed: the values of further names.
        differentiable: there is a gradient to draw.
    """

    expression: str
    span: tuple[float, float] = (-3.0, 3.0)
    over: tuple[str, Sequence[Any]] = ("", ())
    fixed: Mapping[str, Any] = field(default_factory=dict)
    differentiable: bool = True

    @property
    def title(self) -> str:
        """The expression; the legend has the options that differ."""
        return (
            self.expression.replace(f"={self.over[0]}", "=...") if self.over[0] else self.expression
        )

    @property
    def lines(self) -> list[tuple[str, dict[str, Any]]]:
        """The label of each line, and the values of the names for it."""
        name, values = self.over
        if not name:
            return [("", dict(self.fixed))]
        return [(f"{name} = {said(v)}", {**self.fixed, name: v}) for v in values]

    @property
    def label(self) -> str:
        """Of the horizontal axis."""
        return ", ".join(["x", *(f"{name} = {said(v)}" for name, v in self.fixed.items())])


TARGETS = ("y", (0.0, 1.0))
SIGNS = ("y", (1.0, -1.0))
SCORES = (-5.0, 5.0)

LOSSES = {
    "l1_loss": Picture("l1_loss(x, y)", fixed={"y": 0.0}),
    "mse_loss": Picture("mse_loss(x, y)", fixed={"y": 0.0}),
    "smooth_l1_loss": Picture(
        "smooth_l1_loss(x, y, beta=beta)", over=("beta", (0.5, 1, 2)), fixed={"y": 0.0}
    ),
    "huber_loss": Picture(
        "huber_loss(x, y, delta=delta)", over=("delta", (0.5, 1, 2)), fixed={"y": 0.0}
    ),
    "poisson_nll_loss": Picture("poisson_nll_loss(x, y)", (-2, 3), ("y", (0.0, 2.0, 5.0))),
    "gaussian_nll_loss": Picture(
        "gaussian_nll_loss(x, y, var)", over=("var", (0.3, 1.0, 3.0)), fixed={"y": 0.0}
    ),
    "kl_div": Picture("kl_div(x, y)", (-4, 0), ("y", (0.1, 0.5, 0.9))),
    "binary_cross_entropy": Picture("binary_cross_entropy(x, y)", (0.02, 0.98), TARGETS),
    "binary_cross_entropy_with_logits": Picture(
        "binary_cross_entropy_with_logits(x, y)", SCORES, ("y", (0.0, 0.5, 1.0))
    ),
    "multilabel_soft_margin_loss": Picture(
        "multilabel_soft_margin_loss([x, -x], [1.0, y])", SCORES, TARGETS
    ),
    "sigmoid_focal_loss": Picture(
        "sigmoid_focal_loss(x, y, alpha=-1, gamma=gamma)",
        SCORES, ("gamma", (0, 1, 2)), {"y": 1.0},
    ),
    "soft_margin_loss": Picture("soft_margin_loss(x, y)", SCORES, SIGNS),
    "hinge_loss": Picture("hinge_loss(x, y)", over=SIGNS),
    "hinge_embedding_loss": Picture("hinge_embedding_loss(x, y)", (0, 2), SIGNS),
    "margin_ranking_loss": Picture(
        "margin_ranking_loss(x, 0.0, y, margin=0.5)", over=SIGNS
    ),
    "cross_entropy": Picture(
        "cross_entropy([x, 0.0, 0.0], 0, label_smoothing=s)", (-5, 8), ("s", (0.0, 0.1, 0.3))
    ),
    "nll_loss": Picture("nll_loss([x, -1.0, -2.0], y)", (-4, 0), ("y", (0, 1))),
    "linear_cross_entropy": Picture(
        "linear_cross_entropy([x, 0.0, 0.0], eye(3), 0)", (-5, 8)
    ),
    "focal_loss": Picture(
        "focal_loss([x, 0.0, 0.0], 0, gamma=gamma)", (-5, 8), ("gamma", (0, 1, 2))
    ),
    "multi_margin_loss": Picture(
        "multi_margin_loss([x, 0.0, 1.0], 0, p=p)", over=("p", (1, 2))
    ),
    "multilabel_margin_loss": Picture(
        "multilabel_margin_loss([x, 0.0, 0.0, 1.0], [0, 3, -1, 0])"
    ),
    "ctc_loss": Picture(
        "ctc_loss(frames([0.0, x], t), [1], t, 1)", SCORES, ("t", (1, 2, 4))
    ),
    "cosine_embedding_loss": Picture(
        "cosine_embedding_loss([cos(x), sin(x)], [1.0, 0.0], y, margin=0.5)",
        (-math.pi, math.pi), SIGNS,
    ),
    "triplet_margin_loss": Picture(
        "triplet_margin_loss([0.0], [1.0], [x])"
    ),
    "triplet_margin_with_distance_loss": Picture(
        "triplet_margin_with_distance_loss([0.0], [1.0], [x], swap=swap)", (-3, 3.5),
        over=("swap", (False, True)),
    ),
    "dice_loss": Picture(
        "dice_loss([x, 1.0, 0.0, 0.0], [y, 1.0, 0.0, 0.0], smooth=0)", (0, 1), TARGETS
    ),
    **{
        name: Picture(f"{name}([x, 0.0, x + 1, 1.0], [0.0, 0.0, 1.0, 1.0])")
        for name in ("iou_loss", "giou_loss", "diou_loss")
    },
    "ciou_loss": Picture("ciou_loss([x, 0.0, x + 1, 2.0], [0.0, 0.0, 2.0, 1.0])"),
    "zero_one_loss": Picture("zero_one_loss(x, y)", over=SIGNS, differentiable=False),
}  # fmt: skip


def said(value: Any) -> str:
    """A value as in a legend: 1, not 1.0."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def evaluated(picture: Picture, names: Mapping[str, Any]) -> tuple[torch.Tensor, ...]:
    """x, and the loss and, if it has one, its gradient at each x."""
    x = torch.linspace(*picture.span, POINTS, dtype=torch.float64, requires_grad=True)

    def column(value: Any) -> torch.Tensor:
        if isinstance(value, list):
            return torch.stack([column(v) for v in value], dim=-1)
        return value if isinstance(value, torch.Tensor) else torch.full_like(x, value)

    def tensor(value: Any) -> Any:
        """What a number or a list among the operands stands for; whole numbers are classes."""
        if not isinstance(value, (int, float, list)):
            return value
        made = column(value)
        whole = isinstance(value, int) or (isinstance(value, list) and isinstance(value[0], int))
        return made.long() if whole else made

    def call(name: str) -> Callable[..., torch.Tensor]:
        function = getattr(losses, name)
        return lambda *operands, **options: function(
            *map(tensor, operands), reduction="none", **options
        )

    def frames(row: Any, count: int) -> torch.Tensor:
        """As many equal frames, each the log-probabilities of a row of logits."""
        return column(row).log_softmax(-1).expand(count, -1, -1)

    words = {"cos": torch.cos, "sin": torch.sin, "frames": frames, "x": x}
    words["eye"] = lambda n: torch.eye(n, dtype=x.dtype)
    known = {name: call(name) for name in LOSSES}
    value = eval(picture.expression, {**known, **words, **names})
    if not picture.differentiable:
        return x.detach(), value.detach()
    (gradient,) = torch.autograd.grad(value.sum(), x)
    return x.detach(), value.detach(), gradient


def draw(picture: Picture) -> Figure:
    """The value on the left, the gradient on the right."""
    figure = titled(picture.title)
    titles = ["value", "gradient"][: 1 + picture.differentiable]
    panels = figure.subplots(1, len(titles), squeeze=False)[0]
    for axes, title in zip(panels, titles, strict=True):
        axes.set_prop_cycle(color=LINES)
        axes.set_xlim(*picture.span)
        axes.set_title(title, fontsize=9, color=INK)
        axes.set_xlabel(picture.label)
        axes.locator_params(nbins=6)
    for label, names in picture.lines:
        x, *quantities = evaluated(picture, names)
        for axes, quantity, style in zip(panels, quantities, ("-", "--"), strict=False):
            axes.plot(x, quantity, style, label=label)
    if picture.over[0]:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", **LEGEND)
    return figure
