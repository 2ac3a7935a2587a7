"""Printed kernels: their text, which users' caches are named after, and what formats add to it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from tests.engine.formats.samples import STOCHASTIC, blockwise
from thalweg import optim
from thalweg.engine.backends.cpu.printer import SEEDS, print_stage
from thalweg.engine.formats import FORMATS, Format
from thalweg.rule import Rule, mean, norm, sqrt, where

FP64, FP32, BF16, FP16 = (
    FORMATS[d] for d in (torch.float64, torch.float32, torch.bfloat16, torch.float16)
)
OPTIONS: dict[str, dict[str, Any]] = {"SGD": {"momentum": 0.9}, "RMSprop": {"momentum": 0.9}}


def short_sum(p, g, s, h):
    return p - g / mean(g * g)


def long_sum(p, g, s, h):
    s.buf = 0.9 * s.buf + g
    x = sqrt(s.buf * s.buf + 1) * s.buf / (2 + s.buf * s.buf)
    return p - h.lr * x / norm(x) - where(h.lr > 0, g, p)


# Of the text without the rules' line numbers. A change here has every user compile anew: change the
# digests only for a printer (or a rule) that is meant to print something else.
DIGESTS: dict[str, tuple[str, ...]] = {
    "SGD": ("ec865f2b", "88181cc7", "0865173d", "98f3acc4"),
    "Adam": ("9fe546e4", "98028057", "db705ca9", "1177010d"),
    "AdamW": ("9fe546e4", "98028057", "db705ca9", "1177010d"),
    "Adamax": ("cd39bdb7", "fa47046c", "65fa14ce", "4fb7cf3e"),
    "NAdam": ("8c233798", "59b66c56", "35e0466f", "d43b6049"),
    "RAdam": ("4af0aa28", "4c536d18", "04f86ac2", "72803ecf"),
    "Adagrad": ("48f5cc57", "1dbc41a7", "01247e5a", "76d87665"),
    "Adadelta": ("93c9c574", "209ee444", "145b8ee6", "a051059d"),
    "RMSprop": ("dd9689f7", "7eb0b53b", "4544c179", "f8c0df4a"),
    "Rprop": ("8a3f73f2", "d433cea1", "11f35e2d", "4994722c"),
    "ASGD": ("3f111472", "d8f8a0e5", "e2720d30", "9934046b"),
    "short_sum": ("6e73d70e", "04aee6bf", "2aa3b802", "c63fecd3"),
    "long_sum": ("2335659f", "59662234", "9d979d74", "01d3c27a"),
}


def digest(rule: Rule, options: Mapping[str, Any], p: Format, g: Format, state: Format) -> str:
    program = rule.program(options, [9.0, *(1.0 for _ in rule.scalar_states)])
    formats = {"p": p, "g": g, **dict.fromkeys(program.states, state)}
    stages = range(len(program.stages))
    texts = [print_stage(program, k, formats, optional="g")[2] for k in stages]
    text = re.sub(r"  # \S+:\d+$", "", "".join(texts), flags=re.MULTILINE)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def digests(rule: Rule, options: Mapping[str, Any]) -> tuple[str, ...]:
    kinds = [(FP32,) * 3, (BF16,) * 3, (FP64,) * 3, (BF16, FP16, FP32)]
    return tuple(digest(rule, options, *kind) for kind in kinds)


def optimizers() -> dict[str, tuple[Rule, Mapping[str, Any]]]:
    found = {}
    for name in DIGESTS:
        cls = getattr(optim, name, None)
        if cls is not None:
            made = cls([torch.zeros(1)], lr=0.1, **OPTIONS.get(name, {}))
            found[name] = cls.rule, made.param_groups[0]
    return found


def test_kernels_are_printed_as_ever() -> None:
    rules = optimizers()
    for update in (short_sum, long_sum):
        rules[update.__name__] = Rule(update, {"buf": 0.0}), {"lr": 0.1}
    assert {name: digests(*rule) for name, rule in rules.items()} == DIGESTS


def adam() -> Any:
    return optim.Adam.rule.program(optim.Adam([torch.zeros(1)]).param_groups[0], [1.0])


def printed(**formats: Format) -> str:
    program = adam()
    formats = dict.fromkeys(program.operands, FP32) | formats
    return print_stage(program, 0, formats, optional="g")[2]


def test_plain_kernels_import_nothing_more_and_read_no_seeds() -> None:
    text = printed(exp_avg=BF16)
    assert text.startswith("def work(arguments):")
    assert f"a[{SEEDS}]" not in text


def test_only_operands_whose_format_draws_numbers_have_a_seed() -> None:
    text = printed(exp_avg=STOCHASTIC)
    assert f"seed_exp_avg = int64_pointer(a[{SEEDS}])[t]" in text
    assert "seed_p" not in text
    assert "seed_exp_avg_sq" not in text


def test_a_later_chunk_of_every_buffer_is_fetched_and_none_beyond_the_last() -> None:
    text = printed(exp_avg=blockwise(64), exp_avg_sq=BF16)
    fetched = re.findall(r"prefetch\(addresses\[(\d) \* tensors \+ later\] \+ .*, (\d+)\)", text)
    # p, g, the codes of exp_avg and their scale, exp_avg_sq: 64 elements of each.
    assert sorted(fetched) == [("0", "256"), ("1", "256"), ("2", "64"), ("3", "128"), ("4", "4")]
    (ahead,) = re.findall(r"ahead = (.*)", text)
    chunks = [eval(ahead, {"chunk": chunk, "chunk_count": 10}) for chunk in range(10)]
    assert chunks == [3, 4, 5, 6, 7, 8, 9, 7, 8, 9]
    assert "chunk_count = spans[span_count]\n" in text


def test_formats_import_what_they_use() -> None:
    first, second, *_ = printed(exp_avg=blockwise(64), p=STOCHASTIC).splitlines()
    assert first == ("from thalweg.engine.backends.cpu.compiler.kinds import int8, uint16, uint32")
    assert second == (
        "from thalweg.engine.backends.cpu.intrinsics import "
        "bits_of_float32, int8_pointer, larger_of"
    )


def test_a_block_that_crosses_partial_sums_is_refused() -> None:
    with pytest.raises(ValueError, match=r"format q8x96 stores 96 elements together; .* 4096"):
        printed(exp_avg=blockwise(96))
