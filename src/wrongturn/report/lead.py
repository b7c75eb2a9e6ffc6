"""The three sentences a report begins with: what was solved, where it failed, what rescued it.

Plain HTML from the figures of a study. Any figure may be missing: the sentence then says so, or leaves it out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from wrongturn.report.charts import onset_figure
from wrongturn.report.figures import THIN, Figure, count, dig, esc, figure, number, percent, percent_range, plus
from wrongturn.report.groups import OVERALL, totals
from wrongturn.report.sections import baseline_of, beyond_votes, is_bound
from wrongturn.tasks.registry import ERRORS


def lead(study: Mapping[str, Any], comparison: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> str:
    """What happened, in three sentences; a fourth where some of it could not be made."""
    sentences = [_solved(study, facts), _turned(study), _rescued(comparison), *_failed(facts)]
    return f'<div class="lead" id="summary">{"".join(f"<p>{esc(sentence)}</p>" for sentence in sentences)}</div>'


def _solved(study: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    named = f"The model {facts.get('model') or ''}".strip()
    who = "The embedded reasoner" if facts.get("engine") == "embedded" else named
    accuracy = dig(study, "accuracy") or {}
    overall = next((f for key in OVERALL if (f := figure(dig(accuracy, key)))), None) or figure(facts.get("accuracy"))
    if overall is None:
        return f"{who} wrote {count(int(facts.get('traces') or 0))} traces; how many are right is not known."
    task = f"{str(facts.get('task') or '').replace('_', ' ').removesuffix(' search')} problems".strip()
    n = overall.n or 0  # problems with a graded trace, and below their graded traces: the rest is no failure
    m = int(facts.get("graded") or n)
    solved = f"solved {count(round(overall.value * n))} of {count(n)} {task}"
    if m != n:
        solved = f"was right in {count(round(overall.value * m))} of {count(m)} traces of {count(n)} {task}"
    between = f", 95{THIN}% interval {percent_range(overall.low, overall.high)}" if overall.bounded else ""
    by_group = {name: f for name, x in accuracy.items() if name not in OVERALL and (f := figure(x))}
    spread = ""
    if len(by_group) > 1:
        best, worst = (pick(by_group, key=lambda name: by_group[name].value) for pick in (max, min))
        spread = f", from {percent(by_group[best].value)} on {best} down to {percent(by_group[worst].value)} on {worst}"
    ungraded = int(facts.get("ungraded") or 0)
    rest = f"; {count(ungraded)} of {count(m + ungraded)} traces are not graded" if ungraded else ""
    return f"{who} {solved} ({percent(overall.value)}{between}){spread}{rest}."


def _failed(facts: Mapping[str, Any]) -> list[str]:
    failed, why = facts.get("failed") or {}, facts.get("why") or {}
    if not failed:
        return []
    kinds = "; ".join(f"{f'{count(n)} ' if len(failed) > 1 else ''}{kind}: {why[kind]}" for kind, n in failed.items())
    them = "1 trace" if sum(failed.values()) == 1 else f"{count(sum(failed.values()))} traces"
    return [f"{them} could not be made ({kinds}). The command that made the run tries again."]


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
    tried = [row for row in comparison if not is_bound(row) and row.get("strategy") != base]
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
    dear = beyond_votes(comparison)
    return f"{text}; {dear}." if dear else f"{text}."
