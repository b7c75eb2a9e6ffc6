"""The tokens of traces as compressed columns, for a page that inflates a block of them when it is looked at.

What a page shows is rounded to what can be seen: entropies and negative log-probabilities to a thousandth of a nat,
probabilities of alternatives to 0.3 % or better. :func:`block` writes this format, ``app.js`` reads it.

A block holds the tokens of consecutive traces, one column after the other, so that like stands beside like when it is
compressed. Numbers wider than a byte are stored as byte planes, lowest first. With ``n`` tokens in a block, of which
``m`` have ``k`` alternatives, and ``w`` bytes per token text:

======================= ===== ==================================================================
column                  bytes meaning
======================= ===== ==================================================================
text                    w n   index into ``tokens``
entropy, nll            2 n   thousandths of a nat, 65535 where unknown
margin                  n     254ths, 255 where unknown
flags                   n     bit 0 ends a step, bit 1 fork, bit 2 has alternatives, the rest the error of the step
alternatives: text      w m k index into ``tokens``, 0 where there are fewer
alternatives: chance    m k   probability, 254ths of its square root
======================= ===== ==================================================================
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from wrongturn.report.traces import Pieces, boundaries_of, token_texts
from wrongturn.signals import Signals
from wrongturn.trace import Trace

BOUNDARY, FORK, LISTED, ERROR_SHIFT = 1, 2, 4, 3
MOST_ERRORS = 1 << (8 - ERROR_SHIFT)  # as many numbers as a flag has for the error of a step, 0 being none
BLANK = "\0"  # a token without text; entry 0 of the table, the empty string, is no token at all


class Table:
    """Names numbered in the order they are met."""

    def __init__(self, *names: str) -> None:
        self._numbers = {name: i for i, name in enumerate(names)}

    def __getitem__(self, name: str) -> int:
        return self._numbers.setdefault(name, len(self._numbers))

    @property
    def names(self) -> list[str]:
        return list(self._numbers)

    @property
    def width(self) -> int:
        """Bytes that hold any of the numbers."""
        return max(1, math.ceil((len(self._numbers) - 1).bit_length() / 8))


@dataclass(frozen=True, slots=True)
class Columns:
    """The stored columns of one trace of n tokens; ``texts`` and ``other_texts`` are numbers of the token table."""

    texts: npt.NDArray[np.int32]
    entropy: npt.NDArray[np.uint16]
    nll: npt.NDArray[np.uint16]
    margin: npt.NDArray[np.uint8]
    flags: npt.NDArray[np.uint8]
    other_texts: npt.NDArray[np.int32]  # [m, k]
    chances: npt.NDArray[np.uint8]  # [m, k]


def columns_of(
    trace: Trace, table: Table, pieces: Pieces, *, end: int, top: int, sure: float, wrong: Iterable[tuple[int, int]]
) -> Columns:
    """The first ``end`` tokens of a trace, their texts entered in ``table``, with up to ``top`` alternatives each.

    Tokens with less than ``sure`` nats of entropy have none, unless they are a fork or the onset (0: all have them).
    ``wrong`` lists (last token, number of its error) of each wrong step.
    """
    signals = (trace.signals if len(trace.signals) == len(trace) else Signals.empty(len(trace)))[:end]
    k = min(alternatives(trace), top)
    none = np.zeros((end, 0), np.int32)
    ids, logprobs = (trace.top_ids[:end, :k], trace.top_logprobs[:end, :k]) if k else (none, none)
    listed = (ids >= 0).any(axis=1)
    if sure:
        listed &= (signals.entropy >= sure) | (signals.fork > 0) | (np.arange(end) == trace.onset)
    others = np.full((int(listed.sum()), top), -1, np.int32)
    chances = np.zeros(others.shape, np.uint8)
    others[:, :k] = ids[listed]
    p = np.exp(np.nan_to_num(logprobs[listed], nan=-np.inf))
    chances[:, :k] = np.rint(254 * np.sqrt(np.clip(p, 0, 1)))

    own = token_texts(trace, pieces)[:end]
    texts = np.array([table[text or BLANK] for text in own], np.int32)
    distinct, inverse = np.unique(others, return_inverse=True)
    known = distinct[distinct >= 0].tolist()
    numbers = [0] * (len(distinct) - len(known)) + [table[text or BLANK] for text in pieces(trace, known)]

    flags = boundaries_of(trace, own).astype(np.uint8) * BOUNDARY
    flags |= (signals.fork > 0).astype(np.uint8) * FORK | listed.astype(np.uint8) * LISTED
    for last, error in wrong:
        if last < end:
            flags[last] |= error << ERROR_SHIFT
    return Columns(
        texts,
        _thousandths(signals.entropy),
        _thousandths(signals.nll),
        _margin(signals.margin),
        flags,
        np.array(numbers, np.int32)[inverse].reshape(others.shape),
        chances,
    )


def alternatives(trace: Trace) -> int:
    """Alternatives per token; 0 where they are not one row a token."""
    shape = trace.top_ids.shape
    return shape[1] if len(shape) == 2 and shape[0] == len(trace) and shape == trace.top_logprobs.shape else 0


def block(parts: Sequence[Columns], width: int) -> str:
    """The columns of traces as one compressed block; ``width`` is the token table's. No traces make an empty text."""
    if not parts:
        return ""
    columns = (
        _planes(np.concatenate([c.texts for c in parts]), width),
        _planes(np.concatenate([c.entropy for c in parts]), 2),
        _planes(np.concatenate([c.nll for c in parts]), 2),
        np.concatenate([c.margin for c in parts]).tobytes(),
        np.concatenate([c.flags for c in parts]).tobytes(),
        _planes(np.concatenate([c.other_texts for c in parts]), width),
        np.concatenate([c.chances for c in parts]).tobytes(),
    )
    return deflate(b"".join(columns))


def deflate(data: bytes) -> str:
    """zlib, then base64."""
    return base64.b64encode(zlib.compress(data, 6)).decode("ascii")


def _thousandths(nats: npt.NDArray[np.floating]) -> npt.NDArray[np.uint16]:
    scaled = np.nan_to_num(np.rint(nats * 1000.0), nan=65535.0, posinf=65534.0)
    return np.where(np.isnan(nats), 65535, np.clip(scaled, 0, 65534)).astype(np.uint16)


def _margin(margin: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    known = np.clip(np.nan_to_num(margin), 0.0, 1.0)
    return np.where(np.isnan(margin), 255, np.rint(known * 254)).astype(np.uint8)


def _planes(values: npt.NDArray[np.integer], width: int) -> bytes:
    """The numbers as ``width`` byte planes, lowest first."""
    flat = values.ravel()
    return b"".join((flat >> (8 * plane) & 255).astype(np.uint8).tobytes() for plane in range(width))
