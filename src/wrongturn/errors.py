"""The exceptions meant for the user's eyes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class WrongturnError(Exception):
    """A problem of the user's input or surroundings: one line that names what, where, and what was expected.

    The command line prints it and exits with status 2; anything else that escapes is a bug.
    """


class EngineError(WrongturnError):
    """A request that failed for good, after the engine's own retries. ``reason`` says why in a word or two, to count.

    A ``fatal`` one would meet every request (a wrong key, an unknown model, something the engine cannot do): the
    collection stops. Any other is recorded with the run, and tried again when it is resumed.
    """

    def __init__(self, message: str, reason: str = "refused", *, fatal: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.fatal = fatal


@contextmanager
def extra(name: str, what: str) -> Iterator[None]:
    """Say which extra of the package ``what`` needs, where a library that is imported inside is not there."""
    try:
        yield
    except ModuleNotFoundError as missing:
        raise WrongturnError(f"{what} needs {missing.name}: pip install 'wrongturn[{name}]'") from None
