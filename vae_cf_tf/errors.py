"""The one exception that a command turns into a single line and exit status 2."""


class UserError(Exception):
    """A mistake of the user's, told in one line: what is wrong, what was received, what to do."""
