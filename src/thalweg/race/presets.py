"""What a race is asked for: ready-made settings, and one's own."""

from dataclasses import replace
from typing import Any

from thalweg.names import unknown
from thalweg.race.racers import RACERS
from thalweg.race.result import Settings
from thalweg.ranges import AT_LEAST_ONE, NON_NEGATIVE, POSITIVE, integer, number

EVERYONE = tuple(racer.name for racer in RACERS)

PRESETS = {
    "small": Settings(
        preset="small",
        tasks=("digits", "breast_cancer"),
        optimizers=EVERYONE,
        learning_rates=7,
        seeds=3,
        seed=0,
        length=0.5,
    ),
    "full": Settings(
        preset="full",
        tasks=("digits", "breast_cancer", "diabetes", "transformer", "embedding"),
        optimizers=EVERYONE,
        learning_rates=7,
        seeds=3,
        seed=0,
        length=1.0,
    ),
}


def settings(preset: str = "small", **overrides: Any) -> Settings:
    """A preset, changed where asked.

    Args:
        preset: a name of :data:`PRESETS`.
        overrides: attributes of :class:`Settings`; those that are None leave the preset's.

    Raises:
        ValueError: unknown preset, no task or optimizer, learning_rates or seeds below 1, seed
            below 0, length not above 0.
        TypeError: an unknown override, or one of another type.

    >>> settings("small", seeds=1, optimizers=["adam"]).optimizers
    ('adam',)
    """
    if preset not in PRESETS:
        raise unknown("race", "preset", preset, PRESETS)
    given = {name: value for name, value in overrides.items() if value is not None}
    for name in given:
        if name == "preset" or name not in Settings.__dataclass_fields__:
            known = [key for key in Settings.__dataclass_fields__ if key != "preset"]
            raise TypeError(str(unknown("race", "setting", name, known)))
    for name in ("tasks", "optimizers"):
        if name in given:
            given[name] = _specs(name, given[name])
    return checked(replace(PRESETS[preset], **given))


def checked(asked: Settings) -> Settings:
    """The settings as plain numbers, or the error that :func:`settings` describes."""
    numbers: dict[str, Any] = {}
    for name, allowed in (
        ("learning_rates", AT_LEAST_ONE),
        ("seeds", AT_LEAST_ONE),
        ("seed", NON_NEGATIVE),
    ):
        value = integer("race", name, getattr(asked, name), flags=False)
        numbers[name] = int(number("race", name, value, allowed))
    numbers["length"] = float(number("race", "length", asked.length, POSITIVE))
    for name in ("tasks", "optimizers"):
        _specs(name, getattr(asked, name))
    return replace(asked, **numbers)


def _specs(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not all(isinstance(spec, str) for spec in value):
        raise TypeError(f"race: {name} must be a list of strings, got {value!r}")
    if not (specs := tuple(value)):
        raise ValueError(f"race: {name} is empty; name at least one")
    return specs
