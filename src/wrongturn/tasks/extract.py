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
_HASHES = re.compile(r"^[ \t]*####(?P<value>[^\nA-Za-z]*)(?P<unit>[^\n]*)", re.MULTILINE)
_UNIT = re.compile(r"[a-z]+(?:[ /][a-z]+){0,2}\.?")  # a heading is longer, or begins otherwise
_IS = r"\b[\s*_]*(?:is\b|[:=])[\s*_:=]*"
_ANSWER = rf"(?:answer|(?:correct|right|best)\s+(?:option|choice)){_IS}"
_AGAIN = rf"(?:(?:(?:so|thus|hence|therefore|the|my|final|correct|right|best)\b,?\s+){{0,4}}{_ANSWER})*"
_REST = r"(?P<rest>(?:\\\[(?s:.{0,300}?)\\\]|\$\$(?s:.{0,300}?)\$\$)?[^\n]*)"  # a displayed formula has lines
_STATED = re.compile(rf"\bfinal\s+answer{_IS}{_AGAIN}{_REST}", re.IGNORECASE)
_SAID = re.compile(rf"\b{_ANSWER}{_AGAIN}{_REST}", re.IGNORECASE)
_HOPE = "I hope it is correct"  # ends the line that Minerva's prompt, and whoever trained on it, closes with
_PAIRS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ('"', '"'), ("'", "'"), ("“", "”"), ("‘", "’"))
_COMMAND = r"\\(?:text|textbf|textrm|mathrm|mathbf|bf)\s*\{"
_TAG = re.compile(r"<(/?)answer>", re.IGNORECASE)
_FENCE = re.compile(r"[ \t]*```[ \t]*(\w*)")
_WRAP = re.compile(rf"""{_COMMAND}|[*_$\[\]{{}}"“”\\]|(?<![A-Za-z])['‘’]|['‘’](?![A-Za-z])""")
_OPTION = re.compile(  # of a text whose wrappers are backticks
    r"[\s`:(]*(?:(?:the\s+)?(?P<named>option|choice|letter)[\s`:(]+)?(?P<letter>[A-J])(?![A-Za-z0-9]|['’][A-Za-z])[\s`).:]*",
    re.IGNORECASE,
)
_JOINT = re.compile(
    r"(?:\([^()]*\)[\s`]*)?(?:(?:[,;/&|+]|[-–](?=\S)|(?:or|and|to|maybe|perhaps)\b)[\s`]*)+", re.IGNORECASE
)
_ENDS = re.compile(r"[\s`]*+(?:\)|[.:]\s|[\s`).:]*\Z)")  # what may stand behind a small letter
_WORDS = re.compile(r"\s+(?!because|since|as\b|which|and\b|or\b|to\b|is\b)[a-z]")  # "the answer is a matter of taste"
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
    """The number in a box, behind ``####``, "final answer" or "answer is", or the reply itself; written plainly.

    None where two that differ are given (``5 or 6``).
    """
    return _read(text, _number)


def maths(text: str) -> str | None:
    """A box, what follows "final answer", a number or formula after "answer is", or the reply where it is one."""
    return _read(text, _maths)


def choice(text: str) -> str | None:
    """The letter (A to J) in a box, behind "final answer", "answer is" or "right option is", or alone on the last line.

    None where two that differ are given (``A or B``).
    """
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
    if found := _plain(boxed(shown)) or _plain(_last(_STATED, shown)):
        return found
    line = _line(shown)
    return (_plain(_last(_SAID, line)) or line) if line else None


def _number(shown: str) -> str | None:
    for found in (
        _each(quantity.parse, _plain(boxed(shown)), _hashed(shown)),
        _each(quantity.leading, _plain(_last(_STATED, shown)), _plain(_last(_SAID, shown))),
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
    if line and (re.fullmatch(rf"[$\\(\[]+\s*{re.escape(line)}\s*[$\\)\]]+\.?", shown.strip()) or quantity.parse(line)):
        return line
    return None


def _choice(shown: str) -> str | None:
    for fragment in (boxed(shown), _last(_STATED, shown), _last(_SAID, shown)):
        if fragment and (found := _letter(fragment)):
            return found
    lone = _OPTION.fullmatch(_WRAP.sub("`", shown.rpartition("\n")[2]))
    return lone["letter"].upper() if lone else None


def _letter(fragment: str) -> str | None:
    """The option a fragment begins with; None where it names another one beside it."""
    text, at, found = _WRAP.sub("`", fragment), 0, None
    while (option := _OPTION.match(text, at)) and _stands(option):
        letter = option["letter"].upper()
        if found not in (None, letter):
            return None
        found = letter
        if (joint := _JOINT.match(text, option.end())) is None:
            break
        at = joint.end()
    return found


def _stands(option: re.Match[str]) -> bool:
    """Whether it is an option's letter and no word of a sentence."""
    if option["named"]:
        return True
    if option["letter"].islower():
        return _ENDS.match(option.string, option.end("letter")) is not None
    return option["letter"] not in "AI" or _WORDS.match(option.string, option.end("letter")) is None


def _last(mark: re.Pattern[str], text: str) -> str | None:
    last = None
    for match in mark.finditer(text):
        last = match["rest"].partition(_HOPE)[0].strip() or last
    return last


def _last_tag(text: str) -> str | None:
    start, last = None, None
    for tag in _TAG.finditer(text):
        if tag[1] and start is not None:
            last = text[start : tag.start()].strip() or last
        start = None if tag[1] else tag.end()
    return last


def _hashed(text: str) -> str | None:
    """What follows the last ``####`` that has a number, and no words but a unit, behind it (a heading has words)."""
    found = None
    for match in _HASHES.finditer(text):
        value, unit = match["value"].strip(), match["unit"].strip()
        if re.search(r"\d", value) and (not unit or (value[-1] not in ".:)" and _UNIT.fullmatch(unit))):
            found = f"{match['value']}{match['unit']}".strip()
    return found


def _plain(text: str | None) -> str | None:
    """An answer without the emphasis, formula marks, quotes, LaTeX text command and full stop around it."""
    bare = text or ""
    for _ in range(4):  # one in another
        bare = bare.strip().strip("*_`").strip()
        before = bare
        if len(bare) > 1 and bare.endswith(".") and not bare.endswith(".."):
            bare = bare[:-1].rstrip()
        for opened, closed in _PAIRS:
            inner = bare[len(opened) : -len(closed)]
            if bare.startswith(opened) and bare.endswith(closed) and opened not in inner and closed not in inner:
                bare = inner.strip()
        if worded := re.fullmatch(rf"{_COMMAND}([^{{}}]*)\}}", bare):
            bare = worded[1].strip()
        if bare == before:
            break
    return bare or None


def _line(shown: str) -> str | None:
    """A reply that is one short line, and no box that was cut off."""
    shown = shown.strip()
    return _plain(shown) if len(shown) <= _SHORT and "\n" not in shown and "\\boxed" not in shown else None
