"""A module's state dict: checked against the module before anything is copied into it."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch import __future__ as future
from torch.nn.modules.batchnorm import _NormBase

from thalweg.engine.copying import copy_values, deep_copy
from thalweg.engine.modes import with_gradients
from thalweg.engine.readable import is_plain, overlaps, unreadable
from thalweg.names import printable, repeated
from thalweg.optim.state_dict import LoadReport, Misshaped, Pending, Rename
from thalweg.optim.state_dict.loading import hint
from thalweg.optim.state_dict.matching import renamed

_COUNT = "num_batches_tracked"  # which BatchNorm did not have in its first version


def prepare_module(
    module: nn.Module, saved: Any, strict: bool = True, rename: Rename | None = None
) -> Pending:
    """Check a module's state dict; nothing of the module changes yet.

    A module that takes part in its loading itself (an own ``_load_from_state_dict``, hooks, extra
    state) may know entries under other names: what it says counts, and if it refuses, it is put
    back from a copy.

    Args:
        module: takes the state dict over.
        saved: the state dict; tensors are copied when it is taken over.
        strict: raise where something does not fit; False: take what fits.
        rename: from names in the state dict to names here.

    Raises:
        TypeError: it is none.
        ValueError: two entries get the same name from ``rename``.
        RuntimeError: it does not fit, with all that does not.
    """
    name = type(module).__name__
    if not isinstance(saved, Mapping) or not all(isinstance(key, str) for key in saved):
        raise TypeError(f"{name}: a state dict must be a dict of names, got {type(saved).__name__}")
    data = _renamed(module, saved, rename)
    if _takes_part(module):
        return _tried(module, data, strict)
    report = _compare(module, data)
    if report.other or (strict and not report.complete):
        lines = "".join(f"\n  {printable(line)}" for line in report.misfits)
        remedy = "" if report.other else hint(report)
        raise RuntimeError(f"{name}: the state dict does not fit:{lines}{remedy}")
    own = module.state_dict()
    pairs = [(own[key], _ready(data[key], own[key])) for key in report.loaded]
    # All that torch does for a module that takes no part itself.
    return Pending(lambda: copy_values(pairs), report=report)


def _renamed(
    module: nn.Module, saved: Mapping[str, Any], rename: Rename | None
) -> "OrderedDict[str, Any]":
    """A copy of the state dict, under new names, with the versions of the layers."""
    versions = dict(getattr(saved, "_metadata", {}))
    for each in versions.values():
        if not isinstance(each, Mapping) or type(each.get("version", 1)) not in (int, type(None)):
            raise ValueError(
                f"{type(module).__name__}: the versions of the state dict's layers must be dicts "
                f"with a number, got {each!r:.80}"
            )
    names = renamed(type(module).__name__, list(saved), rename)
    if rename is not None:
        # Layers under other names: of the versions of today.
        own = {prefix: {"version": each._version} for prefix, each in module.named_modules()}
        versions = own | versions
    if twice := repeated(names):
        raise ValueError(
            f"{type(module).__name__}: rename gives several entries the name {', '.join(twice)}; "
            "give each its own"
        )
    data = OrderedDict(zip(names, saved.values(), strict=True))
    data._metadata = versions  # type: ignore[attr-defined]
    return data


def _takes_part(module: nn.Module) -> bool:
    """Whether loading runs code that is not torch's own, or copying may fail for other reasons."""
    return (
        not _is_torchs(type(module), "load_state_dict")
        or future.get_swap_module_params_on_conversion()
        or any(
            each._load_state_dict_pre_hooks
            or each._load_state_dict_post_hooks
            or type(each).set_extra_state is not nn.Module.set_extra_state
            or not _is_torchs(type(each), "_load_from_state_dict")
            for each in module.modules()
        )
        or any(not _is_plain(t) for t in module.state_dict().values())
    )


def _is_torchs(cls: type, method: str) -> bool:
    owner = next(each for each in cls.__mro__ if method in vars(each))
    return owner.__module__.startswith("torch.nn.")


def _is_plain(tensor: Any) -> bool:
    return (
        type(tensor) in (Tensor, nn.Parameter)
        and tensor.layout is torch.strided
        and not tensor.is_inference()
        and not overlaps(tensor)
    )


def _compare(module: nn.Module, data: Mapping[str, Any]) -> LoadReport:
    """What fits of a state dict, for a module that torch loads by its names alone."""
    own: dict[str, Tensor] = module.state_dict()
    loaded, misshaped, other = [], [], []
    for key in (key for key in own if key in data):
        value, target = data[key], own[key]
        if not isinstance(value, Tensor):
            other.append(f"{key}: must be a tensor, got {type(value).__name__}")
        elif target.is_meta:
            other.append(f"{key}: is on the meta device here; give it memory first, to_empty()")
        elif (problem := _unfit(value)) is not None:
            other.append(f"{key}: {problem} in it")
        elif not torch.can_cast(value.dtype, target.dtype):
            other.append(f"{key}: is {value.dtype} in it, {target.dtype} here")
        elif value.shape != target.shape and (value.shape, target.ndim) != ((1,), 0):
            misshaped.append(Misshaped(key, "", tuple(value.shape), tuple(target.shape)))
        else:
            loaded.append(key)
    optional = set(_counts(module, data))
    return LoadReport(
        loaded=tuple(key for key in own if key in set(loaded)),
        missing=tuple(key for key in own if key not in data and key not in optional),
        unexpected=tuple(key for key in data if key not in own),
        misshaped=tuple(misshaped),
        other=tuple(other),
    )


def _unfit(value: Tensor) -> str | None:
    if (problem := unreadable(value)) is not None:
        return problem
    if value.is_quantized:
        return "is quantized"
    return None if value.layout is torch.strided else f"is of layout {value.layout}"


def _ready(value: Tensor, target: Tensor) -> Tensor:
    """What copying into the target cannot fail with; a copy where that is not sure."""
    found = value.detach().reshape(target.shape)
    if is_plain(found) and (found.device == target.device or found.dtype is target.dtype):
        return found
    return torch.empty_like(target).copy_(found)


def _counts(module: nn.Module, data: Mapping[str, Any]) -> list[str]:
    """The entries that torch adds to state dicts of its early versions."""
    versions = getattr(data, "_metadata", {})
    return [
        f"{prefix}.{_COUNT}".lstrip(".")
        for prefix, each in module.named_modules()
        if isinstance(each, _NormBase)
        and (versions.get(prefix, {}).get("version") or 1) < 2
        and f"{prefix}.running_mean".lstrip(".") in data
    ]


def _tried(module: nn.Module, data: "OrderedDict[str, Any]", strict: bool) -> Pending:
    """For a module whose own code decides: it is asked to load, and put back if it refuses."""
    for key, value in data.items():
        if not isinstance(value, Tensor):
            data[key] = deep_copy(value)  # extra state may be kept

    def commit() -> LoadReport:
        missing, unexpected = module.load_state_dict(data, strict=strict)
        return LoadReport(
            loaded=tuple(key for key in data if key not in unexpected),
            missing=tuple(missing),
            unexpected=tuple(unexpected),
        )

    return Pending(commit, _memory(module))


def _memory(module: nn.Module) -> Callable[[], None]:
    """A copy of a module's tensors, attributes and extra states; call it to put them back."""
    modules = [(each, dict(vars(each)), _tables(each), _extra(each)) for each in module.modules()]
    tensors = {id(t): t for t in (*module.parameters(), *module.buffers())}.values()
    values = [(t, t.data, t.detach().clone()) for t in tensors]

    @with_gradients(False)
    def restore() -> None:
        for each, attributes, tables, _ in modules:
            vars(each).clear()
            vars(each).update(attributes)
            for table, entries in tables:
                table.clear()
                table.update(entries)
        for tensor, memory, value in values:
            tensor.data = memory  # which an own method may have replaced
            tensor.copy_(value)
        for each, _, _, extra in modules:
            if extra is not None:
                each.set_extra_state(extra[0])

    return restore


def _tables(module: nn.Module) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    held = (module._parameters, module._buffers, module._modules)
    return [(table, dict(table)) for table in held]


def _extra(module: nn.Module) -> tuple[Any] | None:
    if type(module).set_extra_state is nn.Module.set_extra_state:
        return None
    return (deepcopy(module.get_extra_state()),)
