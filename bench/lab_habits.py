"""Do habits of search make reinforcement work? Countdown reasoners that were taught the habits, and that were not.

    python bench/lab_habits.py [--rounds 120] [search] [direct]    # trains, reinforces, measures what is not done yet
    python bench/lab_habits.py write                               # results and picture from what the runs have left

*search* learns the recipe's traces: detours with their verification and way back, sub-goals, goals worked out from the
target. *direct* learns such puzzles with the steps of the solution and the one verification that the grammar asks for.
Both see equally many tokens, then equally many rounds of reinforcement on C4, rewarded for right answers alone. The
claim is that of "Cognitive Behaviors that Enable Self-Improving Reasoners" (2025): who has the habits gains more.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from wrongturn import stats, tasks
from wrongturn.diagnose.intervals import share
from wrongturn.lab import grpo, picture
from wrongturn.lab.anatomy import anatomy
from wrongturn.lab.checkpoints import ancestor
from wrongturn.lab.countdown_examples import CountdownRecipe
from wrongturn.lab.evaluate import evaluate, plain, sample
from wrongturn.lab.machine import Machine
from wrongturn.lab.model import ModelConfig
from wrongturn.lab.recipes import words
from wrongturn.lab.train import TrainConfig, train
from wrongturn.trace import Trace

HERE = Path(__file__).parent
RESULTS, DOCS, RUNS = HERE / "results" / "lab_habits.json", HERE.parent / "docs", Path("runs/lab_habits")
ARMS = {"search": CountdownRecipe(batch=16), "direct": CountdownRecipe(batch=16, detours=0.0, backward=0.0)}
STAGES = ("taught", "reinforced")
TOKENS, GOAL = 12_000_000, "C4"
N_GREEDY, N_SAMPLED, SAMPLES = 500, 200, 4


def measure(arm: str, rounds: int) -> None:
    """Train, reinforce and measure one arm, unless that is done; what was found stays in its folder."""
    folder, recipe = RUNS / arm, ARMS[arm]
    if (folder / "found.json").exists():
        return
    taught, reinforced = folder / "taught", folder / "reinforced"
    shape = ModelConfig(vocab=len(words(recipe.task)), context=recipe.context)
    train(TrainConfig(model=shape, recipe=recipe, tokens=TOKENS), taught, machine=Machine(compile=True))
    model, start, sha = ancestor(taught)
    config = grpo.GrpoConfig(model, recipe.task, GOAL, rounds, ancestor=sha)
    grpo.train(config, reinforced, start=start, evaluate_every=10)
    found = {stage: describe(folder / stage) for stage in STAGES}
    found["rounds"] = [json.loads(line) for line in (reinforced / "log.jsonl").read_text().splitlines()]
    (folder / "found.json").write_text(json.dumps(found, indent=1) + "\n")


def describe(folder: Path) -> dict[str, Any]:
    """Accuracy, habits, length, and the share of right samples of each puzzle."""
    traces, problems = sample(folder, n=N_SAMPLED, samples=SAMPLES)
    right: dict[str, dict[str, float]] = {}
    for t in traces:
        of = right.setdefault(t.group, {})
        of[t.problem] = of.get(t.problem, 0.0) + bool(t.correct) / SAMPLES
    return {
        "greedy": evaluate(folder, n=N_GREEDY)["results"],
        "right": {group: list(of.values()) for group, of in right.items()},
        "tokens": {group: float(np.mean([len(t.ids) for t in traces if t.group == group])) for group in right},
        "exact": {group: float(np.mean([t.error is None for t in traces if t.group == group])) for group in right},
        "goal_lines": {f"{group}, {name}": plain(of) for group in right for name, of in goal_lines(traces, group)},
        "anatomy": anatomy(traces, problems).dict(),
    }


def goal_lines(traces: list[Trace], group: str) -> list[tuple[str, stats.Estimate]]:
    """How many samples have a line that names a goal, and how many are right of those with and without one."""
    task, of = tasks.get("countdown_search"), [t for t in traces if t.group == group]
    names = np.array(["@" in "".join(task.pieces(t.ids)) for t in of])
    right, problem = np.array([bool(t.correct) for t in of]), np.array([t.problem for t in of])
    kinds = (("right with", names), ("right without", ~names))
    return [("with", share(names, problem)), *((kind, share(right[k], problem[k])) for kind, k in kinds if k.any())]


# -- what the arms say together ----------------------------------------------------------------------------------------


def gains(found: dict[str, Any]) -> dict[str, Any]:
    """Right samples, and the puzzles of which at least one of the four is right: after minus before, and search's gain
    minus direct's; shares, paired bootstrap over the same puzzles."""
    out: dict[str, Any] = {}
    for group in found["search"]["taught"]["right"]:
        shares = {(arm, s): np.array(of[s]["right"][group]) for arm, of in found.items() for s in STAGES}
        solved = {which: (share > 0).astype(float) for which, share in shares.items()}
        for what, rows in (("a sample", shares), (f"one of {SAMPLES}", solved)):
            table = {f"{arm}, {stage}": plain(stats.bootstrap(row, np.mean)) for (arm, stage), row in rows.items()}
            gained = {arm: rows[arm, "reinforced"] - rows[arm, "taught"] for arm in found}
            table |= {f"{arm}, gain": plain(stats.bootstrap(gain, np.mean)) for arm, gain in gained.items()}
            more = stats.bootstrap(gained["search"] - gained["direct"], np.mean)
            table["search's gain minus direct's"] = plain(more)
            out[f"{group}, {what}"] = table
    return out


def write() -> None:
    found = {arm: json.loads((RUNS / arm / "found.json").read_text()) for arm in ARMS}
    facts = {"gains": gains(found), "arms": found}
    RESULTS.write_text(json.dumps(facts, indent=1) + "\n")
    for what, table in facts["gains"].items():
        print(what)
        for name, e in table.items():
            print(f"  {name:32} {100 * e['value']:5.1f} [{100 * e['low']:.1f}, {100 * e['high']:.1f}]")
    for arm, of in found.items():
        for stage in STAGES:
            shown = of[stage]
            print(arm, stage, {k: {g: round(v, 2) for g, v in shown[k].items()} for k in ("tokens", "exact")})
            for g in shown["anatomy"]["habits"]["groups"]:
                counts = {habit: round(kinds["all"]["count"]["value"], 2) for habit, kinds in g["habits"].items()}
                print("   ", g["distribution"], "lines a trace:", counts)
    series = {
        f"{arm}: {text}": [(0.0, before(of, group)), *((r["step"], r[key]) for r in of["rounds"] if key in r)]
        for arm, of in found.items()
        for text, key, group in ((f"{GOAL}, greedy", "right_goal", GOAL), ("C3, greedy", "right", "C3"))
    }
    title = "Countdown: right answers during reinforcement on C4, %"
    pictures = [picture.curves(title, series, "rounds of 24 puzzles x 8 samples")]
    for stage, text in zip(STAGES, ("before", "after"), strict=True):
        groups = found["search"][stage]["anatomy"]["habits"]["groups"]
        pictures.append(picture.habits(f"Habits {text} reinforcement (taught to search)", groups))
    (DOCS / "lab-habits.svg").write_text(picture.stack(pictures), encoding="utf-8")


def before(of: dict[str, Any], group: str) -> float:
    rows = {r["distribution"]: r["path_accuracy"]["value"] for r in of["taught"]["greedy"]}
    return rows[group]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", default=list(ARMS), metavar="search|direct|write")
    parser.add_argument("--rounds", type=int, default=120)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    for arm in asked.names:
        if arm != "write":
            measure(arm, asked.rounds)
    if all((RUNS / arm / "found.json").exists() for arm in ARMS):
        write()


if __name__ == "__main__":
    main()
