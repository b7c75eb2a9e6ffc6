"""The final answer in what a model wrote. Every extractor takes any text and gives the answer, or None: never an error.

What stands outside the thinking counts. Where nothing stands there (thinking that never ended, or an empty reply after
it), only a complete ``\\boxed{…}`` inside it does: a passing thought is no answer. So a text that was cut short gives
None, and the trace is *truncated* rather than wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from wrongturn.tasks import quantity

Extractor = Callable[[str], str | None]

_THINK = re.compile(
    r"(?P<open><think(?:ing)?>|\[THINK\]|<\|channel\|>analysis<\|message\|>)"
    r"|</think(?:ing)?>|\[/THINK\]|<\|channel\|>final<\|message\|>",
    re.IGNORECASE,
)
_SPECIAL = re.compile(r"(?:<\|[^|<>\s]{1,40}\|>|</?s>|<(?:eos|pad|end_of_turn|turn\|)>|\s)\Z")
_BRACES = re.compile(r"\\\\?(?P<box>(?:boxed|fbox)\s*\{)|\\.|[{}]", re.DOTALL)
_HASHES = re.compile(r"^[ \t]*####([^\n]*)", re.MULTILINE)
_STATED = re.compile(r"\bfinal\s+answer\b[\s*_]*(?:is\b|[:=])[\s*_:=]*(?P<rest>[^\n]*)", re.IGNORECASE)
_SAID = re.compile(r"\banswer\b[ \t*_]*(?:is\b|[:=])[\s*_:=]*(?P<rest>[^\n]*)", re.IGNORECASE)
_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
_FENCE = re.compile(r"[ \t]*```[ \t]*(\w*)")
_LETTER = re.compile(
    r"[\s*_`$(\[{:]*(?:\\(?:text|textbf|mathrm|mathbf|bf)\s*\{\s*)?(?:(?:option|choice)\s+)?[(\[*]*(?:(?P<upper>[A-J])(?![A-Za-z'])|(?P<lower>[a-j])\))",
)
_LONE = re.compile(r"[\s*_`$(\[{]*([A-Ja-j])[\s*_`$)\]}.:]*")
_SHORT = 200  # characters: a reply of one line no longer than this may be the answer itself


def outside(text: str) -> str:
    """What stands outside the thinking; without an opening mark, all before a closing one is thinking."""
    shown, start, thinking = [], 0, False
    for mark in _THINK.finditer(text):
        if mark["open"]:
            if not thinking:
                shown.append(text[start : mark.start()])
            thinking = True
        else:
            if not thinking:  # the opening mark stood in the prompt
                shown.clear()
            start, thinking = mark.end(), False
    if not thinking:
        shown.append(text[start:])
    whole = "".join(shown)
    end = len(whole)
    while mark := _SPECIAL.search(whole, max(0, end - 48), end):
        end = mark.start()
    return whole[:end]


def boxed(text: str) -> str | None:
    """What stands in the last *complete* ``\\boxed{…}`` or ``\\fbox{…}``, the inner one of nested boxes."""
    last, content = -1, None
    opened: list[int] = []  # where each open brace's content starts; -1 for a brace that opens no box
    for match in _BRACES.finditer(text):
        if match["box"]:
            opened.append(match.end())
        elif match.group() == "{":
            opened.append(-1)
        elif match.group() == "}" and opened:
            start = opened.pop()
            if start > last and (found := text[start : match.start()].strip()):
                last, content = start, found
    return content


def marked(text: str) -> str | None:
    """The answer a worked solution marks: the last box, or the number behind the last ``####``."""
    return boxed(text) or _hashed(text)


def short(text: str) -> str | None:
    """A box, what follows "final answer", or a reply of one line (of it, what follows "answer is")."""
    return _read(text, _short)


def number(text: str) -> str | None:
    """The number in a box, behind ``####``, "final answer" or "answer is", or the reply itself; written plainly."""
    return _read(text, _number)


def maths(text: str) -> str | None:
    """A box, what follows "final answer", a number or formula after "answer is", or the reply where it is one."""
    return _read(text, _maths)


def choice(text: str) -> str | None:
    """The letter (A to J) in a box, behind "final answer" or "answer is", or alone on the last line."""
    return _read(text, _choice)


def tagged(text: str) -> str | None:
    """What the last ``<answer>…</answer>`` holds; else as :func:`short`."""
    return _read(text, lambda shown: _last_tag(shown) or _short(shown))


def program(text: str) -> str | None:
    """The last complete fenced block marked as Python, else the last complete fenced block."""
    blocks: dict[bool, str] = {}  # the last one by whether it is marked
    body: list[str] | None = None
    language = ""
    for line in outside(text).splitlines(keepends=True):
        fence = _FENCE.match(line)
        if fence and (body is None or fence[1]):  # one that opens: a mark never closes a block
            body, language = [], fence[1].lower()
        elif fence and body is not None:
            if language in ("", "python", "python3", "py") and "".join(body).strip():
                blocks[bool(language)] = "".join(body)
            body = None
        elif body is not None:
            body.append(line)
    return blocks.get(True) or blocks.get(False)


def pattern(expression: str) -> Extractor:
    """The last match of a regular expression: its first group where it has one. Raises ``re.error``."""
    compiled = re.compile(expression)

    def find(text: str) -> str | None:
        matches = list(compiled.finditer(outside(text)))
        return matches[-1][1 if compiled.groups else 0] if matches else None

    return find


# -- inside ------------------------------------------------------------------------------------------------------------


def _read(text: str, find: Extractor) -> str | None:
    shown = outside(text)
    return find(shown) if shown.strip() else find(f"\\boxed{{{box}}}") if (box := boxed(text)) else None


def _short(shown: str) -> str | None:
    if found := boxed(shown) or _plain(_last(_STATED, shown)):
        return found
    line = _line(shown)
    return (_plain(_last(_SAID, line)) or line) if line else None


def _number(shown: str) -> str | None:
    for found in (
        _each(quantity.parse, boxed(shown), _hashed(shown)),
        _each(quantity.leading, _last(_STATED, shown), _last(_SAID, shown)),
        _each(quantity.parse, _line(shown)),
    ):
        if found is not None:
            return str(found)
    return None


def _each(parse: Callable[[str], quantity.Quantity | None], *texts: str | None) -> quantity.Quantity | None:
    return next((found for text in texts if text and (found := parse(text)) is not None), None)


def _maths(shown: str) -> str | None:
    if found := boxed(shown) or _plain(_last(_STATED, shown)):
        return found
    said = _plain(_last(_SAID, shown))
    if said and (re.match(r"[-+]?[\d\\$(\[.]", said) or quantity.parse(said)):
        return said
    line = _line(shown)
    return line if line and (re.fullmatch(r"\$[^$]+\$\.?", line) or quantity.parse(line)) else None


def _choice(shown: str) -> str | None:
    for fragment in (boxed(shown), _last(_STATED, shown), _last(_SAID, shown)):
        if fragment and (found := _letter(fragment)):
            return found
    lines = shown.split("\n")
    lone = _LONE.fullmatch(lines[-1])
    return lone[1].upper() if lone else None


def _letter(fragment: str) -> str | None:
    match = _LETTER.match(fragment)
    if match is None:
        return None
    letter = match["upper"] or match["lower"].upper()
    word = re.match(r"\s+(?!because|since|as\b|which|and\b)[a-z]", fragment[match.end() :])
    return None if letter in "AI" and word else letter  # "the answer is a matter of taste"


def _last(mark: re.Pattern[str], text: str) -> str | None:
    last = None
    for match in mark.finditer(text):
        last = match["rest"].strip() or last
    return last


def _last_tag(text: str) -> str | None:
    start, last = None, None
    for tag in _TAG.finditer(text):
        if tag[1] and start is not None:
            last = text[start : tag.start()].strip() or last
        start = None if tag[1] else tag.end()
    return last


def _hashed(text: str) -> str | None:
    """What follows the last ``####`` that has a number and no words behind it (a heading has words)."""
    found = None
    for match in _HASHES.finditer(text):
        rest = match[1].strip()
        if re.search(r"\d", rest) and not re.search(r"[A-Za-z]", rest):
            found = rest
    return found


def _plain(text: str | None) -> str | None:
    """An answer without the emphasis, dollars and full stop around it."""
    if text is None:
        return None
    text = text.strip().strip("*_`").strip()
    if len(text) > 1 and text.endswith(".") and not text.endswith(".."):
        text = text[:-1].rstrip("*_` ")
    if len(text) > 2 and text[0] == text[-1] == "$" and "$" not in text[1:-1]:
        text = text[1:-1].strip()
    return text or None


def _line(shown: str) -> str | None:
    """A reply that is one short line, and no box that was cut off."""
    shown = shown.strip()
    return _plain(shown) if len(shown) <= _SHORT and "\n" not in shown and "\\boxed" not in shown else None
