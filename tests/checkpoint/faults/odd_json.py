"""JSON that no honest writer writes: keys twice, numbers out of all ranges, any depth."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any


class Raw(str):
    """Text that goes into JSON as it is."""


class Pairs(list[tuple[str, Any]]):
    """A JSON object as its pairs: keys may come twice."""


def parsed(text: str) -> Any:
    return json.loads(text, object_pairs_hook=Pairs)


def written(node: Any) -> str:
    if isinstance(node, Raw):
        return str(node)
    if isinstance(node, Pairs):
        return "{" + ",".join(f"{json.dumps(key)}:{written(item)}" for key, item in node) + "}"
    if isinstance(node, list):
        return "[" + ",".join(map(written, node)) + "]"
    return json.dumps(node)


def places(node: Any) -> Iterator[tuple[Any, int]]:
    """Where in a tree something stands: a list or pairs, and the number in it."""
    if isinstance(node, list):
        for number, item in enumerate(node):
            yield node, number
            yield from places(item[1] if isinstance(node, Pairs) else item)


def get(place: tuple[Any, int]) -> Any:
    held, number = place
    return held[number][1] if isinstance(held, Pairs) else held[number]


def put(place: tuple[Any, int], value: Any) -> None:
    held, number = place
    held[number] = (held[number][0], value) if isinstance(held, Pairs) else value


# --------------------------------------------------------------------------------- what is put in

NUMBERS = [
    *(0, 1, -1, 2, 3, 7, 255, 2**31, 2**32, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64),
    *(-(2**63), 10**30, 10**400, 0.5, -0.0, 1e308, True, False),
    *map(Raw, ("1e999", "-1e999", "NaN", "Infinity", "1" * 5000, "0.1e-9999", "01", "1.", "+1")),
]
WORDS = [
    *("", "$", "/", "..", "../../etc/passwd", "/etc/passwd", "C:\\NUL", "a\0b", "\x7f", "💥" * 9),
    *("\ud800", "\udfff\ud800", "x" * 300, "__metadata__", "__class__", "__reduce__", "state"),
    *("param_groups", "params", "model", "optimizer", "$tensor", "F32", "F64", "BF16", "BOOL"),
    *("F8_E4M3", "F8_E8M0", "C64", "F4", "U8", "f32", "nan", "-inf", "0x", "0xffg", "=", "AA=="),
    *("float32", "compiler", "_C", "nn.Module", "complex64", "cuda:99999999999", "cpu:-1"),
    *("meta", "cpu\0", "2026-01-01", "2026-01-01T00:00:00+00:00", "9999-99-99T00:00:00+99:99"),
]
TAGS = [
    *("$tensor", "$complex_tensor", "$array", "$tuple", "$size", "$dict", "$ordered", "$metadata"),
    *("$counter", "$set", "$int", "$float", "$complex", "$bytes", "$dtype", "$device", "$odd"),
]


def junk(draw: random.Random, names: list[str], depth: int = 0) -> Any:
    """Any JSON, and often forms that stand for something."""
    kind = draw.randrange(12 if depth < 3 else 5)
    if kind < 2:
        return draw.choice(NUMBERS)
    if kind < 4:
        return draw.choice([*WORDS, *names])
    if kind == 4:
        return draw.choice([None, [], Pairs(), [[]], [None] * 4])
    few = range(draw.randrange(4))
    if kind == 5:
        return [junk(draw, names, depth + 1) for _ in few]
    if kind == 6:
        keys = [draw.choice([*WORDS, *TAGS, *names]) for _ in few]
        return Pairs((key, junk(draw, names, depth + 1)) for key in keys)
    if kind == 7:
        levels = draw.choice([3, 64, 130, 135, 1000, 100_000])
        begin, end = draw.choice([("[", "]"), ('{"a":', "}"), ('{"$tuple":[', "]}")])
        return Raw(begin * levels + "0" + end * levels)
    if kind == 8:
        pairs = [[junk(draw, names, depth + 1), junk(draw, names, depth + 1)] for _ in few]
        return Pairs([(draw.choice(["$dict", "$counter"]), pairs)])
    if kind == 9:
        return Pairs([(draw.choice(["$tensor", "$complex_tensor"]), draw.choice([*names, "no"]))])
    return Pairs([(draw.choice(TAGS), junk(draw, names, depth + 1))])
