"""Steps under ``make_fx``, which records operations and sees no kernel."""

from collections.abc import Sequence
from typing import Any

from thalweg.engine.torch_internals import is_fake
from thalweg.engine.torch_internals.modes import make_fx_records


def check_recording(owner: str, groups: Sequence[dict[str, Any]]) -> None:
    """Raise where ``make_fx`` would leave a step out of its graph.

    Args:
        owner: the optimizer's name.
        groups: its groups.

    Raises:
        RuntimeError: parameters with memory while operations are recorded: a kernel would update
            them without a trace, and operations would keep this step's numbers for all later ones.
    """
    if not make_fx_records():
        return
    if not all(is_fake(p) for group in groups for p in group["params"]):
        raise RuntimeError(
            f"{owner}: make_fx cannot record a step of parameters that have memory; swap fake ones "
            "in with torch.optim.swap_in_optimizer_params_and_state, or step outside of it"
        )
