"""What the published search-trace experiment reports: "Learning to search" (H. N. Nguyen, 2025), accuracy in percent.

It does not say whether it counts paths or traces, nor how it decoded, on how much data it trained, or how wide its
models were.
"""

from __future__ import annotations

DISTRIBUTIONS = ("G15_2,4", "G17_2,4", "G20_2,4", "G15_5,6", "G17_5,6", "G20_5,6")
"""The first is the one trained on."""

_ROWS = {  # layers, heads
    (3, 4): (89.21, 85.58, 85.80, 41.53, 40.09, 28.02),
    (3, 8): (99.70, 98.47, 98.45, 33.53, 33.77, 24.46),
    (6, 4): (99.53, 98.29, 98.29, 35.83, 36.45, 26.71),
    (6, 8): (99.45, 97.23, 96.96, 40.09, 39.65, 25.08),
    (12, 8): (99.87, 79.40, 78.90, 36.38, 30.54, 23.65),
}
SIZES = tuple(_ROWS)
"""Layers and heads."""


def accuracy(distribution: str, layers: int, heads: int) -> tuple[float, float] | None:
    """What is published for a distribution: (figure, figure) where the size matches, else the range over all five.

    None for a distribution that is not in the table.
    """
    if distribution not in DISTRIBUTIONS:
        return None
    column = DISTRIBUTIONS.index(distribution)
    values = [_ROWS[layers, heads][column]] if (layers, heads) in _ROWS else [row[column] for row in _ROWS.values()]
    return min(values), max(values)
