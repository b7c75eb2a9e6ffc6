"""The packaged reasoner, the ancestor and its two specialists: accuracy, anatomy of errors, pictures, model cards.

    python bench/lab.py            # measure everything (about 40 minutes on one core), then write
    python bench/lab.py anatomy    # the first errors alone, then write
    python bench/lab.py write      # pictures and cards from bench/results/lab.json
    python bench/lab.py trace      # the specialist rewarded for whole traces, trained and measured (an hour)
    python bench/lab.py lengths    # by how much wrong answers are too short (about 3 minutes)

Test graphs are of classes that training does not draw any more; the packaged four were trained before there was a split
(twins of 15-node graphs are not to be found anyway: bench/lab_data.py).
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from wrongturn import stats
from wrongturn.engines.embedded import model_folder
from wrongturn.lab import picture, published
from wrongturn.lab.anatomy import anatomy
from wrongturn.lab.evaluate import evaluate, plain, sample
from wrongturn.tasks import graphs as gs

HERE = Path(__file__).parent
RESULTS, DOCS = HERE / "results" / "lab.json", HERE.parent / "docs"
MODELS = ("graph_search", "ancestor", "sft", "grpo")
N_GREEDY, N_SAMPLED, SAMPLES = 500, 300, 4
N_ANATOMY = {"graph_search": 200, "ancestor": 100, "sft": 100, "grpo": 100}


def measure(accuracies: bool = True) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RESULTS.read_text())
    for name in MODELS:
        if accuracies:
            greedy = evaluate(name, published.DISTRIBUTIONS, n=N_GREEDY)
            sampled = evaluate(name, published.DISTRIBUTIONS, n=N_SAMPLED, sampled=True)
            found[name] = {"greedy": greedy, "sampled": sampled}
        traces = sample(name, published.DISTRIBUTIONS, n=N_ANATOMY[name], samples=SAMPLES)
        found[name]["anatomy"] = anatomy(*traces).dict()
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
        print(name, flush=True)
    return found


def on_traces(steps: int = 120) -> dict[str, Any]:
    """Reinforced as ``grpo`` was, but rewarded for whole traces."""
    out = Path("runs/lab_grpo_trace")
    posttrain = [sys.executable, "-m", "wrongturn", "lab", "posttrain", "grpo", "ancestor", "--out", str(out)]
    subprocess.run([*posttrain, "--reward", "trace", "--steps", str(steps), "--threads", "1"], check=True)
    found = evaluate(out / "export", published.DISTRIBUTIONS, n=N_GREEDY)
    return found | {"model": f"grpo, reward: trace, {steps} rounds"}


def lengths(name: str, distribution: str = "G15_5,6") -> dict[str, Any]:
    """Nodes that wrong answers have more than the shortest path, and expansions that right ones' traces have more than
    the search; means over samples, 95 % intervals over problems."""
    traces, problems = sample(name, [distribution], n=100, samples=SAMPLES)
    wrong: list[tuple[str, int]] = []
    right: list[tuple[str, int]] = []
    for t in traces:
        problem = problems[t.problem]
        if t.correct:
            search = gs.gold(gs.parse_prompt(problem.prompt_ids))
            right.append((t.problem, t.ids.tolist().count(gs.LIST) - search.count(gs.LIST)))
        elif t.answer is not None and problem.reference is not None:
            wrong.append((t.problem, t.answer.count(",") - problem.reference.count(",")))
    found: dict[str, Any] = {}
    for what, rows in (("nodes, wrong answers", wrong), ("expansions, right answers", right)):
        of, more = zip(*rows, strict=True)
        found[what] = plain(stats.bootstrap(more, np.mean, clusters=of)) | {"samples": len(rows)}
    return found


# -- pictures ----------------------------------------------------------------------------------------------------------


def log(name: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (model_folder(name) / "training_log.jsonl").read_text().splitlines()]


def draw(found: dict[str, Any]) -> None:
    known = [published.accuracy(d, 4, 4) for d in published.DISTRIBUTIONS]
    titles = {
        "graph_search": "The packaged reasoner",
        "ancestor": "Ancestor (22 M tokens)",
        "sft": "Specialist by supervised fine-tuning on G15_5,6",
        "grpo": "Specialist by reinforcement on G15_5,6 (reward: the answer)",
    }
    for name, title in titles.items():
        errors = picture.errors(f"{title}: first errors of samples", found[name]["anatomy"]["groups"])
        write(f"lab-errors-{name}.svg", errors)
    rows = found["graph_search"]["greedy"]["results"]
    write("lab-accuracy.svg", picture.accuracy(f"The packaged reasoner: greedy, n = {N_GREEDY}", rows, known))
    learned = [r for r in log("graph_search") if "exact" in r]
    lines = {"neighbour": "neighbour", "node": "next node", "close": "list end", "back": "trace back"}
    series = {text: [(r["tokens"] / 1e6, r[key]) for r in learned] for key, text in lines.items()}
    series |= {
        "whole trace": [(r["tokens"] / 1e6, r["exact"]) for r in learned],
        "long paths": [(r["tokens"] / 1e6, r["exact_long"]) for r in learned],
    }
    write("lab-learning.svg", picture.curves("What is learned when (accuracy, %)", series, "training tokens, million"))


def write(name: str, text: str) -> None:
    (DOCS / name).write_text(text, encoding="utf-8")


# -- cards -------------------------------------------------------------------------------------------------------------

WHAT = {
    "ancestor": """The training of the packaged reasoner after 22 of its 42 M tokens (`training.json`), the
learning rate half way down. It searches well and traces back long paths badly.""",
    "sft": """`wrongturn lab posttrain sft ancestor --graphs G15_5,6 --tokens 2M --out …`: right searches for paths of 5
and 6 edges, 2 M tokens, Muon, learning rate 5e-4.""",
    "grpo": """`wrongturn lab posttrain grpo ancestor --graphs G15_5,6 --steps 160 --out …`: 24 problems and 8 rollouts
a step, 2.4 M sampled tokens, reward 1 for a right answer *whatever the trace says*, AdamW, learning rate 1e-4.""",
}


def percent(e: dict[str, float]) -> str:
    return f"{100 * e['value']:.1f} [{100 * e['low']:.1f}, {100 * e['high']:.1f}]"


def card(name: str, found: dict[str, Any]) -> str:
    rows = "\n".join(
        f"| {g['distribution']} | {percent(g['path_accuracy'])} | {percent(g['trace_accuracy'])} | "
        f"{percent(s['path_accuracy'])} | {percent(s['trace_accuracy'])} | "
        f"{', '.join(f'{k} {v}' for k, v in list(g['first_errors'].items())[:4])} |"
        for g, s in zip(found["greedy"]["results"], found["sampled"]["results"], strict=True)
    )
    return f"""# Model card: {name}

{WHAT[name]}

The same architecture, vocabulary, task and files as the packaged reasoner (see its card). One seed. For studies of how
post-training changes where and how reasoning fails, with the ancestor at hand: `wrongturn.open("embedded:{name}")`.

**Accuracy**, % with 95 % Wilson intervals, n = {N_GREEDY} graphs a cell greedy, {N_SAMPLED} sampled at temperature 1,
seed 1.

| distribution | greedy path | greedy trace | sampled path | sampled trace | first errors, greedy |
|---|---|---|---|---|---|
{rows}

Made by `python bench/lab.py`.
"""


def main() -> None:
    if sys.argv[1:] in (["trace"], ["lengths"]):
        made = on_traces() if sys.argv[1] == "trace" else {name: lengths(name) for name in MODELS}
        name = {"trace": "lab_grpo_trace.json", "lengths": "lab_lengths.json"}[sys.argv[1]]
        RESULTS.with_name(name).write_text(json.dumps(made, indent=1) + "\n")
        return
    found = json.loads(RESULTS.read_text()) if sys.argv[1:] == ["write"] else measure(sys.argv[1:] != ["anatomy"])
    draw(found)
    for name in WHAT:
        (model_folder(name) / "MODEL_CARD.md").write_text(card(name, found[name]), encoding="utf-8")


if __name__ == "__main__":
    main()
