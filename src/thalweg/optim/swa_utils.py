"""In place of ``torch.optim.swa_utils``: averages of weights, in one pass or in the step itself.

>>> import torch
>>> from thalweg.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
>>> model = torch.nn.Linear(1, 1, bias=False)
>>> ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay=0.5))
>>> for value in (1.0, 2.0):
...     with torch.no_grad():
...         _ = model.weight.fill_(value)
...     ema.update_parameters(model)
>>> ema.module.weight.item(), ema.n_averaged.item()
(1.5, 2)
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from copy import deepcopy
from typing import Any

import torch
from torch.nn import Module
from torch.nn.modules.batchnorm import _BatchNorm

from thalweg.engine.interrupts import put_back_after, uninterrupted
from thalweg.engine.modes import with_gradients
from thalweg.optim.averages import ManyAverages, ModelAverage, OneAverage, checked_decay
from thalweg.optim.carried_average import CarriedAverage
from thalweg.optim.lr_scheduler import SWALR

__all__ = [
    "SWALR",
    "AveragedModel",
    "CarriedAverage",
    "get_ema_avg_fn",
    "get_ema_multi_avg_fn",
    "get_swa_avg_fn",
    "get_swa_multi_avg_fn",
    "update_bn",
]

AvgFn = Callable[[torch.Tensor, torch.Tensor, Any], torch.Tensor]
MultiAvgFn = Callable[[Any, Any, Any], None]


def get_ema_multi_avg_fn(decay: float = 0.999) -> MultiAvgFn:
    """The ``multi_avg_fn`` of an exponential moving average.

    ``average <- average + (1 - decay) * (value - average)``

    Args:
        decay: in [0, 1].

    Raises:
        ValueError: the decay is out of range.
        TypeError: it is not a number.

    >>> averages = [torch.tensor([0.0])]
    >>> get_ema_multi_avg_fn(0.75)(averages, [torch.tensor([1.0])], 1)
    >>> averages
    [tensor([0.2500])]
    """
    return ManyAverages(checked_decay("get_ema_multi_avg_fn", decay))


def get_swa_multi_avg_fn() -> MultiAvgFn:
    """The ``multi_avg_fn`` of an average with equal weights.

    ``average <- average + (value - average) / (n + 1)``, n the values averaged before.

    >>> averages = [torch.tensor([0.0])]
    >>> get_swa_multi_avg_fn()(averages, [torch.tensor([1.0])], 3)
    >>> averages
    [tensor([0.2500])]
    """
    return ManyAverages(None)


def get_ema_avg_fn(decay: float = 0.999) -> AvgFn:
    """The ``avg_fn`` of an exponential moving average: see :func:`get_ema_multi_avg_fn`.

    Args:
        decay: in [0, 1].

    Raises:
        ValueError: the decay is out of range.
        TypeError: it is not a number.

    >>> get_ema_avg_fn(0.75)(torch.tensor([0.0]), torch.tensor([1.0]), 1)
    tensor([0.2500])
    """
    return OneAverage(checked_decay("get_ema_avg_fn", decay))


def get_swa_avg_fn() -> AvgFn:
    """The ``avg_fn`` of an average with equal weights: see :func:`get_swa_multi_avg_fn`.

    >>> get_swa_avg_fn()(torch.tensor([0.0]), torch.tensor([1.0]), 3)
    tensor([0.2500])
    """
    return OneAverage(None)


class AveragedModel(torch.optim.swa_utils.AveragedModel):
    """A copy of a model whose parameters are averages of those the model had.

    ::

        first update:    average <- value
        equal weights:   average <- average + (value - average) / (n + 1)
        exponential:     average <- average + (1 - decay) * (value - average)

    All parameters and buffers are brought up to date in one pass, in float32 or wider. A model
    that is trained by an optimizer of this package can do without that pass: see
    :class:`CarriedAverage`.

    It is a ``torch.optim.swa_utils.AveragedModel`` by inheritance, because trainers ask for one;
    state dicts fit both ways.

    Args:
        model: the model; it is deep-copied.
        device: where to keep the averages; None: where the model is.
        avg_fn: ``avg_fn(average, value, n_averaged)`` returns a tensor's new average. None: equal
            weights. Those of :func:`get_ema_avg_fn` and :func:`get_swa_avg_fn` are recognized and
            run in one pass; another one is called for each tensor.
        multi_avg_fn: ``multi_avg_fn(averages, values, n_averaged)`` updates a list in place; called
            for each device and dtype. As with ``avg_fn``, the built-in ones are recognized.
        use_buffers: average the buffers too. Otherwise they are copied from the model at each
            update. Averages of integers are rounded to the nearest (torch drops the fraction, and
            falls behind); bools are always copied.

    Attributes:
        module: the averaged model.
        n_averaged: updates so far, a buffer.

    Raises:
        AssertionError: both ``avg_fn`` and ``multi_avg_fn`` are given.

    Source: Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization",
    2018, Algorithm 1; Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging",
    1992.

    >>> model = torch.nn.Linear(1, 1, bias=False)
    >>> swa = AveragedModel(model)
    >>> for value in (1.0, 2.0, 6.0):
    ...     with torch.no_grad():
    ...         _ = model.weight.fill_(value)
    ...     swa.update_parameters(model)
    >>> swa.module.weight.item()
    3.0
    """

    n_averaged: torch.Tensor

    def __init__(
        self,
        model: Module,
        device: int | torch.device | str | None = None,
        avg_fn: AvgFn | None = None,
        multi_avg_fn: MultiAvgFn | None = None,
        use_buffers: bool = False,
    ) -> None:
        if avg_fn is not None and multi_avg_fn is not None:
            raise AssertionError(
                "AveragedModel: only one of avg_fn and multi_avg_fn can be used; leave one out"
            )
        Module.__init__(self)
        self.module = deepcopy(model) if device is None else deepcopy(model).to(device)
        n_averaged = torch.tensor(0, dtype=torch.long, device=device)
        self.register_buffer("n_averaged", n_averaged)
        self.avg_fn = avg_fn
        self.multi_avg_fn = multi_avg_fn
        self.use_buffers = use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the averaged model."""
        return self.module(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        """Everything but what the engine keeps, of which a copy makes its own."""
        return {key: value for key, value in self.__dict__.items() if key != "_model_average"}

    def update_parameters(self, model: Module) -> None:
        """Average the model's parameters as they are now.

        Raises:
            ValueError: the model's tensors differ from the average's in number, shape or in being
                complex. Nothing is changed then.
        """
        given = self.avg_fn if self.avg_fn is not None else self.multi_avg_fn
        n = int(self.n_averaged)
        with uninterrupted():  # averages and their count belong together
            if given is None or isinstance(given, (OneAverage, ManyAverages)) or n == 0:
                decay = given.decay if isinstance(given, (OneAverage, ManyAverages)) else None
                self._average_of(model).update(n, decay, bool(self.use_buffers))
            else:
                self._call_given(model)
            self.n_averaged += 1

    def _average_of(self, model: Module) -> ModelAverage:
        found: ModelAverage | None = self.__dict__.get("_model_average")
        if found is None or not found.serves(self.module, model):
            found = ModelAverage(type(self).__name__, self.module, model)
            self.__dict__["_model_average"] = found
        return found

    @with_gradients(False)
    def _call_given(self, model: Module) -> None:
        """Let the user's own function compute the averages."""
        pairs = self._average_of(model).pairs(bool(self.use_buffers))
        lists: dict[Any, tuple[list[torch.Tensor], list[torch.Tensor]]]
        lists = defaultdict(lambda: ([], []))
        for own, theirs, averaged in pairs:
            average, value = own.detach(), theirs.detach().to(own.device)
            if not averaged:
                average.copy_(value)
            elif self.avg_fn is not None:
                n_averaged = self.n_averaged.to(average.device)
                average.copy_(self.avg_fn(average, value, n_averaged))
            else:
                averages, values = lists[average.device, average.dtype]
                averages.append(average)
                values.append(value)
        for (device, _), (averages, values) in lists.items():
            assert self.multi_avg_fn is not None
            self.multi_avg_fn(averages, values, self.n_averaged.to(device))


@with_gradients(False)
def update_bn(
    loader: Iterable[Any], model: Module, device: int | torch.device | str | None = None
) -> None:
    """Measure the running statistics of the model's batch normalizations again, over a data set.

    An average of weights has other activations than any model it was made of. All batches count
    alike. Momenta and training flags are as before afterwards, also where the loader or the model
    raises.

    Args:
        loader: batches; of a list or tuple the first element is the model's input.
        model: the model; nothing happens if it has no batch normalization.
        device: where to put each batch; None: it stays where it is.

    >>> model = torch.nn.BatchNorm1d(1)
    >>> update_bn([torch.tensor([[0.0], [2.0]]), torch.tensor([[4.0], [6.0]])], model)
    >>> model.running_mean
    tensor([3.])
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    flags = [(module, module.training) for module in model.modules()]

    def put_back() -> None:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for module, flag in flags:
            module.training = flag

    with put_back_after(put_back):
        model.train()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the cumulative average
        for batch in loader:
            x = batch[0] if isinstance(batch, (list, tuple)) else batch
            model(x if device is None else x.to(device))
