"""How many rollouts it takes to find where a failed trace was lost. Run: python bench/bisection.py [simulate] [measure]

measure: failed traces of the packaged reasoner whose true onset its checker knows; the bisection, OmegaPRM's rule and
the full curve on the same traces, each at several prices, out of one bank of rollouts (kept in the folder, so that the
command goes on where it stopped). simulate: traces of known value, one step down and others: hit rate, coverage, and
how often something is "found" that is not there. Shares have intervals.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is loaded

import numpy as np

import wrongturn
from wrongturn.diagnose import segments
from wrongturn.diagnose.intervals import share
from wrongturn.diagnose.modes.figure import BLUE, BOTTOM, GREY, HEIGHT, LEFT, RIGHT, TOP, WIDTH, head, text
from wrongturn.diagnose.recoverability import bisection, curve, omega
from wrongturn.diagnose.recoverability.designs import Ask, Onset, Plan, Spans, dead
from wrongturn.diagnose.recoverability.worlds import World, even
from wrongturn.locating import Located, locate
from wrongturn.pipeline import wait
from wrongturn.stats import paired_bootstrap, proportion
from wrongturn.store import Run

RESULTS = Path(__file__).parent / "results" / "bisection.json"
PICTURES = Path(__file__).parents[1] / "docs" / "images"
SETS = {
    "late": (("G15_5,6", "G17_5,6", "G20_5,6"), 120, 1.0, 11),
    "spread": (("G15_2,4", "G20_2,4"), 150, 2.5, 12),
}
"""Distributions, problems of each, temperature, seed. Hotter sampling goes wrong anywhere, not only at the end."""
BUDGETS = (8, 12, 16, 24, 32, 48, 64)
TRIES = (1, 2, 4, 8, 16)
EACH = (1, 2, 4)

Rule = Callable[[Spans], Plan]


def rules() -> dict[str, Rule]:
    """Every method at every price. Without ``confirm`` the bisection's budget is all for the search, as the others'."""
    made: dict[str, Rule] = {"bisection (default)": lambda spans: bisection(spans, 64)}
    for b in BUDGETS:
        made[f"bisection {b}"] = lambda spans, b=b: bisection(spans, b, confirm=0)
    for k in TRIES:
        made[f"omegaprm {k}"] = lambda spans, k=k: omega(spans, k)
        made[f"departure {k}"] = lambda spans, k=k: departure(spans, k)
    for k in EACH:
        made[f"curve {k}"] = lambda spans, k=k: curve(spans, k)
    for b in (16, 32, 64):
        made[f"bisection, not shared {b}"] = lambda spans, b=b: bisection(spans, b, confirm=0, share=False)
    return made


def departure(spans: Spans, tries: int) -> Plan:
    """The simplest use of where rollouts leave: the last step at which a right one from the start departs."""
    rollouts = yield Ask(0, tries)
    left = [rollout.left for rollout in rollouts if rollout.right]
    if not left:
        return dead(tries)
    return Onset("found", step=int(np.searchsorted(spans[:, 1], max(left), side="right")), token=max(left))


def measure(name: str, folder: Path) -> dict[str, Any]:
    """Every rule on the failed traces of one set."""
    groups, n, temperature, seed = SETS[name]
    engine = wrongturn.open("embedded")
    problems = [p for group in groups for p in wrongturn.tasks.GraphSearch().problems(group, n, seed)]
    sampling = wrongturn.Sampling(temperature)
    wrongturn.collect(engine, problems, out=folder / name, sampling=sampling, top_k=0)
    settings, rows, by_rule = Run.open(folder / name).settings, [], {}
    found: tuple[Located, ...] = ()
    for rule, plan in rules().items():
        with Run.create(folder / name, settings) as run:
            found = wait(locate(engine, run, plan, method=rule)).found
            run.compact()
        by_rule[rule] = [row for row in found if row.true_step is not None]
        rows.append(row_of(rule, by_rule[rule]))
        print(name, rule, json.dumps(rows[-1])[:330], file=sys.stderr, flush=True)
    known = by_rule["bisection 64"]
    places = {"last": -1, "last but one": -2, "last but two": -3}
    constant = {
        label: tell([abs(max(row.steps + back, 0) - row.true_step) <= 1 for row in known], known)
        for label, back in places.items()
    }
    return {
        "set": {"groups": groups, "problems": n * len(groups), "temperature": temperature, "seed": seed},
        "failed": len(found),
        "with_onset": len(known),
        "steps": float(np.mean([row.steps for row in known])),
        "onset_in_trace": float(np.mean([row.true_step / row.steps for row in known])),
        "random_step": float(np.mean([row.chance for row in known])),
        "always": constant,
        "values": reasoner(folder / name, known),
        "rules": rows,
        "differences": differences(by_rule),
    }


def reasoner(folder: Path, known: list[Located]) -> dict[str, Any]:
    """What the cuts are worth, from the rollouts that the full curve took: as many at every cut, chosen by nobody."""
    run, places = Run.open(folder), {row.trace: row for row in known}
    task = wrongturn.tasks.GraphSearch()
    parents = {trace.id: trace for trace in run.traces(top_k=False, strategy="sample") if trace.id in places}
    starts = {name: segments(task, trace)[:, 0].tolist() for name, trace in parents.items()}
    right: dict[str, list[bool]] = defaultdict(list)
    for child in run.traces(top_k=False, strategy="resample:locate"):
        fork = child.lineage
        if (
            fork is None
            or child.sample >= max(EACH)
            or fork.parent not in parents
            or fork.at not in starts[fork.parent]
        ):
            continue
        parent, row, n = parents[fork.parent], places[fork.parent], min(len(child), len(parents[fork.parent]))
        differ = np.flatnonzero(child.ids[:n] != parent.ids[:n])
        step, good = starts[fork.parent].index(fork.at), bool(child.correct)
        assert row.true_step is not None
        assert row.true_token is not None
        side = "before the onset" if step <= row.true_step else "after the onset"
        right[f"cut {side}"].append(good)
        if not len(differ):
            right["repeats the trace"].append(good)
        elif step <= row.true_step:
            away = int(differ[0]) - row.true_token
            where = "at the wrong token" if not away else "earlier" if away < 0 else "later"
            right[f"cut before, leaves {where}"].append(good)
    return {name: proportion(sum(rows), len(rows)).dict() for name, rows in sorted(right.items())}


def row_of(rule: str, found: list[Located]) -> dict[str, Any]:
    steps = [row.onset.step for row in found]
    exact = [step == row.true_step for step, row in zip(steps, found, strict=True)]
    token = [row.onset.token == row.true_token for row in found]
    told = [row for row in found if row.onset.tokens is not None]
    sure = [row for row in found if row.onset.status == "found"]
    live = [row for row in found if row.onset.step is not None]
    return {
        "rule": rule,
        "near": tell([row.near for row in found], found),
        "exact": tell(exact, found),
        "token": tell(token, found),
        "near_where_named": tell([row.near for row in live], live),
        "named": len(live),
        "found": len(sure),
        "near_where_found": tell([row.near for row in sure], sure),
        "steps_hold_true": tell([_holds(row.onset.steps, row.true_step) for row in told], told),
        "tokens_hold_true": tell([_holds(row.onset.tokens, row.true_token) for row in told], told),
        "rollouts": float(np.mean([row.onset.rollouts for row in found])),
        "decoded": float(np.mean([row.onset.decoded for row in found])),
    }


def _holds(span: tuple[int, int] | None, true: int | None) -> bool:
    assert span is not None
    assert true is not None
    return span[0] <= true <= span[1]


def differences(by_rule: dict[str, list[Located]]) -> list[dict[str, Any]]:
    """Hit rate of the bisection at some prices minus that of every other rule, paired by trace, problems resampled."""
    told = []
    for ours in ("bisection 8", "bisection 16", "bisection 32"):
        for other, rows in by_rule.items():
            if other.startswith(("omega", "curve", "departure")):
                clusters = [row.problem for row in rows]
                a, b = ([row.near for row in by_rule[rule]] for rule in (ours, other))
                saved = np.mean([r.onset.rollouts for r in by_rule[ours]]) / np.mean([r.onset.rollouts for r in rows])
                gain = paired_bootstrap(a, b, clusters=np.array(clusters)).dict()
                told.append({"rule": ours, "against": other, "near": gain, "rollouts_ratio": float(saved)})
    return told


def tell(hits: list[Any], rows: list[Located]) -> dict[str, Any]:
    return share(np.array(hits, float), np.array([row.problem for row in rows])).dict()


def picture(told: dict[str, Any]) -> str:
    """Hit rate against rollouts, one line a method. An SVG file."""
    colours = {"bisection": BLUE, "omegaprm": "#b2182b", "curve": GREY, "departure": "#e08214"}
    colours["bisection, not shared"] = "#7fbf7b"
    lines = {
        name: [row for row in told["rules"] if re.fullmatch(re.escape(name) + r" \d+", row["rule"])] for name in colours
    }
    most = max(row["rollouts"] for row in told["rules"])

    def x(rollouts: float) -> float:
        return LEFT + rollouts / most * (WIDTH - LEFT - RIGHT)

    def y(hits: float) -> float:
        return HEIGHT - BOTTOM - hits * (HEIGHT - TOP - BOTTOM)

    groups = ", ".join(told["set"]["groups"])
    subtitle = f"{told['with_onset']} failed traces of {groups}, temperature {told['set']['temperature']:g}"
    parts = head("Onsets located within one step, by rollouts spent on a trace", subtitle)
    for tick in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0):
        parts += [
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}" stroke="#eeeeee"/>',
            text(LEFT - 8, y(tick) + 4, f"{100 * tick:g} %", anchor="end"),
        ]
    parts += [text(x(n), HEIGHT - BOTTOM + 18, str(n), anchor="middle") for n in range(0, int(most) + 1, 10)]
    parts.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - BOTTOM + 38, "rollouts a trace, mean", anchor="middle"))
    for place, (name, rows) in enumerate(lines.items()):
        points = sorted(
            (row["rollouts"], row["near"]["value"], row["near"]["low"], row["near"]["high"]) for row in rows
        )
        parts += [
            f'<line x1="{x(n):.1f}" x2="{x(n):.1f}" y1="{y(low):.1f}" y2="{y(high):.1f}" stroke="{colours[name]}" '
            'stroke-opacity="0.35"/>'
            for n, _, low, high in points
        ]
        joined = " ".join(f"{x(n):.1f},{y(hits):.1f}" for n, hits, _, _ in points)
        parts.append(f'<polyline points="{joined}" fill="none" stroke="{colours[name]}" stroke-width="2"/>')
        parts += [f'<circle cx="{x(n):.1f}" cy="{y(h):.1f}" r="3" fill="{colours[name]}"/>' for n, h, _, _ in points]
        parts.append(text(WIDTH - RIGHT - 8, y(0.66) + 18 * place, name, anchor="end", colour=colours[name]))
    return "\n".join((*parts, "</svg>")) + "\n"


# -- traces of known value ---------------------------------------------------------------------------------------------


Made = tuple[World, tuple[int, ...]]
"""A trace, and the steps at which its value falls (none: it does not, or all along)."""


def worlds() -> dict[str, Callable[[np.random.Generator], Made]]:
    """By name, which begins with the number of steps, of one token each: 64 for the published rates, else 14."""
    made: dict[str, Any] = {}
    for high, low in ((0.8, 0.0), (0.6, 0.03), (0.4, 0.05), (0.2, 0.02)):
        made[f"64 steps, {high} to {low}"] = lambda rng, h=high, w=low: step(rng, 64, h, w)
    for high, low in ((0.8, 0.0), (0.4, 0.05), (0.25, 0.1), (0.15, 0.0)):
        made[f"14 steps, {high} to {low}"] = lambda rng, h=high, w=low: step(rng, 14, h, w)
    made["14 steps, sharp: leaves at the onset, 0.25 of 0.6"] = sharp
    made["14 steps, slowly down from 0.8"] = lambda rng: (World.of_values(np.linspace(0.8, 0.0, 15)[:-1]), ())
    made["14 steps, down, up, down"] = twice
    made["14 steps, 0.02 throughout"] = lambda rng: (World.of_values(np.full(14, 0.02)), ())
    made["14 steps, never alive"] = lambda rng: (World.of_values(np.zeros(14)), ())
    return made


def step(rng: np.random.Generator, length: int, high: float, low: float) -> Made:
    onset = int(rng.integers(length))
    return World.of_step(length, onset, high, low), (onset,)


def sharp(rng: np.random.Generator) -> Made:
    """As the packaged reasoner: most continuations repeat the trace; what leaves it at the onset is mostly right."""
    onset = int(rng.integers(14))
    leave, rescue = np.full(14, 0.02), np.full(14, 0.04)
    rescue[:onset] = 0.15
    leave[onset], rescue[onset] = 0.25, 0.6
    return World(leave, rescue), (onset,)


def twice(rng: np.random.Generator) -> Made:
    """Lost at one step, found again at a later one, lost for good."""
    values = np.full(14, 0.6)
    first = int(rng.integers(1, 5))
    values[first : first + 4], values[first + 7 :] = 0.05, 0.05
    return World.of_values(values), (first - 1, first + 6)


def searches(width: int) -> dict[str, Callable[[], Plan]]:
    plans: dict[str, Callable[[], Plan]] = {}
    for b in (64, 160) if width == 64 else (64,):
        plans[f"bisection {b}"] = lambda b=b: bisection(even(width), b)
        plans[f"bisection {b}, no confirmation"] = lambda b=b: bisection(even(width), b, confirm=0)
        plans[f"bisection {b}, no confirmation, not shared"] = lambda b=b: bisection(
            even(width), b, confirm=0, share=False
        )
    for k in (4, 16):
        plans[f"omegaprm {k}"] = lambda k=k: omega(even(width), k)
        plans[f"departure {k}"] = lambda k=k: departure(even(width), k)
    return plans


def simulate(n: int) -> list[dict[str, Any]]:
    told = []
    for name, make in worlds().items():
        width = int(name.split()[0])
        for rule, plan in searches(width).items():
            rng = np.random.default_rng(5)
            ends = []
            for _ in range(n):
                world, onset = make(rng)
                ends.append((world.search(plan(), rng), onset))
            told.append({"world": name, "rule": rule} | _summary(ends))
            print(json.dumps(told[-1])[:400], file=sys.stderr, flush=True)
    return told


def _summary(ends: list[tuple[Onset, tuple[int, ...]]]) -> dict[str, Any]:
    known = [(onset, true) for onset, true in ends if true]
    spans = [(onset.steps, true) for onset, true in known if onset.steps is not None]
    return {
        "exact": _of([_away(onset, true) == 0 for onset, true in known]),
        "near": _of([_away(onset, true) <= 1 for onset, true in known]),
        "found": _of([onset.status == "found" for onset, _ in ends]),
        "found_wrong": _of([onset.status == "found" and _away(onset, true) > 1 for onset, true in ends]),
        "steps_hold_true": _of([any(span[0] <= t <= span[1] for t in true) for span, true in spans]),
        "rollouts": float(np.mean([onset.rollouts for onset, _ in ends])),
    }


def _away(onset: Onset, true: tuple[int, ...]) -> float:
    """Steps from the one named to the nearest true one."""
    return min((abs(onset.step - t) for t in true if onset.step is not None), default=math.inf)


def _of(hits: list[bool]) -> dict[str, Any]:
    return proportion(sum(hits), len(hits)).dict()


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("parts", nargs="*", help="simulate, measure (default: both)")
    asked.add_argument("--runs", type=Path, default=Path("bisection-runs"), help="where the rollouts are kept")
    asked.add_argument("--worlds", type=int, default=150, help="simulated traces a cell")
    asked.add_argument("--sets", nargs="*", default=list(SETS))
    options = asked.parse_args()
    told = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if not options.parts or "simulate" in options.parts:
        told["simulated"] = simulate(options.worlds)
        RESULTS.write_text(json.dumps(told, indent=1) + "\n")
    if not options.parts or "measure" in options.parts:
        for name in options.sets:
            told.setdefault("measured", {})[name] = measure(name, options.runs)
            RESULTS.write_text(json.dumps(told, indent=1) + "\n")
            PICTURES.mkdir(exist_ok=True)
            (PICTURES / f"onset_{name}.svg").write_text(picture(told["measured"][name]))


if __name__ == "__main__":
    main()
