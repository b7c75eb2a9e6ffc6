"""Right answers and first errors per distribution.

Plain HTML from the figures of a study, of which any may be missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wrongturn.report.figures import (
    absent,
    cells,
    count,
    dig,
    esc,
    figure,
    figure_value,
    name_cell,
    num_cell,
    percent,
    section,
    table,
)
from wrongturn.tasks.registry import ERRORS

SHOWN_ERRORS = 6  # classes with a shade of their own in the bars; the rest is "other"
OVERALL = ("", "all", "overall", "total")
"""Names a study may give to the figure over all groups."""


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
