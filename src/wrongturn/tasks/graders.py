"""Whether an answer is right: a grader takes the reference and the answer, and says True, False or, undecided, None."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from wrongturn.tasks import quantity

Grader = Callable[[str, str], bool | None]


def exact(reference: str, answer: str) -> bool:
    """The same text but for case, blanks, Unicode form, and quotes, dollars or a full stop around it. Symmetric."""
    return _folded(reference) == _folded(answer)


def numeric(reference: str, answer: str) -> bool | None:
    """The same number, as :meth:`~wrongturn.tasks.quantity.Quantity.equals` says; None where the reference is none."""
    wanted, given = quantity.parse(reference), quantity.parse(answer)
    if wanted is None:
        return None
    return given is not None and wanted.equals(given)


def choice(reference: str, answer: str) -> bool | None:
    """The same letter (A to J) in either case, brackets or not; None where the reference is none. Symmetric."""
    wanted = letter(reference)
    return None if wanted is None else wanted == letter(answer)


def letter(text: str) -> str | None:
    """``"(b)"`` -> ``"B"``; None for anything but one letter from A to J, the ones choices have."""
    match = re.fullmatch(r"[\W_]*([A-Ja-j])[\W_]*", text)
    return match[1].upper() if match else None


def _folded(text: str) -> str:
    text = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return text.strip(" \"'$`“”‘’").rstrip(".").rstrip()
