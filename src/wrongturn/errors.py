"""The one exception meant for the user's eyes."""


class WrongturnError(Exception):
    """A problem of the user's input or surroundings: one line that names what, where, and what was expected.

    The command line prints it and exits with status 2; anything else that escapes is a bug.
    """
