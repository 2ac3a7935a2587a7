"""The samples and the wrong inputs with which torch tests its own losses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import module_db

from thalweg import losses

FUNCTIONS = {
    op.name.removeprefix("nn.functional."): op
    for op in op_db
    if op.name.startswith("nn.functional.") and op.name.split(".")[-1] in losses.__all__
}
MODULES = {
    info.module_cls.__name__: info
    for info in module_db
    if info.module_cls.__name__ in losses.__all__
}
DTYPES = [torch.float64, torch.float32]


def doubled(value: Any) -> Any:
    is_real = isinstance(value, torch.Tensor) and value.is_floating_point()
    return value.detach().double().requires_grad_(value.requires_grad) if is_real else value


def leaves(*values: Any) -> list[torch.Tensor]:
    return [x for x in values if isinstance(x, torch.Tensor) and x.requires_grad]


def gradients(value: torch.Tensor, of: list[torch.Tensor]) -> list[torch.Tensor]:
    """Zeros stand for none: of a target that only decides, torch has none."""
    found = torch.autograd.grad(value.sum(), of, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, of, strict=True)]


def test_every_loss_that_torch_has_samples_of_is_met() -> None:
    assert len(FUNCTIONS) >= 20
    assert {"ctc_loss", "cross_entropy", "gaussian_nll_loss", "kl_div"} <= set(FUNCTIONS)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of both, on what is meant otherwise
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_samples(name: str, dtype: torch.dtype) -> None:
    """Values and gradients, against torch's in float64."""
    op, function = FUNCTIONS[name], getattr(losses, name)
    close = {"rtol": 1e-7, "atol": 1e-9} if dtype is torch.float64 else {"rtol": 2e-4, "atol": 5e-5}
    count = 0
    for sample in op.sample_inputs("cpu", dtype, requires_grad=True):
        given = [sample.input, *sample.args]
        wide = [doubled(x) for x in given]
        options = {k: doubled(v) for k, v in sample.kwargs.items()}
        found, wanted = function(*given, **sample.kwargs), op.op(*wide, **options)
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), wanted, equal_nan=True, **close)
        pairs = zip(gradients(found, leaves(*given)), gradients(wanted, leaves(*wide)), strict=True)
        for ours, torchs in pairs:
            torch.testing.assert_close(ours.double(), torchs, equal_nan=True, **close)
        count += 1
    assert count > 0


@pytest.mark.whole
@pytest.mark.parametrize("name", [n for n, op in FUNCTIONS.items() if op.error_inputs_func])
def test_wrong_inputs(name: str) -> None:
    for wrong in FUNCTIONS[name].error_inputs("cpu"):
        sample = wrong.sample_input
        with pytest.raises(wrong.error_type):
            getattr(losses, name)(sample.input, *sample.args, **sample.kwargs)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", list(MODULES))
def test_samples_of_modules(name: str) -> None:
    info, count = MODULES[name], 0
    for sample in info.module_inputs_func(
        info, device="cpu", dtype=torch.float64, requires_grad=True, training=True
    ):
        made, given = sample.constructor_input, sample.forward_input
        values = []
        for cls in (info.module_cls, getattr(losses, name)):
            torch.manual_seed(0)  # some have parameters
            values.append(cls(*made.args, **made.kwargs)(*given.args, **given.kwargs))
        torch.testing.assert_close(values[1], values[0], equal_nan=True)
        count += 1
    assert count > 0


@pytest.mark.whole
@pytest.mark.parametrize("name", [n for n, m in MODULES.items() if m.module_error_inputs_func])
def test_wrong_inputs_of_modules(name: str) -> None:
    info = MODULES[name]
    for wrong in info.module_error_inputs_func(
        info, device="cpu", dtype=torch.float32, requires_grad=False, training=True
    ):
        both = wrong.module_error_input
        made, given = both.constructor_input, both.forward_input
        with pytest.raises(wrong.error_type):
            getattr(losses, name)(*made.args, **made.kwargs)(*given.args, **given.kwargs)
