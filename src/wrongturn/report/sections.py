"""The parts of a report that are text and tables: plain HTML from the figures of a study. Any figure may be missing.

Everything that comes from outside goes through :func:`esc`. Numbers are set with a narrow space before their unit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from wrongturn.tasks.graphs import ERRORS

SHOWN_ERRORS = 6  # classes with a shade of their own in the bars; the rest is "other"
OVERALL = ("", "all", "overall", "total", "*")
"""Names a study may give to the figure over all groups."""
VERDICTS = {"holds": "yes", "does not hold": "no", "cannot be told": "open"}
_THIN = "\u202f"


def esc(value: object) -> str:
    """The value as HTML text, also safe inside a quoted attribute."""
    return escape(str(value), quote=True)


@dataclass(frozen=True, slots=True)
class Figure:
    """A number to print, with its interval and the number of independent units where they are known."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None

    def percent(self) -> str:
        """``69 % (65–72 %)``."""
        return percent(self.value) + (f" ({percent_range(self.low, self.high)})" if self.bounded else "")

    def plain(self) -> str:
        """``0.38 (0.31 to 0.45)``."""
        return number(self.value) + (f" ({number(self.low)} to {number(self.high)})" if self.bounded else "")

    @property
    def bounded(self) -> bool:
        return self.low is not None and self.high is not None


def figure(source: Any) -> Figure | None:
    """The figure in a plain number or an estimate's dict; None where there is none or it is NaN."""
    if isinstance(source, Mapping):
        value = _finite(source.get("value"))
        count = _finite(source.get("n"))
        if value is not None:
            n = None if count is None else int(count)
            return Figure(value, _finite(source.get("low")), _finite(source.get("high")), n)
        return None
    value = _finite(source)
    return None if value is None else Figure(value)


def dig(source: Any, *path: str) -> Any:
    """``source[a][b]…``, None where any of it is missing."""
    for key in path:
        source = source.get(key) if isinstance(source, Mapping) else None
    return source


def _finite(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def percent(share: float | None) -> str:
    return "?" if share is None else f"{100 * share:.0f}{_THIN}%"


def percent_range(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return "?"
    return f"{100 * low:.0f}–{100 * high:.0f}{_THIN}%"


def points(share: float | None) -> str:
    """A signed difference of shares, in percentage points."""
    return "?" if share is None else f"{100 * share:+.1f}".replace("-", "−")


def number(value: float | None) -> str:
    if value is None:
        return "?"
    if value == int(value) and abs(value) < 1e15:
        return count(int(value))
    text = f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
    return text.replace("-", "−")


def count(n: int) -> str:
    return f"{n:,}".replace(",", _THIN).replace("-", "−")


def absent(what: str) -> str:
    return f'<p class="absent">{esc(what)}</p>'


def section(name: str, title: str, *parts: str) -> str:
    body = "\n".join(part for part in parts if part)
    return f'<section id="{name}" aria-labelledby="{name}-title">\n<h2 id="{name}-title">{esc(title)}</h2>\n{body}\n</section>'


# -- three sentences ---------------------------------------------------------------------------------------------------


def lead(study: Mapping[str, Any], comparison: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> str:
    """What happened, in three sentences."""
    sentences = (_solved(study, facts), _turned(study), _rescued(comparison))
    body = " ".join(sentence for sentence in sentences if sentence)
    return f'<div class="lead" id="summary"><p>{body}</p></div>'


def _solved(study: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    who = "The embedded reasoner" if facts.get("engine") == "embedded" else f"The model {facts.get('model') or ''}"
    accuracy = dig(study, "accuracy") or {}
    overall = next((f for key in OVERALL if (f := figure(dig(accuracy, key)))), None)
    problems, traces = figure(dig(study, "problems")), figure(dig(study, "traces"))
    n = int(problems.value) if problems else overall.n if overall and overall.n else None
    task = str(facts.get("task") or "").replace("_", " ").removesuffix(" search")
    if overall is None:
        return f"{esc(who.strip())} wrote {count(int(facts.get('traces') or 0))} traces; how many are right is not known."
    if n and traces and int(traces.value) != n:
        share = f"solved {percent(overall.value)} of {count(n)} {task} problems"
        detail = f"95{_THIN}% interval {percent_range(overall.low, overall.high)}; {count(int(traces.value))} traces"
    elif n:
        share = f"solved {count(round(overall.value * n))} of {count(n)} {task} problems"
        detail = f"{percent(overall.value)}, 95{_THIN}% interval {percent_range(overall.low, overall.high)}"
    else:
        share, detail = f"solved {percent(overall.value)} of the {task} problems", ""
    by_group = {name: f for name, x in accuracy.items() if name not in OVERALL and (f := figure(x))}
    spread = ""
    if len(by_group) > 1:
        best, worst = (pick(by_group, key=lambda name: by_group[name].value) for pick in (max, min))
        spread = f", from {percent(by_group[best].value)} on {best} down to {percent(by_group[worst].value)} on {worst}"
    return esc(" ".join(f"{who} {share}{f' ({detail})' if detail else ''}{spread}.".split(" ")))


def _turned(study: Mapping[str, Any]) -> str:
    median, early, chance = (figure(dig(study, "onset", key)) for key in ("median", "share_30", "null_30"))
    if median is None and early is None:
        return "Where its failures begin is not known."
    parts = []
    if median is not None:
        parts.append(f"the first wrong token stood, in the median, {median.percent()} into the trace")
    if early is not None:
        share = f"{early.percent()} of the failures had taken their wrong turn within the first 30{_THIN}%"
        parts.append(share + (f", {_against(early, chance)}" if chance else ""))
    errors = _totals(dig(study, "error_classes") or {})
    if errors:
        name, n = next(iter(errors.items()))
        meaning = f"“{ERRORS[name]}” ({name}, " if name in ERRORS else f"{name} ("
        parts.append(f"the commonest first error was {meaning}{percent(n / sum(errors.values()))})")
    return esc("Where it failed, " + "; ".join(parts) + ".")


def _against(share: Figure, chance: Figure) -> str:
    if share.low is not None and share.low > chance.value:
        return f"more than the {percent(chance.value)} that onsets placed by chance would give"
    if share.high is not None and share.high < chance.value:
        return f"fewer than the {percent(chance.value)} that onsets placed by chance would give"
    return f"which cannot be told from the {percent(chance.value)} of onsets placed by chance"


def baseline_of(comparison: Sequence[Mapping[str, Any]]) -> str | None:
    """The strategy the differences are against: the row that has none."""
    return next((str(row.get("strategy")) for row in comparison if figure(row.get("difference")) is None), None)


def _rescued(comparison: Sequence[Mapping[str, Any]]) -> str:
    compared = [(row, f) for row in comparison if (f := figure(row.get("difference")))]
    if not compared:
        return "No strategies were compared on it."
    row, gain = max(compared, key=lambda pair: pair[1].value)
    base = baseline_of(comparison) or "the baseline"
    name, accuracy = row.get("strategy"), figure(row.get("accuracy"))
    budgets = {row.get("budget") for row in comparison}
    budget = next(iter(budgets))
    at = f"At the same budget of {number(_finite(budget))} decoded tokens, " if len(budgets) == 1 and budget else ""
    interval = f" (95{_THIN}% interval {points(gain.low)} to {points(gain.high)})" if gain.bounded else ""
    of = f", the best of {len(compared)} strategies tried" if len(compared) > 1 else ""
    if gain.low is not None and gain.low > 0:
        right = f" solved {percent(accuracy.value)}," if accuracy else ""
        text = f"{at}{name}{of},{right} {points(gain.value)} points against {base}{interval}."
    elif gain.high is not None and gain.high < 0:
        text = f"{at}every strategy tried did worse than {base}; the closest, {name}, by {points(gain.value)} points{interval}."
    else:
        text = f"{at}{name}{of}, came to {points(gain.value)} points against {base}{interval}: not distinguishable from no gain."
    return esc(text[0].upper() + text[1:])


# -- small pictures ----------------------------------------------------------------------------------------------------


def interval_bar(f: Figure | None, low: float = 0.0, high: float = 1.0) -> str:
    """A dot on its interval, on a scale from ``low`` to ``high``; the number itself stands beside it."""
    if f is None:
        return ""

    def at(value: float) -> str:
        return f"{min(max(100 * (value - low) / (high - low), 0.0), 100.0):.2f}%"

    zero = f'<line class="zero" x1="{at(0.0)}" x2="{at(0.0)}" y1="1" y2="17"/>' if low < 0 else ""
    whisker = ""
    if f.low is not None and f.high is not None:
        whisker = f'<line class="whisker" x1="{at(f.low)}" x2="{at(f.high)}" y1="9" y2="9"/>'
    return (
        f'<svg class="bar" aria-hidden="true"><line class="axis" x1="0" x2="100%" y1="9" y2="9"/>{zero}{whisker}'
        f'<circle cx="{at(f.value)}" cy="9" r="4"/></svg>'
    )


def _cell(f: Figure | None, low: float = 0.0, high: float = 1.0, signed: bool = False) -> str:
    """Two table cells: the picture and the number."""
    if f is None:
        return '<td class="pic"></td><td class="val muted">–</td>'
    text = f"{points(f.value)}" if signed else percent(f.value)
    if f.bounded:
        between = f"{points(f.low)} to {points(f.high)}" if signed else percent_range(f.low, f.high)
        text += f' <span class="ci">{between}</span>'
    return f'<td class="pic">{interval_bar(f, low, high)}</td><td class="val">{text}</td>'


# -- strategies --------------------------------------------------------------------------------------------------------


def strategies(comparison: Sequence[Mapping[str, Any]]) -> str:
    """The comparison table."""
    if not comparison:
        return section("comparison", "Strategies compared", absent("No strategies were compared in this run."))
    differences = [f for row in comparison if (f := figure(row.get("difference")))]
    reach = max((abs(x) for f in differences for x in (f.value, f.low, f.high) if x is not None), default=0.0) or 0.1
    base = baseline_of(comparison)
    body = []
    for row in comparison:
        accuracy, difference = figure(row.get("accuracy")), figure(row.get("difference"))
        n = accuracy.n if accuracy else None
        gain = _cell(difference, -reach, reach, signed=True)
        if difference is None:
            gain = '<td class="pic"></td><td class="val muted">baseline</td>'
        body.append(
            f'<tr><th scope="row">{esc(row.get("strategy", "?"))}</th>{_cell(accuracy)}{gain}'
            f'<td class="num">{number(_value(row.get("decoded_tokens")))}</td>'
            f'<td class="num">{number(_value(row.get("budget"))) if row.get("budget") else "none"}</td>'
            f'<td class="num">{count(n) if n else "?"}</td></tr>'
        )
    table = (
        '<div class="scroll"><table><thead><tr><th scope="col">strategy</th><th scope="col" colspan="2">right answers</th>'
        f'<th scope="col" colspan="2">against {esc(base or "the baseline")}, points</th>'
        '<th scope="col" class="num">decoded tokens per problem</th><th scope="col" class="num">budget</th>'
        f'<th scope="col" class="num">problems</th></tr></thead><tbody>{"".join(body)}</tbody></table></div>'
    )
    budgets = {row.get("budget") for row in comparison}
    if len(budgets) == 1 and None not in budgets:
        equal = f"All had the same budget: {number(_value(next(iter(budgets))))} decoded tokens a problem."
    else:
        equal = "The budgets differ (see the column): a difference between rows of unequal budget is not the method's alone."
    note = (
        f"{equal} Decoded tokens count every branch, also those that were dropped. Differences are paired per problem. "
        f"Intervals are 95{_THIN}%, one row at a time: the best of many rows owes some of its lead to being the best."
    )
    return section("comparison", "Strategies compared", table, f'<p class="note">{esc(note)}</p>')


def _value(source: Any) -> float | None:
    found = figure(source)
    return found.value if found else None


# -- distributions -----------------------------------------------------------------------------------------------------


def groups(study: Mapping[str, Any]) -> str:
    """Accuracy and first errors, per distribution."""
    accuracy, exact = dig(study, "accuracy") or {}, dig(study, "exact") or {}
    classes = dig(study, "error_classes") or {}
    names = [name for name in dict.fromkeys((*accuracy, *exact)) if name not in OVERALL]
    names += [name for name in OVERALL if name in accuracy]
    if names:
        body = "".join(
            f'<tr{" class=total" if name in OVERALL else ""}><th scope="row">{esc(name if name not in OVERALL else "all")}</th>'
            f"{_cell(figure(accuracy.get(name)))}{_cell(figure(exact.get(name)))}"
            f'<td class="num">{_count_of(accuracy.get(name), exact.get(name))}</td></tr>'
            for name in names
        )
        table = (
            '<div class="scroll"><table><thead><tr><th scope="col">distribution</th><th scope="col" colspan="2">right answers</th>'
            '<th scope="col" colspan="2">every token right</th><th scope="col" class="num">problems</th></tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )
    else:
        table = absent("There is no accuracy per distribution in this study.")
    return section("groups", "Distributions", table, _errors(classes))


def _count_of(*sources: Any) -> str:
    n = next((f.n for source in sources if (f := figure(source)) and f.n is not None), None)
    return "?" if n is None else count(n)


def _totals(classes: Mapping[str, Any]) -> dict[str, int]:
    """Error class -> number over all groups, the commonest first."""
    totals: dict[str, int] = {}
    inner = {k: v for k, v in classes.items() if k not in OVERALL} or classes
    for counts in inner.values():
        for name, n in (counts or {}).items():
            totals[name] = totals.get(name, 0) + int(_value(n) or 0)
    return dict(sorted(((k, v) for k, v in totals.items() if v), key=lambda pair: -pair[1]))


def _errors(classes: Mapping[str, Any]) -> str:
    """Stacked bars of the first error's class, with every count in a table below."""
    totals = _totals(classes)
    if not totals:
        return "<h3>First errors</h3>" + absent("No first errors were classified.")
    shown = list(totals)[:SHOWN_ERRORS]
    named = {group: counts for group, counts in classes.items() if group not in OVERALL} or classes
    bars, rows = [], []
    for group, counts in named.items():
        n = {name: int(_value(k) or 0) for name, k in (counts or {}).items()}
        total = sum(n.values())
        parts = [(i, name, n.get(name, 0)) for i, name in enumerate(shown)]
        parts.append((SHOWN_ERRORS, "other", total - sum(k for _, _, k in parts)))
        pieces = "".join(
            f'<span class="part e{i}" style="flex:{k}" title="{esc(name)}: {k} of {total}">'
            f"<span>{esc(name)} {percent(k / total)}</span></span>"
            for i, name, k in parts
            if k
        )
        label = f'<th scope="row">{esc(group or "all")}</th>'
        bars.append(
            f'<tr>{label}<td class="stack"><div aria-hidden="true">{pieces}</div></td><td class="num">{count(total)}</td></tr>'
        )
        cells = "".join(f'<td class="num">{count(n.get(name, 0))}</td>' for name in totals)
        rows.append(f"<tr>{label}{cells}</tr>")
    rest = [f'<li><i class="e{SHOWN_ERRORS}"></i>other</li>'] if len(totals) > len(shown) else []
    key = "".join(
        [
            *(
                f'<li><i class="e{i}"></i><b>{esc(name)}</b> {esc(ERRORS.get(name, ""))}</li>'
                for i, name in enumerate(shown)
            ),
            *rest,
        ]
    )
    heads = "".join(f'<th scope="col" class="num">{esc(name)}</th>' for name in totals)
    return (
        "<h3>First errors</h3>"
        f'<table class="stacks"><thead><tr><th scope="col">distribution</th><th scope="col">share of first errors</th>'
        f'<th scope="col" class="num">failures</th></tr></thead><tbody>{"".join(bars)}</tbody></table>'
        f'<ul class="key">{key}</ul>'
        f'<details><summary>Counts</summary><div class="scroll"><table><thead><tr><th scope="col">distribution</th>{heads}'
        f"</tr></thead><tbody>{''.join(rows)}</tbody></table></div></details>"
    )


# -- pictures ----------------------------------------------------------------------------------------------------------


def _sample(kind: str) -> str:
    """A piece of a line as the charts draw it, for their legends."""
    band = '<rect class="band" y="3" width="28" height="10"/>' if kind == "band" else ""
    return f'<svg class="sample {kind}" viewBox="0 0 28 16" aria-hidden="true">{band}<line x1="0" x2="28" y1="8" y2="8"/></svg>'


def _chart(name: str, title: str, label: str, key: Iterable[tuple[str, str]], caption: str, table: str) -> str:
    samples = "".join(f"<li>{_sample(kind)}{esc(text)}</li>" for kind, text in key)
    return (
        f'<figure><h3>{esc(title)}</h3><div class="chart" id="chart-{name}" role="img" aria-label="{esc(label)}"></div>'
        f'<ul class="key lines">{samples}</ul><figcaption>{caption}</figcaption>'
        f"<details><summary>Values</summary>{table}</details></figure>"
    )


def _values_table(heads: Sequence[str], columns: Sequence[Sequence[float | None]], rows: int = 13) -> str:
    n = len(columns[0])
    picked = sorted({round(i * (n - 1) / (rows - 1)) for i in range(rows)}) if n > rows else range(n)
    head = "".join(f'<th scope="col" class="num">{esc(name)}</th>' for name in heads)
    cells = [[number(column[i]) if i < len(column) else "" for column in columns] for i in picked]
    body = "".join(f"<tr>{''.join(f'<td class=num>{text}</td>' for text in row)}</tr>" for row in cells)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def onset(study: Mapping[str, Any], charts: Mapping[str, Any]) -> str:
    """Where failures begin, and what the entropy does there."""
    figures = []
    curve = charts.get("onset")
    early, chance = figure(dig(study, "onset", "share_30")), figure(dig(study, "onset", "null_30"))
    if curve:
        said = ""
        if early:
            said = f" At 30{_THIN}% it stands at {early.percent()}" + (f", n{_THIN}={_THIN}{count(early.n)}" if early.n else "")
            said += f"; onsets placed by chance come to {percent(chance.value)}." if chance else "."
        key = [("band", f"failures, with a 95{_THIN}% band")]
        key += [("dashed", "onsets placed by chance")] if curve.get("null") else []
        key += [("dotted", "evenly spread")]
        table = _values_table(
            ["position", "share of failures", "low", "high", "by chance"],
            [curve["x"], curve["y"], curve.get("low") or [], curve.get("high") or [], curve.get("null") or []],
        )
        text = "Share of failures whose first wrong token stands at or before a position in the trace."
        figures.append(_chart("onset", "Where failures begin", text + said, key, esc(text + said), table))
    picture = charts.get("entropy")
    if picture:
        text = "Mean token entropy around the first wrong token, which stands at 0 (nats)."
        key = [("band", f"failures, with a 95{_THIN}% band")]
        if picture.get("control"):
            key += [("dashed", "control: the same positions where nothing went wrong")]
        table = _values_table(
            ["offset", "entropy", "low", "high", "control"],
            [picture["x"], picture["y"], picture.get("low") or [], picture.get("high") or [], picture.get("control") or []],
        )
        figures.append(_chart("entropy", "Entropy at the wrong turn", text, key, esc(text), table))
    missing = []
    if not curve:
        missing.append(absent("There is no onset curve: no failure has a known first wrong token."))
    if not picture:
        missing.append(absent("There is no entropy picture in this study."))
    body = f'<div class="figures">{"".join(figures)}</div>' if figures else ""
    return section("onset", "Onset", body, *missing)


# -- claims ------------------------------------------------------------------------------------------------------------


def claims(study: Mapping[str, Any]) -> str:
    """Published claims against this run."""
    items = [claim for claim in dig(study, "claims") or [] if isinstance(claim, Mapping)]
    if not items:
        return section("claims", "Published claims", absent("No published claims were checked in this study."))
    rows = "".join(_claim(claim) for claim in items)
    table = (
        '<table class="claims"><thead><tr><th scope="col">claim</th><th scope="col">published</th><th scope="col">here</th>'
        f'<th scope="col">verdict</th></tr></thead><tbody>{rows}</tbody></table>'
    )
    return section("claims", "Published claims", table)


def _claim(claim: Mapping[str, Any]) -> str:
    f = figure(claim.get("estimate"))
    n = _value(claim.get("n")) or (f.n if f else None)
    here = esc(f.plain()) if f else "not measured"
    here += f' <span class="ci">n{_THIN}={_THIN}{number(n)}</span>' if n else ""
    verdict = str(claim.get("verdict") or "cannot be told").replace("_", " ")
    published = claim.get("published")
    printed = number(float(published)) if isinstance(published, int | float) else str(published or "–")
    detail = f'<p class="note">{esc(claim["detail"])}</p>' if claim.get("detail") else ""
    name = str(claim.get("name") or "").replace("_", " ")
    return (
        f'<tr><th scope="row"><span class="name">{esc(name)}</span>{esc(claim.get("text") or "")}{detail}</th>'
        f'<td data-label="published">{esc(printed)}</td><td data-label="here">{here}</td>'
        f'<td data-label="verdict"><span class="chip {VERDICTS.get(verdict, "open")}">{esc(verdict)}</span></td></tr>'
    )


# -- what else a study found -------------------------------------------------------------------------------------------


def further(study: Mapping[str, Any]) -> str:
    """Predictors and recovery, as whatever figures they hold."""
    parts = []
    for key, title in (("predictors", "What foretells a failure"), ("recovery", "Recovery")):
        rows = list(_rows(dig(study, key)))
        if rows:
            rows = rows[:60]
            body = "".join(f'<tr><th scope="row">{esc(name)}</th><td class="val">{text}</td></tr>' for name, text in rows)
            parts.append(f'<div><h3>{esc(title)}</h3><div class="scroll"><table><tbody>{body}</tbody></table></div></div>')
    if not parts:
        return ""
    return section("further", "Further figures", f'<div class="figures">{"".join(parts)}</div>')


def _rows(source: Any, name: str = "") -> Iterable[tuple[str, str]]:
    """(name, text) of every figure found in nested dicts and lists."""
    found = figure(source)
    if found is not None:
        n = f' <span class="ci">n{_THIN}={_THIN}{count(found.n)}</span>' if found.n is not None else ""
        yield name, esc(found.plain()) + n
    elif isinstance(source, Mapping) and "value" not in source:
        for key, value in source.items():
            yield from _rows(value, f"{name} {str(key).replace('_', ' ')}".strip())
    elif isinstance(source, Sequence) and not isinstance(source, str):
        for i, value in enumerate(source):
            own = next((str(value[k]) for k in ("name", "signal", "feature") if k in value), None) if isinstance(value, Mapping) else None
            yield from _rows(value, f"{name} {own if own is not None else i + 1}".strip())


# -- footer ------------------------------------------------------------------------------------------------------------


def footer(facts: Mapping[str, Any]) -> str:
    """Engine, model, seed, versions, and the command that makes this page again."""
    rows = []
    for name in ("engine", "model", "sampling", "seed", "task", "traces", "created"):
        value = facts.get(name)
        if value not in (None, "", {}):
            rows.append(f"<dt>{name}</dt><dd>{esc(_said(value))}</dd>")
    if facts.get("versions"):
        rows.append(f"<dt>versions</dt><dd>{esc(_said(facts['versions']))}</dd>")
    command = facts.get("command")
    again = f"<pre><code>{esc(command)}</code></pre>" if command else absent("The command was not recorded.")
    return (
        f"<h2>Reproduce</h2>\n{again}\n<dl>{''.join(rows)}</dl>\n"
        '<p class="note">One file; it loads nothing from the network. Charts: uPlot 1.6.32, MIT licence.</p>'
    )


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {v}" for k, v in value.items() if v is not None)
    return count(value) if isinstance(value, int) and not isinstance(value, bool) and value > 9999 else str(value)
