"""The errors a user can cause, as against the errors of the program."""

from __future__ import annotations


class UserError(ValueError):
    """Something the user wrote, named or asked for is wrong; the message is the whole explanation.

    The command line prints the message alone, without a traceback, and exits with status 1.
    """
