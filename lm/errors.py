"""Errors a user can act on. The command line prints their one line and no traceback."""


class UserError(Exception):
    """What is wrong, where, and what to do, in one line."""
