"""Whether two pieces of mathematics are the same, by Math-Verify in worker processes (extra ``[math]``)."""

from __future__ import annotations

import functools
import importlib.util
import logging
from itertools import product

from wrongturn.errors import WrongturnError
from wrongturn.tasks import quantity, workers


def needs() -> None:
    """Raises ``WrongturnError`` naming the extra where Math-Verify cannot be imported here."""
    if missing := _missing():
        raise WrongturnError(f"grading mathematics needs {missing}: pip install 'wrongturn[math]'")


@functools.cache
def _missing() -> str | None:
    return next((name for name in ("math_verify", "antlr4", "pebble") if importlib.util.find_spec(name) is None), None)


def grade(reference: str, answer: str) -> bool | None:
    """The same mathematics; None where the reference cannot be read or the time limit passed.

    What is the same text, or two plain integers, needs no algebra and is decided here.
    """
    needs()
    if reference.strip() == answer.strip():
        return True
    wanted, given = _integer(reference), _integer(answer)
    if wanted is not None and given is not None:
        return wanted == given
    return workers.call("math", reference, answer)


def _integer(text: str) -> int | None:
    text = text.strip().strip("$").strip()
    found = quantity.parse(text) if text.lstrip("+-").replace(",", "").isdigit() else None
    return found.value if found and isinstance(found.value, int) else None


def equivalent(reference: str, answer: str) -> bool | None:
    """Math-Verify's verdict, in a worker: gold first, LaTeX in an environment, its own alarms off."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    logging.disable()  # it warns about the alarms that are off
    kinds = LatexExtractionConfig(), ExprExtractionConfig()
    read = functools.partial(parse, extraction_config=kinds, parsing_timeout=0)  # 0: none
    gold = read(_wrapped(reference))
    if not gold:
        return None
    for wanted, given in product(gold, read(_wrapped(answer))):
        try:
            if verify(wanted, given, timeout_seconds=None, raise_on_error=True):
                return True
        except MemoryError:
            raise  # as a time limit: no verdict
        except Exception:  # SymPy cannot compare the two
            continue
    return False


def _wrapped(text: str) -> str:
    """LaTeX in a box, which is what Math-Verify looks for first; a text with dollars is left as it is."""
    return text if "$" in text or "\\(" in text or "\\[" in text or "\\boxed" in text else f"\\boxed{{{text}}}"
