"""Errors that are the user's to mend: shown as one message, without a traceback (see cli.main)."""


class UserError(Exception):
    """Something outside the code is wrong; the message says what was expected and what to do."""

    exit_code = 1


class DataError(UserError):
    """MNIST is missing, damaged or not MNIST."""


class CheckpointError(UserError):
    """A run or a checkpoint is missing, damaged, or of another kind."""


class UsageError(UserError):
    """A command-line argument makes no sense."""

    exit_code = 2
