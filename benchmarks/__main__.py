"""``python -m benchmarks``: all tables; ``--help`` for a part of them."""

import argparse
import json
import platform
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

import thalweg
from benchmarks import averages, checkpoints, ctc, lbfgs, losses, row_losses, tail
from benchmarks.startup import startup
from benchmarks.steps import OPTIMIZERS, SHAPES, Row, measure


def main() -> None:
    """Measure and print; ``--out`` keeps the figures as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=main.__doc__)
    names = [name for name, _, _ in OPTIMIZERS]
    parser.add_argument("--optimizers", nargs="*", choices=names, metavar="NAME")
    parser.add_argument("--cases", nargs="*", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=0, help="0: as many as the case deserves")
    parser.add_argument("--steps-only", action="store_true", help="leave all but the steps out")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    options = parser.parse_args()
    console = Console(width=100)
    machine = {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "thalweg": thalweg.__version__,
    }
    console.print(", ".join(f"{key} {value}" for key, value in machine.items()))
    results: dict[str, object] = {"machine": machine}
    for case in options.cases:
        rounds = options.rounds or (7 if "GPT" in case else 15 if "16 M" in case else 21)
        rows = list(measure(case, rounds, options.optimizers))
        results[case] = [asdict(row) for row in rows]
        console.print(_table(case, rows))
    if not options.steps_only:
        results["startup"] = seconds_of = startup(rounds=3)
        for what, seconds in seconds_of.items():
            console.print(f"{what}: {seconds:.2f} s")
        results["lbfgs"] = lbfgs.main()
        results["averages"] = averages.main()
        results["tail"] = tail.main()
        results["losses"] = losses.main()
        results["row losses"] = row_losses.main()
        results["ctc"] = ctc.main()
        results["checkpoints"] = checkpoints.main()
    if options.out:
        options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def _table(case: str, rows: list[Row]) -> Table:
    table = Table(title=f"{case}: milliseconds a step (fp32)", title_justify="left")
    table.add_column("optimizer")
    for heading in ("thalweg", "torch's best", "torch / thalweg", "at least", "memory limit"):
        table.add_column(heading, justify="right")
    table.add_column("share of limit", justify="right")
    for row in rows:
        table.add_row(
            row.optimizer,
            f"{row.ours:.3f}",
            f"{row.torch:.3f} ({row.torch_mode})",
            f"{row.ratio:.2f}",
            f"{row.wanted:g}" if row.reached else f"{row.wanted:g} (missed)",
            f"{row.limit:.3f}",
            f"{row.share:.2f}",
        )
    return table


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(models)} x {models[0]}" if models else platform.processor()


if __name__ == "__main__":
    main()
