"""One trace where it is printed: in a notebook (HTML without a script) and in a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from textwrap import wrap

import numpy as np
from rich.style import Style
from rich.text import Text

from wrongturn.report.figures import visible
from wrongturn.report.traces import Pieces, boundaries_of, entropy_scale, error_text, pieces_of, token_texts
from wrongturn.trace import Trace

SHOWN = 1200
"""Tokens of a trace that are shown; of longer ones the beginning, the end, and what is around the onset."""

_HUE = (29, 90, 158)
_STEPS = ("", "#dbe8f7", "#b9d3f0", "#92bae8", "#6a9fdd")  # entropy in a terminal: dark text on light blue
_INK = "#14202c"
_WRONG = "#c9431f"


@dataclass(frozen=True, slots=True)
class _Token:
    index: int
    text: str
    entropy: float
    ends: bool  # a step ends here
    onset: bool


@dataclass(frozen=True, slots=True)
class _Gap:
    tokens: int


def trace_html(trace: Trace, *, pieces: Pieces = pieces_of, shown: int = SHOWN) -> str:
    """A trace as an HTML snippet for notebooks: tokens shaded by entropy, the onset marked. Needs no script.

    Colours are translucent, so that it reads on light and dark pages. Point at a token for its figures.
    """
    scale = entropy_scale([trace])
    parts, label = [], ""
    for item in _items(trace, pieces, shown):
        if isinstance(item, _Gap):
            parts.append(
                f'{label}<div style="opacity:.75;font-style:italic">… {item.tokens:,} tokens not shown …</div>'
            )
            label = ""
            continue
        parts.append(_token_html(trace, item, scale))
        if item.onset:  # said below the step, which would fall apart around it
            label = f'<b style="{_LABEL}">↑ first wrong token: {escape(_error(trace))}</b>'
        if item.ends:
            parts.append(label or "<br>")
            label = ""
    parts.append(label)
    if trace.onset is not None and trace.onset >= len(trace) and trace.finish != "until":
        parts.append(f'<b style="{_LABEL}">↑ stops here: {escape(_error(trace))}</b>')
    legend = "".join(f'<span style="{_shade(x)}">&nbsp;{x * scale:.2g}&nbsp;</span>' for x in (0, 0.25, 0.5, 0.75, 1))
    return (
        f'<div class="wrongturn-trace" style="max-width:60em">'
        f"<div><b>{escape(visible(trace.id))}</b> · {escape(_summary(trace))}</div>"
        f'<div style="font-size:85%;opacity:.85">entropy, nats {legend}</div>'
        f'<div style="font-family:monospace;line-height:1.7;white-space:pre-wrap;overflow-wrap:anywhere;'
        f'max-height:40em;overflow-y:auto;padding:4px 2px">{"".join(parts)}</div></div>'
    )


_LABEL = (
    "display:block;width:fit-content;font-family:sans-serif;font-size:85%;"
    f"border-left:3px solid {_WRONG};padding-left:.5em"
)


def _shade(share: float) -> str:
    return f"background:rgba({_HUE[0]},{_HUE[1]},{_HUE[2]},{0.45 * share:.2f})" if share > 0.005 else ""


def _token_html(trace: Trace, token: _Token, scale: float) -> str:
    known = not math.isnan(token.entropy)
    style = _shade(min(token.entropy / scale, 1.0)) if known else "border-bottom:1px dotted"
    if token.onset:
        style += f";outline:2px solid {_WRONG};outline-offset:1px;font-weight:bold"
    text = escape(token.text.replace("\n", "↵\n"))
    return f'<span style="{style}" title="{escape(_facts(trace, token))}">{text}</span>'


def _facts(trace: Trace, token: _Token) -> str:
    facts = [f"token {token.index + 1} of {len(trace)}"]
    if token.index < len(trace.signals):
        nll, margin = float(trace.signals.nll[token.index]), float(trace.signals.margin[token.index])
        for name, value in (("probability", math.exp(-nll)), ("entropy", token.entropy), ("margin", margin)):
            if not math.isnan(value):
                facts.append(f"{name} {value:.3f}{' nats' if name == 'entropy' else ''}")
    return ", ".join(facts)


def trace_text(trace: Trace, *, width: int = 100, pieces: Pieces = pieces_of, shown: int = SHOWN) -> Text:
    """A trace for the terminal: tokens shaded by entropy, the onset underlined with a caret below it.

    Lines are broken at ``width`` columns here, so that the caret stands where it should whatever the terminal does.
    """
    scale = entropy_scale([trace])
    page = _Page(width)
    for item in _items(trace, pieces, shown):
        if isinstance(item, _Gap):
            page.line(f"… {item.tokens:,} tokens not shown …", "dim italic")
            continue
        style = _terminal_style(item.entropy, scale)
        if item.onset:
            page.caret(f"first wrong token: {_error(trace)}", len(item.text))
            style += Style(underline=True, bold=True)
        page.write(item.text, style)
        if item.ends:
            page.end()
    page.end()
    if trace.onset is not None and trace.onset >= len(trace) and trace.finish != "until":
        page.line(f"^ stops here: {_error(trace)}", f"bold {_WRONG}")
    head = Text.assemble((visible(trace.id), "bold"), " · ", _summary(trace), "\n")
    legend = Text.assemble(("entropy, nats ", "dim"))
    for step, colour in enumerate(_STEPS):
        legend.append(f" {step * scale / (len(_STEPS) - 1):.2g} ", _style_of(colour))
    return Text.assemble(head, legend, "\n\n", page.text)


class _Page:
    """Text laid out in lines of a given width."""

    def __init__(self, width: int) -> None:
        self.width = max(width, 8)
        self.text = Text()
        self.column = 0
        self.pending: tuple[int, str] | None = None  # what is to be written below this line, and where

    def write(self, text: str, style: Style) -> None:
        first, *rest = text.split("\n")
        self._piece(first + ("↵" if rest else ""), style)
        for k, part in enumerate(rest):
            self.end()
            self._piece(part + ("↵" if k < len(rest) - 1 else ""), style)

    def caret(self, label: str, length: int) -> None:
        """Put a label under the token of this length that is written next."""
        if self.column and self.column + length > self.width:
            self.end()
        self.pending = (self.column, label)

    def end(self) -> None:
        """End the line, and say what is to be said below it."""
        if self.column:
            self.text.append("\n")
        self.column = 0
        if self.pending:
            column, label = self.pending
            self.pending = None
            for line in self._label(column, label):
                self.line(line, f"bold {_WRONG}")

    def _label(self, column: int, label: str) -> list[str]:
        """The label with its caret in ``column``: right of it, left of it, or below where neither has room."""
        if column + 2 + len(label) <= self.width:
            return [" " * column + "^ " + label]
        if len(label) + 1 <= column:
            return [f"{label:>{column - 1}} ^"]
        return [" " * column + "^", *wrap(label, self.width)]

    def line(self, text: str, style: str) -> None:
        self.end()
        self.text.append(text + "\n", style)

    def _piece(self, text: str, style: Style) -> None:
        while text:
            if self.column and self.column + min(len(text), self.width) > self.width:
                self.end()
            part, text = text[: self.width - self.column], text[self.width - self.column :]
            self.text.append(part, style)
            self.column += len(part)


def _terminal_style(entropy: float, scale: float) -> Style:
    if math.isnan(entropy):
        return Style(dim=True)
    step = min(entropy / scale, 1.0) * (len(_STEPS) - 1)
    return _style_of(_STEPS[math.floor(step + 0.5)])


def _style_of(colour: str) -> Style:
    return Style(color=_INK, bgcolor=colour) if colour else Style()


# -- what both show ----------------------------------------------------------------------------------------------------


def _summary(trace: Trace) -> str:
    graded = {None: "ungraded", True: "right answer", False: "wrong answer"}[trace.correct]
    if trace.correct is False and trace.finish == "until" and trace.answer is None:
        graded = "left unfinished"
    parts = [graded, f"{len(trace):,} tokens", trace.strategy]
    if trace.onset is not None and 0 <= trace.onset < len(trace):
        parts.insert(1, f"first wrong token {trace.onset + 1:,}")
    return visible(" · ".join(parts))


def _error(trace: Trace) -> str:
    return visible(error_text(trace.error))


def _items(trace: Trace, pieces: Pieces, shown: int) -> Iterator[_Token | _Gap]:
    """The tokens to show, and the gaps between them."""
    texts = token_texts(trace, pieces)
    ends = boundaries_of(trace, texts)
    texts = [visible(text, keep="\n") or "∅" for text in texts]
    if texts and texts[-1] == "∅" and trace.finish == "stop":
        texts[-1] = " end"
    entropy = trace.signals.entropy if len(trace.signals) == len(trace) else np.full(len(trace), np.nan)
    last = 0
    for i in _shown(len(trace), trace.onset, shown):
        if i > last:
            yield _Gap(i - last)
        yield _Token(i, texts[i], float(entropy[i]), bool(ends[i]), i == trace.onset)
        last = i + 1
    if last < len(trace):
        yield _Gap(len(trace) - last)


def _shown(length: int, onset: int | None, most: int) -> list[int]:
    """Indices of at most ``most`` tokens: half from the start, a quarter around the onset, the rest from the end."""
    if length <= most:
        return list(range(length))
    parts = [range(most // 2)]
    if onset is not None and most // 2 <= onset < length:
        parts.append(range(max(onset - most // 8, 0), min(onset + most // 8, length)))
    parts.append(range(length - (most - sum(map(len, parts))), length))
    return sorted(set().union(*parts))
