"""thalweg: PyTorch optimizers written once, as the formula in their paper, run fused.

>>> import thalweg.optim as optim  # in place of: import torch.optim as optim
"""

__version__ = "0.1.0"

from typing import Any

from thalweg import schedules
from thalweg.diagnosis import Diagnosis, doctor
from thalweg.engine.explain import Text, explain_optimizer, has_rule, show_config
from thalweg.in_place import install, uninstall
from thalweg.optim.define import optimizer
from thalweg.range_test import LRFound, lr_find

__all__ = [
    "Diagnosis",
    "LRFound",
    "__version__",
    "doctor",
    "explain",
    "install",
    "lr_find",
    "optimizer",
    "schedules",
    "show_config",
    "uninstall",
]


def explain(subject: Any, *tensors: Any, source: bool = False, **options: Any) -> Text:
    """Explain what an optimizer's ``step()``, or a call of a loss, computes. Nothing is changed.

    Of an optimizer, for each kind of parameter (options, dtype, back end): the rule's equations,
    where a prime marks the value after the step; the states; the bytes moved per element of a
    parameter; the back end and why it was chosen.

    Of a loss, for each formula that the call evaluates: the value, and its derivatives by the
    operands that require a gradient (by all, if none does); the options; what is read and written;
    the back end and why.

    Args:
        subject: a thalweg optimizer; or a loss, function or module, of ``thalweg.losses`` or your
            own.
        tensors: the loss's arguments. Small ones are made up if there are none.
        source: print the generated kernels as well; an optimizer's after its first step.
        options: the loss's arguments by name.

    Raises:
        TypeError: not an optimizer with a rule, and not a loss that evaluates a formula.

    >>> import torch, thalweg.optim as optim
    >>> p = torch.nn.Parameter(torch.ones(3))
    >>> explain(optim.SGD([p], lr=0.1, momentum=0.9))
    SGD: 1 parameter, 3 elements
    <BLANKLINE>
    1 parameter, torch.float32, 3 elements
      momentum_buffer' = where(step == 1, g, momentum * momentum_buffer + (1 - dampening) * g)
      p'               = p - lr * momentum_buffer'
      states     momentum_buffer fp32
      memory     20 bytes per element: reads p, g, momentum_buffer; writes p, momentum_buffer
      arithmetic float32; what depends on options and step alone is computed in float64
      back end   cpu: a kernel for every operand

    >>> from thalweg import losses
    >>> x = torch.ones(3, requires_grad=True)
    >>> explain(losses.hinge_loss, x, torch.ones(3))
    hinge_loss: input float32 [3], target float32 [3]
      t1    = 1 - y * x
      value = maximum(t1, 0)
      d_x   = where(0 <= t1, -y, 0)
      operands   x is input, y is target (constant)
      memory     forward: 12 bytes per element: reads x, y; writes d_x
                 without gradients: 8 bytes per element: reads x, y
      arithmetic float32; the sum in float64
      back end   cpu: one kernel for value and derivatives
    """
    if has_rule(subject) or isinstance(subject, type) or not callable(subject):
        return explain_optimizer(subject, source)
    from thalweg.losses.explain import explain_loss  # loads what only losses need

    return explain_loss(subject, tensors, options, source)
