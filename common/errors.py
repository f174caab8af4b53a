"""Errors that are the user's to mend, shown as one message without a traceback (see cli.main); how things are said."""

from contextlib import suppress


class UserError(Exception):
    """Something outside the code is wrong; the message says what was expected and what to do."""

    exit_code = 1


class DataError(UserError):
    """MNIST is missing, damaged or not MNIST."""


class CheckpointError(UserError):
    """A run, a checkpoint or a result is missing, damaged, or of another kind."""


class UsageError(UserError):
    """A command-line argument makes no sense."""

    exit_code = 2


def say(text: str) -> None:
    """Print, without the letters that a console lacks; if nobody reads (a closed pipe) go on: it never ends a run."""
    with suppress(OSError, ValueError):
        try:
            print(text, flush=True)
        except UnicodeEncodeError:
            print(text.encode("ascii", "replace").decode(), flush=True)
