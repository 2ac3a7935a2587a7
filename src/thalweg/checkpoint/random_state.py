"""The states of the generators of random numbers that programs share."""

import random
import warnings
from typing import Any

import numpy as np
import torch


def capture() -> dict[str, Any]:
    """The states of Python's ``random``, NumPy's global generator, and torch's.

    torch's of the CPU, and of the CUDA devices where CUDA is in use.
    """
    version, numbers, gauss = random.getstate()
    cuda: Any = torch.cuda
    return {
        "python": {"version": version, "state": np.array(numbers, np.uint32), "gauss": gauss},
        "numpy": np.random.get_state(legacy=False),
        "torch": torch.get_rng_state(),
        "cuda": cuda.get_rng_state_all() if cuda.is_initialized() else [],
    }


class RandomState:
    """States that were checked, and only wait to be taken over.

    Args:
        saved: as :func:`capture` gives them.

    Raises:
        ValueError: they are none, or not of the generators that are in use here.
    """

    def __init__(self, saved: Any) -> None:
        try:
            if not isinstance(saved, dict) or not isinstance(saved["python"], dict):
                raise TypeError(f"got {type(saved).__name__}")
            python = saved["python"]
            self._python = (
                python["version"], tuple(map(int, python["state"])), python["gauss"],
            )  # fmt: skip
            self._numpy, self._torch, self._cuda = saved["numpy"], saved["torch"], saved["cuda"]
            # On generators that nobody uses.
            random.Random().setstate(self._python)
            bits: Any = type(np.random.get_bit_generator())  # type: ignore[attr-defined]
            np.random.RandomState(bits()).set_state(self._numpy)
            _check_places(self._numpy)
            torch.Generator().set_state(self._torch)
            if not isinstance(self._cuda, (list, tuple)):
                raise TypeError(f"cuda must be a list, got {type(self._cuda).__name__}")
            here = torch.cuda.device_count()
            for i, state in zip(range(here), self._cuda, strict=False):
                torch.Generator(f"cuda:{i}").set_state(state)
        except (TypeError, ValueError, KeyError, IndexError, OverflowError, RuntimeError) as error:
            raise ValueError(
                f"the states of the random generators do not fit ({error}); pass rng=False to "
                "leave the generators as they are"
            ) from error
        if len(self._cuda) > here:
            warnings.warn(
                f"checkpoint: it holds the states of {len(self._cuda)} CUDA generators, here are "
                f"{here} devices: the last ones are left out",
                UserWarning,
                stacklevel=4,
            )
            self._cuda = self._cuda[:here]

    def commit(self) -> None:
        """Take them over."""
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        torch.set_rng_state(self._torch)
        for i, state in enumerate(self._cuda):
            torch.cuda.set_rng_state(state, i)


def _check_places(state: Any) -> None:
    """Raise ValueError where a state would have NumPy, which looks at none, read other memory."""
    for owner, key, last in ((state["state"], "pos", 624), (state, "buffer_pos", 4)):
        if key in owner and not 0 <= owner[key] <= last:
            raise ValueError(f"{key} must be from 0 to {last}, got {owner[key]!r:.80}")
