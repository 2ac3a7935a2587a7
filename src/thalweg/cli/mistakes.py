"""What goes wrong by the user's making is a message and an exit code, never a traceback."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from thalweg.cli import INTERRUPTED
from thalweg.cli.printing import notice

OUTSIDE, ARGUMENTS = 1, 2  # exit codes
UsageError: Any = typer.BadParameter.__mro__[1]  # typer brings its own copy of click

# Messages to a user begin with what they are about: "race: unknown task 'digit'".
_ADDRESSED = re.compile(r"[\w.+-]+: ")


class Commands(TyperGroup):
    """All commands. Whatever one of them raises passes through here."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Read what stands before the command's name."""
        with _messages():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        with _messages():
            return super().invoke(ctx)


@contextmanager
def _messages() -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            raise  # it prints the help
        path = error.ctx.command_path if error.ctx else "thalweg"
        _say(f"{error.format_message()}\nTry '{path} --help'.", ARGUMENTS)
    except KeyboardInterrupt:
        _say("interrupted", INTERRUPTED)
    except BrokenPipeError:
        raise  # the reader of the output has gone; not worth a message
    except OSError as error:
        _say(str(error), OUTSIDE)
    except ImportError as error:
        if "pip install" not in str(error):
            raise
        _say(str(error), OUTSIDE)
    except (ValueError, TypeError) as error:
        if not _ADDRESSED.match(str(error)):
            raise  # nobody's message: a bug, of ours or in the user's code
        _say(str(error), ARGUMENTS)


def _say(message: str, code: int) -> NoReturn:
    notice(message)
    raise typer.Exit(code) from None
