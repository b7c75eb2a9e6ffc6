"""One trace in a notebook and in a terminal."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import numpy as np
import pytest
import report_cases as cases
from rich.cells import cell_len

from wrongturn.report import trace_html, trace_text
from wrongturn.signals import Signals
from wrongturn.tasks.graphs import ERRORS
from wrongturn.trace import Trace


@pytest.fixture(scope="module")
def lost() -> Trace:
    traces, _ = cases.run(60)
    return next(t for t in traces if t.correct is False and 10 < t.onset < len(t))


def plain(pieces: list[str], onset: int | None = None, **more) -> Trace:
    """A trace of an unknown task whose tokens are these texts."""
    ids = np.arange(len(pieces), dtype=np.int32)
    known = Signals.from_dict({name: np.full(len(ids), 0.5) for name in ("nll", "entropy", "margin")})
    given = {"signals": known, "onset": onset, "error": "revisit" if onset is not None else None, **more}
    return Trace("t<1>", "p", "prose", ids[:1], ids, finish="stop", **given)


def texts(pieces: list[str]):
    return lambda trace, ids: [pieces[i] for i in ids]


class Spans(HTMLParser):
    """(text, style, title) of each token."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.spans: list[list[str]] = []
        self.tags: set[str] = set()
        self.text = ""
        self._inside = False
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        attributes = dict(attrs)
        self._inside = tag == "span" and "title" in attributes
        if self._inside:
            self.spans.append(["", attributes.get("style", ""), attributes["title"]])

    def handle_endtag(self, tag):
        self._inside = False

    def handle_data(self, data):
        self.text += data
        if self._inside:
            self.spans[-1][0] += data


def test_html_shows_every_token_and_marks_the_onset(lost):
    page = Spans(trace_html(lost))
    assert len(page.spans) == len(lost)
    outlined = [i for i, (_, style, _) in enumerate(page.spans) if "outline" in style]
    assert outlined == [lost.onset]
    assert page.spans[lost.onset][0] == cases.graphs.pieces(lost.ids)[lost.onset]
    assert f"first wrong token: {lost.error} — {ERRORS[lost.error]}" in page.text
    assert f"entropy {lost.signals.entropy[5]:.3f} nats" in page.spans[5][2]
    assert page.tags <= {"div", "span", "b", "br"}


def test_html_is_what_a_notebook_shows(lost):
    assert lost._repr_html_() == trace_html(lost)


def test_html_escapes():
    nasty = ["<script>", '"&', "'>"]
    page = Spans(trace_html(plain(nasty), pieces=texts(nasty)))
    assert [text for text, _, _ in page.spans] == nasty
    assert "script" not in page.tags
    assert "t<1>" in page.text


def test_html_of_a_long_trace_is_shortened_in_the_middle():
    trace, _ = cases.long_trace(50_000)
    trace.onset = 30_000
    html = trace_html(trace, shown=400)
    page = Spans(html)
    assert len(page.spans) == 400
    assert len(html) < 120_000
    numbers = [int(re.search(r"token (\d+) of", title)[1]) - 1 for _, _, title in page.spans]
    assert numbers[0] == 0
    assert numbers[-1] == 49_999
    assert 30_000 in numbers
    hidden = sum(int(n.replace(",", "")) for n in re.findall(r"… ([\d,]+) tokens not shown", page.text))
    assert hidden == 50_000 - 400


def test_text_has_a_caret_below_the_onset(lost):
    text = trace_text(lost)
    lines = text.plain.splitlines()
    below = next(i for i, line in enumerate(lines) if line.lstrip().startswith("^"))
    column = lines[below].index("^")
    start = sum(map(len, cases.graphs.pieces(lost.ids[: lost.onset])))
    shown = "".join(line for line in lines[3:] if not line.lstrip().startswith("^"))
    token = cases.graphs.pieces(lost.ids)[lost.onset]
    assert lines[below - 1][column : column + len(token)] == token == shown[start : start + len(token)]
    assert ERRORS[lost.error] in lines[below]
    underlined = [text.plain[s.start : s.end] for s in text.spans if getattr(s.style, "underline", False)]
    assert underlined == [token]


@pytest.mark.parametrize("width", [8, 30, 61, 100])
def test_text_keeps_to_its_width(width):
    words = [f"word{i} " for i in range(80)] + ["a" * 150, "\n\n", "after"]
    text = trace_text(plain(words, onset=77), pieces=texts(words), width=width)
    body = text.plain.split("\n\n", 1)[1].splitlines()
    assert max(map(cell_len, body)) <= width
    below = next(i for i, line in enumerate(body) if "^" in line)
    assert body[below - 1][body[below].index("^") :].startswith("word77"[:width])
    label = "first wrong token: revisit — expanded a node a second time"
    if width >= 30:
        assert label in " ".join(body[below : below + 3]).replace("^", "")
    if width >= 61:
        body.pop(below)
        body = [line for line in body if line.strip() != label]
        assert "".join(body) == "".join(words).replace("\n\n", "↵↵")


def test_what_is_cut_off_says_so():
    ids = ["a", "b"]
    trace = plain(ids, onset=2)
    trace.error = "truncated"
    assert "stops here: truncated" in Spans(trace_html(trace, pieces=texts(ids))).text
    assert "stops here: truncated" in trace_text(trace, pieces=texts(ids)).plain
    trace.finish, trace.correct = "until", False  # a branch its strategy left is no failure
    assert "stops here" not in trace_text(trace, pieces=texts(ids)).plain
    assert "left unfinished" in trace_text(trace, pieces=texts(ids)).plain


def test_nothing_known():
    bare = plain(["x", "y"], signals=Signals.empty(2))
    assert "entropy" not in Spans(trace_html(bare)).spans[0][2]
    assert "⟨0⟩⟨1⟩" in trace_text(bare).plain
    empty = plain([])
    assert "0 tokens" in trace_html(empty)
    assert "0 tokens" in trace_text(empty).plain


def test_escape_sequences_reach_no_terminal():
    words = ["a\x1b]0;owned\x07", "\x9b2J", "b\x7f\tc", "d\r\n"]
    trace = plain(words, onset=1, error="\x1b[31mred", strategy="\x1bc")
    trace.id = "\x1b[2J"
    for shown in (trace_text(trace, pieces=texts(words)).plain, Spans(trace_html(trace, pieces=texts(words))).text):
        assert not [c for c in shown if c != "\n" and (c < " " or "\x7f" <= c < "\xa0")]
        assert "a␛]0;owned␇" in shown
    lines = trace_text(trace, pieces=texts(words)).plain.splitlines()
    below = next(i for i, line in enumerate(lines) if line.lstrip().startswith("^"))
    assert lines[below - 1][lines[below].index("^") :].startswith("␛[2Jb␡␉cd␍↵")  # ␛[ is what 9B stands for
