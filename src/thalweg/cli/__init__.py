"""The command line: ``thalweg race``, ``thalweg explain``, ``thalweg config``."""

import sys

EXTRA = ("typer", "rich", "sklearn")


def main() -> None:
    """Run the command line; without its extra, say in one sentence what to install."""
    try:
        from thalweg.cli.app import app
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRA:
            raise
        sys.exit(f'thalweg: {package} is missing; run: pip install "thalweg[race]"')
    app(prog_name="thalweg")
