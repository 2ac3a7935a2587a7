"""The modes of a thread: set, and asked."""

import contextlib
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch

from thalweg.engine.torch_internals.parts import part
from thalweg.engine.torch_internals.tensors import key_sets

# In C, so that nothing that a signal handler raises comes between; else Python's, which sets at
# once as well.
set_gradients: Callable[[bool], Any] = part("_C._set_grad_enabled") or part("set_grad_enabled")

# ``guard.__enter__()`` begins, ``guard.__exit__(None, None, None)`` ends.
inference: Callable[[bool], AbstractContextManager[Any]] = part("_C._InferenceMode") or part(
    "inference_mode"
)

# Ends when it is freed: what a function makes meanwhile is an ordinary tensor.
without_dispatch_modes: Callable[[], object] = part("_C._DisableTorchDispatch") or object


def _yes() -> bool:
    return True


# Whether it may be on for some device: quicker than asking for one by name.
autocast_is_on: Callable[[], bool] = part("_C._is_any_autocast_enabled") or _yes


def _watched_by_functions() -> Callable[[], bool]:
    transforms = part("_C._are_functorch_transforms_active")
    dispatch_modes, tracing = part("_C._len_torch_dispatch_stack"), part("jit.is_tracing")
    if transforms is None or dispatch_modes is None:
        return _yes  # then operations compute, whoever watches
    return lambda: transforms() or dispatch_modes() > 0 or tracing()


def _watched() -> Callable[[], bool]:
    included = part("_C._dispatch_tls_local_include_set")
    # What every thread has; the tracer, dispatch modes, ``torch.func`` and batched gradients add
    # more.
    always = key_sets(("BackendSelect", "ADInplaceOrView"))
    if included is None or always is None:
        return _watched_by_functions()
    others = ~always[0]
    return lambda: bool(included().raw_repr() & others)


# Whether operations are traced or transformed; ``torch.compile`` apart.
operations_are_watched: Callable[[], bool] = _watched()


def computes_tangents() -> bool:
    """Whether forward-mode derivatives are computed; torch refuses them where that is not told."""
    return getattr(torch.autograd.forward_ad, "_current_level", -1) >= 0


def make_fx_records() -> bool:
    """Whether ``make_fx`` records operations."""
    module = sys.modules.get("torch.fx.experimental.proxy_tensor")
    mode = getattr(module, "get_proxy_mode", None)
    return mode is not None and mode() is not None


def keeping_versions(tensors: Iterable[torch.Tensor]) -> AbstractContextManager[Any]:
    """At its end the tensors' version counters are as now; without torch's part, as written."""
    keep = part("autograd._unsafe_preserve_version_counter")
    return contextlib.nullcontext() if keep is None else keep(tuple(tensors))


# Whether torch's profiler runs.
profiled: Callable[[], bool] = part("autograd._profiler_enabled") or _yes


def storage_references(storage: torch.UntypedStorage) -> int | None:
    """How many refer to a storage's memory; None where that is not known."""
    count = part("_C._storage_Use_Count")
    return None if count is None else count(storage._cdata)
