"""Strategies compared, published claims, what else a study found, and the footer of a report.

Plain HTML from the figures of a study, of which any may be missing.
"""

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
    figure_value,
    name_cell,
    num_cell,
    number,
    percent,
    plus,
    section,
    table,
)

VERDICTS = {"holds": "yes", "does not hold": "no", "cannot be told": "open"}


# -- strategies --------------------------------------------------------------------------------------------------------


def baseline_of(comparison: Sequence[Mapping[str, Any]]) -> str | None:
    """The strategy the differences are against: the row that has none."""
    return next((str(row.get("strategy")) for row in comparison if figure(row.get("difference")) is None), None)


def is_bound(row: Mapping[str, Any]) -> bool:
    """An upper bound that looks at the reference answers, and no strategy."""
    return str(row.get("strategy")).startswith("oracle")


def beyond_votes(comparison: Sequence[Mapping[str, Any]]) -> str | None:
    """Which strategies spent more than any vote that was collected, so that nothing is known at equal tokens."""
    dear = {str(row.get("strategy")): f for row in comparison if (f := figure_value(row.get("beyond_votes")))}
    if not dear:
        return None
    largest = number(round(next(iter(dear.values()))))
    return f"{', '.join(dear)} spent more than the largest vote collected ({largest} tokens)"


def strategies(comparison: Sequence[Mapping[str, Any]]) -> str:
    """The comparison table."""
    if not comparison:
        return section(
            "comparison", "Strategies compared", absent("No strategies were compared: they share no graded problem.")
        )
    base = baseline_of(comparison)
    columns = [("difference", f"against {base or 'the baseline'}")]
    if any(figure(row.get("equal_tokens")) for row in comparison):
        columns.append(("equal_tokens", "against votes at equal tokens"))
    budgets = [row.get("budget") for row in comparison]
    rows = []
    for row in comparison:
        accuracy, cost = figure(row.get("accuracy")), figure(row.get("decoded_tokens"))
        row_cells = [name_cell(row.get("strategy", "?"), "upper bound" if is_bound(row) else "")]
        row_cells.append(cells(accuracy, "right answers"))
        for key, label in columns:
            reach = _reach(figure(other.get(key)) for other in comparison if not is_bound(other))
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
            "“Votes at equal tokens” is self-consistency with as many samples as the same decoded tokens would buy, "
            "one at least."
        )
    elif len(set(budgets)) == 1 and budgets[0]:
        said.append(f"All had the same budget: {number(figure_value(budgets[0]))} decoded tokens a problem.")
    else:
        said.append("The strategies did not spend the same: read a difference together with the tokens it cost.")
    if dear := beyond_votes(comparison):
        said.append(f"{dear}, so there is nothing to compare with at equal tokens.")
    if ungraded := figure_value(comparison[0].get("ungraded")):
        said.append(f"Problems left out, as not every answer to them is graded: {number(ungraded)}.")
    if any(is_bound(row) for row in comparison):
        said.append("An upper bound picks its answer knowing the right one; no strategy can.")
    said.append(f"Intervals are 95{THIN}%, one row at a time: the best of many rows is so in part by luck.")
    return f'<p class="note">{esc(" ".join(said))}</p>'


def _reach(found: Iterable[Figure | None]) -> float:
    """The end of a scale around zero that holds every figure and its interval."""
    return max((abs(x) for f in found if f for x in (f.value, f.low, f.high) if x is not None), default=0.0) or 0.1


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
