"""The parts of a report that are text and tables: plain HTML from the figures of a study. Any figure may be missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from wrongturn.report.figures import (
    THIN,
    Figure,
    absent,
    cells,
    count,
    dig,
    esc,
    figure,
    name_cell,
    num_cell,
    number,
    percent,
    percent_range,
    plus,
    sample,
    table,
)
from wrongturn.tasks.graphs import ERRORS

SHOWN_ERRORS = 6  # classes with a shade of their own in the bars; the rest is "other"
OVERALL = ("", "all", "overall", "total")
"""Names a study may give to the figure over all groups."""
VERDICTS = {"holds": "yes", "does not hold": "no", "cannot be told": "open"}


def section(name: str, title: str, *parts: str) -> str:
    body = "\n".join(part for part in parts if part)
    head = f'<h2 id="{name}-title">{esc(title)}</h2>'
    return f'<section id="{name}" aria-labelledby="{name}-title">\n{head}\n{body}\n</section>'


def onset_figure(study: Mapping[str, Any], name: str) -> Figure | None:
    """A figure of the onset study, which holds it itself or in its curve of token positions."""
    return figure(dig(study, "onset", name)) or figure(dig(study, "onset", "curves", "token", name))


# -- three sentences ---------------------------------------------------------------------------------------------------


def lead(study: Mapping[str, Any], comparison: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> str:
    """What happened, in three sentences."""
    sentences = (_solved(study, facts), _turned(study), _rescued(comparison))
    return f'<div class="lead" id="summary">{"".join(f"<p>{esc(sentence)}</p>" for sentence in sentences)}</div>'


def _solved(study: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    named = f"The model {facts.get('model') or ''}".strip()
    who = "The embedded reasoner" if facts.get("engine") == "embedded" else named
    accuracy = dig(study, "accuracy") or {}
    overall = next((f for key in OVERALL if (f := figure(dig(accuracy, key)))), None) or figure(facts.get("accuracy"))
    problems, traces = figure(dig(study, "problems")), figure(dig(study, "traces"))
    if overall is None:
        return f"{who} wrote {count(int(facts.get('traces') or 0))} traces; how many are right is not known."
    task = f"{str(facts.get('task') or '').replace('_', ' ').removesuffix(' search')} problems".strip()
    n = int(problems.value) if problems else overall.n or 0
    m = int(traces.value) if traces else n
    solved = f"solved {count(round(overall.value * n))} of {count(n)} {task}"
    if m != n:
        solved = f"was right in {count(round(overall.value * m))} of {count(m)} traces of {count(n)} {task}"
    between = f", 95{THIN}% interval {percent_range(overall.low, overall.high)}" if overall.bounded else ""
    by_group = {name: f for name, x in accuracy.items() if name not in OVERALL and (f := figure(x))}
    spread = ""
    if len(by_group) > 1:
        best, worst = (pick(by_group, key=lambda name: by_group[name].value) for pick in (max, min))
        spread = f", from {percent(by_group[best].value)} on {best} down to {percent(by_group[worst].value)} on {worst}"
    return f"{who} {solved} ({percent(overall.value)}{between}){spread}."


def _turned(study: Mapping[str, Any]) -> str:
    median, early, chance, excess = (
        onset_figure(study, name) for name in ("median", "share_30", "null_30", "excess_30")
    )
    if median is None and early is None:
        return "Where its failures begin is not known."
    parts = []
    if median is not None:
        parts.append(f"the first wrong step began, in the median, {median.percent()} into the trace")
    if early is not None:
        against = f", {_against(early, chance, excess)}" if chance else ""
        parts.append(
            f"{early.percent()} of failures had taken their wrong turn within the first 30{THIN}% of it{against}"
        )
    errors = totals(dig(study, "error_classes") or {})
    if errors:
        name, n = next(iter(errors.items()))
        meaning = f"“{ERRORS[name]}” ({name}, " if name in ERRORS else f"{name} ("
        parts.append(f"the commonest first error was {meaning}{percent(n / sum(errors.values()))})")
    return "Where it failed, " + "; ".join(parts) + "."


def _against(share: Figure, chance: Figure, excess: Figure | None) -> str:
    low, high = share.low, share.high
    if excess and excess.low is not None and excess.high is not None:
        low, high = chance.value + excess.low, chance.value + excess.high
    if low is not None and low > chance.value:
        return f"more than the {percent(chance.value)} of onsets placed by chance"
    if high is not None and high < chance.value:
        return f"fewer than the {percent(chance.value)} of onsets placed by chance"
    return f"which cannot be told from the {percent(chance.value)} of onsets placed by chance"


def _rescued(comparison: Sequence[Mapping[str, Any]]) -> str:
    """The strategy that gained most, against votes at equal cost where that is known, and whether it gained at all."""
    base = baseline_of(comparison)
    tried = [row for row in comparison if not _bound(row) and row.get("strategy") != base]
    equal = any(figure(row.get("equal_tokens")) for row in tried)
    rows = [(row, f) for row in tried if (f := figure(row.get("equal_tokens" if equal else "difference")))]
    if not rows:
        return "No strategies were compared on it."
    row, gain = max(rows, key=lambda pair: pair[1].value)
    rival = "self-consistency at equal decoded tokens" if equal else base or "the baseline"
    name = f"the best of {len(rows)} strategies was {row.get('strategy')}: it" if len(rows) > 1 else row.get("strategy")
    accuracy, cost = figure(row.get("accuracy")), figure(row.get("decoded_tokens"))
    text = f"Held against {rival}, {name} solved {percent(accuracy.value if accuracy else None)}"
    text += f" for {number(round(cost.value))} decoded tokens a problem" if cost else ""
    text += f", {plus(gain.value, gain.low, gain.high)}"
    if gain.low is not None and gain.high is not None and gain.low <= 0 <= gain.high:
        text += ", which cannot be told from no difference"
    return text + "."


# -- strategies --------------------------------------------------------------------------------------------------------


def baseline_of(comparison: Sequence[Mapping[str, Any]]) -> str | None:
    """The strategy the differences are against: the row that has none."""
    return next((str(row.get("strategy")) for row in comparison if figure(row.get("difference")) is None), None)


def _bound(row: Mapping[str, Any]) -> bool:
    """An upper bound that looks at the reference answers, and no strategy."""
    return str(row.get("strategy")).startswith("oracle")


def strategies(comparison: Sequence[Mapping[str, Any]]) -> str:
    """The comparison table."""
    if not comparison:
        return section("comparison", "Strategies compared", absent("No strategies were compared in this run."))
    base = baseline_of(comparison)
    columns = [("difference", f"against {base or 'the baseline'}")]
    if any(figure(row.get("equal_tokens")) for row in comparison):
        columns.append(("equal_tokens", "against votes at equal tokens"))
    budgets = [row.get("budget") for row in comparison]
    rows = []
    for row in comparison:
        accuracy, cost = figure(row.get("accuracy")), figure(row.get("decoded_tokens"))
        row_cells = [name_cell(row.get("strategy", "?"), "upper bound" if _bound(row) else "")]
        row_cells.append(cells(accuracy, "right answers"))
        for key, label in columns:
            reach = _reach(figure(other.get(key)) for other in comparison if not _bound(other))
            row_cells.append(cells(figure(row.get(key)), label, -reach, reach, "points"))
        row_cells.append(num_cell(number(cost.value) if cost else "?", "decoded tokens"))
        if any(budgets):
            cap = figure_value(row.get("budget"))
            row_cells.append(num_cell(number(cap) if cap else "none", "budget"))
        row_cells.append(num_cell(count(accuracy.n) if accuracy and accuracy.n else "?", "problems"))
        rows.append("".join(row_cells))
    heads = [("strategy", "name"), ("right answers", "figure")]
    heads += [(f"{label}, points", "figure") for _, label in columns]
    heads += [("decoded tokens a problem", "num"), *([("budget", "num")] if any(budgets) else []), ("problems", "num")]
    note = _comparison_note(comparison, columns, budgets)
    return section("comparison", "Strategies compared", table(heads, rows), note)


def _comparison_note(
    comparison: Sequence[Mapping[str, Any]], columns: Sequence[tuple[str, str]], budgets: Sequence[Any]
) -> str:
    said = ["Decoded tokens count every branch, also those that were dropped. Differences are paired per problem."]
    if len(columns) > 1:
        said.append(
            "“Votes at equal tokens” is self-consistency with as many samples as the same decoded tokens would buy."
        )
    elif len(set(budgets)) == 1 and budgets[0]:
        said.append(f"All had the same budget: {number(figure_value(budgets[0]))} decoded tokens a problem.")
    else:
        said.append("The strategies did not spend the same: read a difference together with the tokens it cost.")
    if any(_bound(row) for row in comparison):
        said.append("An upper bound picks its answer knowing the right one; no strategy can.")
    said.append(f"Intervals are 95{THIN}%, one row at a time: the best of many rows is so in part by luck.")
    return f'<p class="note">{esc(" ".join(said))}</p>'


def _reach(found: Iterable[Figure | None]) -> float:
    """The end of a scale around zero that holds every figure and its interval."""
    return max((abs(x) for f in found if f for x in (f.value, f.low, f.high) if x is not None), default=0.0) or 0.1


def figure_value(source: Any) -> float | None:
    found = figure(source)
    return found.value if found else None


# -- distributions -----------------------------------------------------------------------------------------------------


def groups(study: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """Accuracy and first errors, per distribution."""
    accuracy, exact = dict(dig(study, "accuracy") or {}), dict(dig(study, "exact") or {})
    if len(accuracy) > 1 and not any(name in accuracy for name in OVERALL):
        accuracy["all"], exact["all"] = facts.get("accuracy"), facts.get("exact")
    names = [
        name for name in dict.fromkeys((*accuracy, *exact)) if figure(accuracy.get(name)) or figure(exact.get(name))
    ]
    unanswered = {name: _unanswered(counts) for name, counts in (facts.get("outcomes") or {}).items()}
    rows = [
        name_cell("all" if name in OVERALL else name)
        + cells(figure(accuracy.get(name)), "right answers")
        + (num_cell(esc(unanswered.get(name, "")), "without an answer") if any(unanswered.values()) else "")
        + cells(figure(exact.get(name)), "every token right")
        + num_cell(_n_of(accuracy.get(name), exact.get(name)), "problems")
        for name in sorted(names, key=lambda name: name in OVERALL)
    ]
    heads = [
        ("distribution", "name"),
        ("right answers", "figure"),
        *([("without an answer", "num")] if any(unanswered.values()) else []),
        ("every token right", "figure"),
        ("problems", "num"),
    ]
    body = table(heads, rows) if rows else absent("There is no accuracy per distribution in this study.")
    return section("groups", "Distributions", body, _errors(dig(study, "error_classes") or {}))


def _unanswered(counts: Mapping[str, int]) -> str:
    """``12 truncated, 3 unparsed``."""
    return ", ".join(f"{counts[name]:,} {name}" for name in ("truncated", "unparsed", "missing") if counts.get(name))


def _n_of(*sources: Any) -> str:
    n = next((f.n for source in sources if (f := figure(source)) and f.n is not None), None)
    return "?" if n is None else count(n)


def totals(classes: Mapping[str, Any]) -> dict[str, int]:
    """Error class -> number over all groups, the commonest first."""
    found: dict[str, int] = {}
    for counts in _by_group(classes).values():
        for name, n in counts.items():
            found[name] = found.get(name, 0) + n
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def _by_group(classes: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Counts by group, without the group "all" where there are others, and without zeros."""
    inner = {group: counts for group, counts in classes.items() if group not in OVERALL} or classes
    return {
        str(group): {str(name): int(v) for name, n in (counts or {}).items() if (v := figure_value(n))}
        for group, counts in inner.items()
    }


def _errors(classes: Mapping[str, Any]) -> str:
    """Stacked bars of the first error's class, with every count in a table below."""
    by_group, all_classes = _by_group(classes), totals(classes)
    if not all_classes:
        return "<h3>First errors</h3>" + absent("No first errors were classified.")
    shown = list(all_classes)[:SHOWN_ERRORS]
    bars, rows = [], []
    for group, counts in by_group.items():
        total = sum(counts.values())
        parts = [(i, name, counts.get(name, 0)) for i, name in enumerate(shown)]
        parts.append((SHOWN_ERRORS, "other", total - sum(n for _, _, n in parts)))
        pieces = "".join(
            f'<span class="part e{i}" style="flex:{n}" title="{esc(name)}: {n} of {total}">'
            f"<span>{esc(name)} {percent(n / total)}</span></span>"
            for i, name, n in parts
            if n
        )
        head = name_cell(group or "all")
        bars.append(f'{head}<td class="stack"><div aria-hidden="true">{pieces}</div></td>{num_cell(count(total))}')
        rows.append(head + "".join(num_cell(count(counts.get(name, 0))) for name in all_classes))
    meanings = [f"<b>{esc(name)}</b> {esc(ERRORS.get(name, ''))}" for name in shown]
    key = [f'<li><i class="e{i}"></i>{meaning}</li>' for i, meaning in enumerate(meanings)]
    if len(all_classes) > len(shown):
        key.append(f'<li><i class="e{SHOWN_ERRORS}"></i>other</li>')
    heads = [("distribution", "name"), ("class of the first error", "text"), ("traces with one", "num")]
    counts_heads = [("distribution", "name"), *((name, "num") for name in all_classes)]
    return (
        f'<h3>First errors</h3>{table(heads, bars, "stacks")}<ul class="key">{"".join(key)}</ul>'
        f"<details><summary>Counts</summary>{table(counts_heads, rows, 'plain')}</details>"
    )


# -- pictures ----------------------------------------------------------------------------------------------------------


def onset(study: Mapping[str, Any], charts: Mapping[str, Any]) -> str:
    """Where failures begin, and what the entropy does there."""
    curve, picture = charts.get("onset"), charts.get("entropy")
    drawn = (_onset_figure(study, curve) if curve else "") + (_entropy_figure(study, picture) if picture else "")
    return section(
        "onset",
        "Onset",
        f'<div class="figures">{drawn}</div>' if drawn else "",
        "" if curve else absent("There is no onset curve: no failure has a known first wrong token."),
        "" if picture else absent("There is no entropy picture in this study."),
    )


def _onset_figure(study: Mapping[str, Any], curve: Mapping[str, Any]) -> str:
    text = "Share of failures whose first wrong step begins at or before a position in the trace."
    early, chance = onset_figure(study, "share_30"), onset_figure(study, "null_30")
    if early:
        text += f" At 30{THIN}% it stands at {early.percent()}{f', {count(early.n)} problems' if early.n else ''}"
        text += f"; onsets placed by chance come to {percent(chance.value)}." if chance else "."
    key = [("band", f"failures, with a 95{THIN}% band"), ("dotted", "evenly spread")]
    if curve.get("null"):
        key.insert(1, ("dashed", "onsets placed by chance in a trace of typical length"))
    names = {"x": "position", "y": "share of failures", "low": "low", "high": "high", "null": "by chance"}
    return _chart("onset", "Where failures begin", text, key, names, curve)


def _entropy_figure(study: Mapping[str, Any], picture: Mapping[str, Any]) -> str:
    text = "Mean entropy of the tokens around the first wrong token, which stands at 0, in nats."
    n = figure(dig(study, "entropy", "aligned", "n_onset"))
    text += f" n{THIN}={THIN}{number(n.value)} failures." if n else ""
    key = [("band", f"failures, with a 95{THIN}% band")]
    if picture.get("control"):
        key.append(("dashed", "control: like tokens of traces in which nothing is wrong"))
    names = {"x": "offset", "y": "entropy", "low": "low", "high": "high", "control": "control"}
    return _chart("entropy", "Entropy at the wrong turn", text, key, names, picture)


def _chart(
    name: str, title: str, text: str, key: Iterable[tuple[str, str]], names: Mapping[str, str], curve: Mapping[str, Any]
) -> str:
    """A figure: the script draws into it; its values are also there as a table."""
    columns = {head: curve[column] for column, head in names.items() if curve.get(column)}
    n, most = len(curve["x"]), 13
    picked = sorted({round(i * (n - 1) / (most - 1)) for i in range(most)}) if n > most else list(range(n))
    rows = ["".join(num_cell(number(column[i])) for column in columns.values()) for i in picked]
    samples = "".join(f"<li>{sample(kind)}{esc(meaning)}</li>" for kind, meaning in key)
    return (
        f'<figure><h3>{esc(title)}</h3><div class="chart" id="chart-{name}" role="img" aria-label="{esc(text)}"></div>'
        f'<ul class="key">{samples}</ul><figcaption>{esc(text)}</figcaption><details><summary>Values</summary>'
        f"{table([(head, 'num') for head in columns], rows, 'plain')}</details></figure>"
    )


# -- claims ------------------------------------------------------------------------------------------------------------


def claims(study: Mapping[str, Any]) -> str:
    """Published claims against this run."""
    rows = [_claim(claim) for claim in dig(study, "claims") or [] if isinstance(claim, Mapping)]
    if not rows:
        return section("claims", "Published claims", absent("No published claims were checked in this study."))
    note = "A verdict is read off the 95 % interval alone. Verdicts are not corrected for being many."
    heads = [(text, "text") for text in ("claim", "published", "here", "verdict")]
    return section("claims", "Published claims", table(heads, rows, "claims cards"), f'<p class="note">{esc(note)}</p>')


def _claim(claim: Mapping[str, Any]) -> str:
    f = figure(claim.get("estimate"))
    n = figure_value(claim.get("n")) or (f.n if f else None)
    here = esc(f.plain()) if f else "not measured"
    here += f' <span class="ci">n{THIN}={THIN}{number(n)}</span>' if n else ""
    verdict = str(claim.get("verdict") or "cannot be told").replace("_", " ")
    published = claim.get("published")
    printed = number(float(published)) if isinstance(published, int | float) else str(published or "–")
    detail = f'<p class="note">{esc(claim["detail"])}</p>' if claim.get("detail") else ""
    name = str(claim.get("name") or "").replace("_", " ")
    return (
        f'<th scope="row"><span class="name">{esc(name)}</span>{esc(claim.get("text") or "")}{detail}</th>'
        f'<td data-label="published">{esc(printed)}</td><td data-label="here">{here}</td>'
        f'<td data-label="verdict"><span class="chip {VERDICTS.get(verdict, "open")}">{esc(verdict)}</span></td>'
    )


# -- what else a study found -------------------------------------------------------------------------------------------


def further(study: Mapping[str, Any]) -> str:
    """Recovery, detectors and predictors; nothing where a study has none of them."""
    saved, found = _recovery(dig(study, "recovery")), _detectors(dig(study, "entropy_onset"))
    foretold = _predictors(dig(study, "predictors"))
    title = "Rescue, detection, prediction"
    return section("further", title, saved, found, foretold) if saved or found or foretold else ""


def _words(name: object) -> str:
    return str(name).replace("_", " ")


def _recovery(recovery: Any) -> str:
    conditions = dig(recovery, "conditions") or {}
    if not conditions:
        return ""
    rows = [
        name_cell(_words(name))
        + cells(figure(dig(found, "mean")), "one continuation is right")
        + cells(figure(dig(found, "any_of")), "any of several is right")
        + num_cell(number(figure_value(dig(found, "decoded"))), "decoded tokens")
        + num_cell(number(figure_value(dig(found, "n_parents"))), "failures")
        for name, found in conditions.items()
    ]
    m = next((int(v) for found in conditions.values() if (v := figure_value(dig(found, "m")))), 0)
    heads = [("continued from", "name"), ("one continuation is right", "figure"), (f"any of {m} is right", "figure")]
    heads += [("decoded tokens each", "num"), ("failures", "num")]
    contrasts = {name: f for name, x in (dig(recovery, "contrasts") or {}).items() if (f := figure(x))}
    said = "; ".join(f"{_words(name)}: {plus(f.value, f.low, f.high)}" for name, f in contrasts.items())
    note = f'<p class="note">{esc(f"On the same failures, {said}.")}</p>' if said else ""
    return f"<h3>Can a failure still be saved?</h3>{table(heads, rows)}{note}"


def _detectors(detectors: Any) -> str:
    if not isinstance(detectors, Mapping) or not detectors:
        return ""
    rows = [
        name_cell(_words(name))
        + cells(figure(dig(found, "exact")), "names the wrong token")
        + cells(figure(dig(found, "segment")), "names its step")
        + num_cell(percent(figure_value(dig(found, "segment", "base_rate"))), "its step, by chance")
        + cells(figure(dig(found, "false_alarm")), "false alarm")
        for name, found in detectors.items()
    ]
    heads = [("from entropy alone", "name"), ("names the wrong token", "figure"), ("names its step", "figure")]
    heads += [("its step, by chance", "num"), ("alarm in a right trace", "figure")]
    return f"<h3>Can entropy find the wrong turn?</h3>{table(heads, rows)}"


def _predictors(predictors: Any) -> str:
    found = [p for p in predictors or [] if isinstance(p, Mapping) and figure(p.get("pooled"))]
    wrong_answers = [p for p in found if p.get("target") in ("outcome", None)] or found
    if not wrong_answers:
        return ""
    reach = _reach(figure(p.get("adds")) for p in wrong_answers)
    rows = [
        name_cell(_words(p.get("signal") or p.get("name") or "?"))
        + cells(figure(p.get("pooled")), "over all problems", kind="plain")
        + cells(figure(p.get("within")), "within problems", kind="plain")
        + cells(figure(p.get("adds")), "adds to length", -reach, reach, "points")
        for p in wrong_answers
    ]
    heads = [("AUROC for a wrong answer", "name"), ("over all problems", "figure"), ("within problems", "figure")]
    heads += [("adds at equal length, points", "figure")]
    note = (
        "AUROC: 0.5 is chance. Over all problems it is mostly about which problem is hard; within problems only traces "
        "of one problem are compared. The last column is the change in the failure rate per standard deviation of the "
        "signal, between traces of one problem and of equal length."
    )
    return f'<h3>Can a failure be foretold?</h3>{table(heads, rows)}<p class="note">{esc(note)}</p>'


# -- footer ------------------------------------------------------------------------------------------------------------

_FACTS = (
    "engine", "model", "task", "strategies", "strategy", "samples", "sampling", "max_tokens", "budget", "seed", "top_k",
    "traces", "created", "versions",
)  # fmt: skip


def footer(facts: Mapping[str, Any]) -> str:
    """Engine, model, seed, versions, and the command that makes this page again."""
    known = {name: facts[name] for name in _FACTS if facts.get(name) not in (None, "", {}, [])}
    rows = "".join(f"<dt>{esc(_words(name))}</dt><dd>{esc(_said(value))}</dd>" for name, value in known.items())
    command = facts.get("command")
    again = f"<pre><code>{esc(command)}</code></pre>" if command else absent("The command was not recorded.")
    return (
        f"<h2>Reproduce</h2>\n{again}\n<dl>{rows}</dl>\n"
        '<p class="note">One file; it loads nothing from the network. Charts: uPlot 1.6.32, MIT licence.</p>'
    )


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{_words(k)} {_said(v)}" for k, v in value.items() if v is not None)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "; ".join(_said(item) for item in value)
    return count(value) if isinstance(value, int) and not isinstance(value, bool) and value > 9999 else str(value)
