"""The command line: ``thalweg --help`` tells what it can do."""

import sys

EXTRA = ("typer", "rich")
INTERRUPTED = 130  # as shells have it: 128 and the number of the signal


def main() -> None:
    """Run the command line; without its extra, say in one sentence what to install."""
    try:
        from thalweg.cli.app import app
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRA:
            raise
        sys.exit(f'thalweg: {package} is missing; run: pip install "thalweg[race]"')
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    app(prog_name="thalweg")
