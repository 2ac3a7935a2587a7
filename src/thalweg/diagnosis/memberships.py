"""Which parameters are in which group."""

from collections import Counter
from collections.abc import Iterator

from thalweg.diagnosis.finding import Finding, parameters, some
from thalweg.diagnosis.setup import Setup


def left_out(setup: Setup) -> Iterator[Finding]:
    """Trainable parameters that no group holds."""
    trainable = [found for found in setup.parameters if found.parameter.requires_grad]
    out = [found.name for found in trainable if id(found.parameter) not in setup.group_of]
    if out:
        yield Finding(
            "left_out",
            f"no group holds {len(out)} of {len(trainable)} trainable parameters {some(out)}: they "
            "are never updated; add them, or set requires_grad=False",
        )


def repeated(setup: Setup) -> Iterator[Finding]:
    """Parameters that the groups hold more than once."""
    counts = Counter(id(p) for p, _ in setup.held())
    held = {id(p): p for p, _ in setup.held()}
    twice = [setup.name_of(p) for key, p in held.items() if counts[key] > 1]
    if twice:
        yield Finding(
            "repeated",
            f"the groups hold {parameters(len(twice))} more than once {some(twice)}: some "
            "optimizers update these several times a step; leave each in one place",
        )


def strangers(setup: Setup) -> Iterator[Finding]:
    """Parameters of the optimizer that the model does not have."""
    unknown = [p for p, _ in setup.held() if id(p) not in setup.names]
    if unknown:
        yield Finding(
            "strangers",
            f"the optimizer holds {parameters(len(unknown))} that the model does not: it was made "
            "before the model was copied, replaced or changed; make it after that, or say which "
            "other model they are of",
        )


def frozen(setup: Setup) -> Iterator[Finding]:
    """Parameters in groups that are never given a gradient."""
    names = [setup.name_of(p) for p, _ in setup.held() if not p.requires_grad]
    if names:
        yield Finding(
            "frozen",
            f"the groups hold {parameters(len(names))} without requires_grad {some(names)}: these "
            "are not trained until it is set",
            wrong=False,
        )


CHECKS = (left_out, repeated, strangers, frozen)
