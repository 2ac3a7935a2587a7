"""``thalweg list``."""

import textwrap
from typing import Annotated

import typer

from thalweg.cli.printing import print_json, say
from thalweg.optim import catalogue
from thalweg.optim.catalogue import Described

WIDTH, INDENT = 96, "            "


def list_(
    name: Annotated[
        str | None, typer.Argument(help="One optimizer, in any case (default: all).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the optimizers: formula, states, memory, source.

    In the formulas a prime marks the value after the step, p is the parameter and g its gradient.
    The formulas are those of the options' defaults.

    [bold]Examples[/bold]

    \b
      thalweg list
      thalweg list adamw
      thalweg list --json
    """
    if name is not None:
        found = catalogue.describe(catalogue.find(name))
        if as_json:
            print_json(found.to_dict())
        else:
            say(one(found))
        return
    everything = catalogue.catalogue()
    if as_json:
        print_json([found.to_dict() for found in everything])
    else:
        say("\n\n".join(one(found) for found in everything))


def one(found: Described) -> str:
    """One optimizer as text."""
    title = found.summary.removeprefix(f"{found.name}: ")
    lines = [found.name, f"  {title}"]
    width = max(len(name) for name, _ in found.update)
    for name, formula in found.update:
        head = f"    {name:<{width}} = " if name else "    "
        lines += textwrap.wrap(
            formula,
            WIDTH,
            initial_indent=head,
            subsequent_indent=" " * (len(head) + 2),
            break_long_words=False,
        )
    states = ", ".join((*found.states, *(f"{name} (a number)" for name in found.numbers)))
    others = f"; with other options {', '.join(found.other_states)}" if found.other_states else ""
    defaults = ", ".join(f"{key}={value!r}" for key, value in found.defaults.items())
    for label, text in (
        ("states", (states or "none") + others),
        ("memory", f"{found.bytes_per_parameter} bytes per float32 parameter"),
        ("gradients", found.gradients),
        ("defaults", defaults),
        ("source", found.source),
    ):
        lines += textwrap.wrap(
            text,
            WIDTH,
            initial_indent=f"  {label:<{len(INDENT) - 2}}",
            subsequent_indent=INDENT,
            break_long_words=False,
        )
    return "\n".join(lines)
