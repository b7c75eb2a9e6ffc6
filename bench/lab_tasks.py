"""Reasoners of the other searches: depth-first, best-first, Countdown. Accuracy, first errors, habits, pictures.

    python bench/lab_tasks.py            # trains (resuming what is in runs/lab_tasks), measures, writes
    python bench/lab_tasks.py write      # pictures from bench/results/lab_tasks.json

Two hours on one quiet core, most of it training. Countdown also by how a trace begins: with a step, with a sub-goal, or
with a goal worked out backwards from the target.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from wrongturn import solve, stats, tasks
from wrongturn.engines.embedded import Embedded
from wrongturn.lab import picture
from wrongturn.lab.anatomy import anatomy
from wrongturn.lab.evaluate import evaluate, exported, fresh, plain, room, sample
from wrongturn.trace import Problem, Trace

HERE = Path(__file__).parent
RESULTS, DOCS, RUNS = HERE / "results" / "lab_tasks.json", HERE.parent / "docs", Path("runs/lab_tasks")
TRAININGS = {
    "countdown_search": ["--tokens", "12M", "--batch", "16"],
    "graph_search_dfs": ["--tokens", "6M", "--batch", "16", "--layers", "3"],
    "graph_search_best": ["--tokens", "6M", "--batch", "16", "--layers", "3"],
}
N_GREEDY, N_SAMPLED, SAMPLES = 500, 200, 4


def measure(task: str) -> dict[str, Any]:
    folder = RUNS / task
    train = [sys.executable, "-m", "wrongturn", "lab", "train", task, "--out", str(folder), *TRAININGS[task]]
    subprocess.run([*train, "--compile", "--threads", "1"], check=True)
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    found: dict[str, Any] = {name: log[-1][name] for name in ("tokens", "step", "seconds")}
    found["greedy"] = evaluate(folder, n=N_GREEDY)["results"]
    traces, problems = sample(folder, n=N_SAMPLED, samples=SAMPLES)
    found["sampled"] = {
        group: {kind: mean(right, [t.problem for t in traces if t.group == group]) for kind, right in of.items()}
        for group, of in outcomes(traces).items()
    }
    found["anatomy"] = anatomy(traces, problems).dict()
    if task == "countdown_search":
        found["openings"] = openings(traces, problems) | {"greedy": greedy_openings(folder)}
    return found


def path_lengths(task: str, distribution: str = "G15_2,4", n: int = 1000) -> dict[int, int]:
    """How many right searches end with a path of so many edges."""
    edges = [(problem.reference or "").count(",") for problem in fresh(distribution, n, 1, task)]
    return {length: edges.count(length) for length in sorted(set(edges))}


def outcomes(traces: list[Trace]) -> dict[str, dict[str, list[bool]]]:
    groups = dict.fromkeys(t.group for t in traces)
    return {
        g: {
            "answer": [bool(t.correct) for t in traces if t.group == g],
            "trace": [t.error is None for t in traces if t.group == g],
        }
        for g in groups
    }


def mean(values: list[bool], problems: list[str]) -> dict[str, Any]:
    """A share of traces, 95 % bootstrap interval over problems."""
    return plain(stats.bootstrap(np.array(values, float), np.mean, clusters=problems)) | {"traces": len(values)}


def openings(traces: list[Trace], problems: dict[str, Problem]) -> dict[str, Any]:
    """Right answers by the first line of the trace, and in which kind of line first errors stand."""
    task, found = tasks.get("countdown_search"), {}
    texts = [task.pieces(t.ids) for t in traces]
    kinds = [opening(text) for text in texts]
    for group in dict.fromkeys(t.group for t in traces):
        for kind in ("step", "sub-goal", "backwards"):
            rows = [t for t, k in zip(traces, kinds, strict=True) if (t.group, k) == (group, kind)]
            if rows:
                found[f"{group}, {kind}"] = mean([bool(t.correct) for t in rows], [t.problem for t in rows])
    errors: dict[str, int] = {}
    for trace, text in zip(traces, texts, strict=True):
        checked = task.check(problems[trace.problem], trace.ids)
        if checked is not None and 0 <= checked.index < len(text):
            begin = max((i + 1 for i in range(checked.index) if text[i] == ";"), default=0)
            kind = line_kind("".join(text[begin:]).split(";")[0])
            errors[kind] = errors.get(kind, 0) + 1
    wrong = np.array([not t.correct for t in traces])
    within = stats.within_auroc(wrong, np.array([k == "backwards" for k in kinds], float), [t.problem for t in traces])
    return {"right": found, "first_errors_in": errors, "backwards_tells_wrong_within": plain(within)}


def greedy_openings(folder: Path, n: int = 200) -> dict[str, dict[str, int]]:
    """How many greedy traces begin with each kind of line, and how many of those end right."""
    task, found = tasks.get("countdown_search"), {}
    with exported(folder) as (exports, layout):
        for group in ("C3", "C4"):
            problems = fresh(group, n, 1, task.name)
            limit = room(layout, problems)
            for t in solve(Embedded(exports), problems, strategy="greedy", top_k=0, max_tokens=limit):
                of = found.setdefault(f"{group}, {opening(task.pieces(t.ids))}", {"traces": 0, "right": 0})
                of["traces"] += 1
                of["right"] += bool(t.correct)
    return found


def opening(text: list[str]) -> str:
    return line_kind("".join(text).split(";")[0])


def line_kind(line: str) -> str:
    if line.startswith("@"):
        return "backwards" if "=" in line else "sub-goal"
    if line[:1] in ("^", ">"):
        return "backtrack" if line[0] == "^" else "answer"
    return "check" if "!" in line or "#" in line else "step"


def draw(found: dict[str, Any]) -> None:
    dissected = found["countdown_search"]["anatomy"]
    pictures = [picture.errors("Countdown: first errors of samples", dissected["groups"])]
    pictures.append(picture.habits("Countdown: habits, 95 % intervals", dissected["habits"]["groups"]))
    (DOCS / "lab-countdown.svg").write_text(picture.stack(pictures), encoding="utf-8")
    titles = {"graph_search_dfs": "Depth-first", "graph_search_best": "Best-first"}
    orders = [
        picture.errors(f"{titles[task]}: first errors of samples", found[task]["anatomy"]["groups"]) for task in titles
    ]
    (DOCS / "lab-orders.svg").write_text(picture.stack(orders), encoding="utf-8")


def main() -> None:
    found: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if sys.argv[1:] != ["write"]:
        for task in sys.argv[1:] or TRAININGS:
            found[task] = measure(task)
            RESULTS.write_text(json.dumps(found, indent=1) + "\n")
            print(task, [(r["distribution"], r["path_accuracy"]["value"]) for r in found[task]["greedy"]], flush=True)
    if TRAININGS.keys() <= found.keys():
        found["graph_search_dfs"]["path_lengths"] = path_lengths("graph_search_dfs")
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
        draw(found)


if __name__ == "__main__":
    main()
