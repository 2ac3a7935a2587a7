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
    "SGD": ("f97020e2", "a0d90564", "0022b244", "2f3a2469"),
    "Adam": ("db9fce3a", "5811f885", "963c6d8e", "12e82520"),
    "AdamW": ("d098ebe1", "99ae29fd", "38d9e285", "e8161183"),
    "Adamax": ("bde828d3", "c004fb8a", "a0fac8c0", "8cab8aa9"),
    "NAdam": ("8487df76", "e74d6df0", "f7e6815e", "e737e834"),
    "RAdam": ("e7353126", "56d36c3c", "29a0dafe", "522995b2"),
    "Adagrad": ("3675bc73", "a1f10e85", "743b98d4", "be0074c3"),
    "Adadelta": ("2d0b233a", "5bbe8a93", "74548529", "da01afa6"),
    "RMSprop": ("4af4e493", "2104c91c", "404b9262", "746b4f25"),
    "Rprop": ("ba68e0ef", "d0c65ac9", "c6873af6", "96033bd7"),
    "ASGD": ("677031f3", "f5167172", "41f80e5d", "5969cb2d"),
    "short_sum": ("76bf7a77", "d09d0f77", "444b474e", "8825860e"),
    "long_sum": ("bfd5e6f6", "3f72f5e2", "7205d5a2", "ea341b67"),
}


def digest(rule: Rule, options: Mapping[str, Any], p: Format, g: Format, state: Format) -> str:
    program = rule.program(options, [9.0, *(1.0 for _ in rule.scalar_states)])
    formats = {"p": p, "g": g, **dict.fromkeys(program.states, state)}
    texts = [print_stage(program, k, formats)[2] for k in range(len(program.stages))]
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
    return print_stage(program, 0, dict.fromkeys(program.operands, FP32) | formats)[2]


def test_plain_kernels_import_nothing_more_and_read_no_seeds() -> None:
    text = printed(exp_avg=BF16)
    assert text.startswith("def work(arguments):")
    assert f"a[{SEEDS}]" not in text


def test_only_operands_whose_format_draws_numbers_have_a_seed() -> None:
    text = printed(exp_avg=STOCHASTIC)
    assert f"seed_exp_avg = int64_pointer(a[{SEEDS}])[t]" in text
    assert "seed_p" not in text
    assert "seed_exp_avg_sq" not in text


def test_formats_import_what_they_use() -> None:
    first, second, *_ = printed(exp_avg=blockwise(64), p=STOCHASTIC).splitlines()
    assert first == "from numba import int8, uint16, uint32"
    assert second == (
        "from thalweg.engine.backends.cpu.intrinsics import "
        "bits_of_float32, int8_pointer, larger_of"
    )


def test_a_block_that_crosses_partial_sums_is_refused() -> None:
    with pytest.raises(ValueError, match=r"format q8x96 stores 96 elements together; .* 4096"):
        printed(exp_avg=blockwise(96))
