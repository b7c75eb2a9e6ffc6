"""The commands that look at a run: ``diagnose``, ``report``, ``show``; and how their findings are printed."""

from __future__ import annotations

from itertools import islice
from typing import Annotated, Any

import typer

import wrongturn
from wrongturn.cli_common import Folder, Json, Seed, emit, estimate, out, table
from wrongturn.errors import WrongturnError
from wrongturn.report.figures import visible


def diagnose(folder: Folder, seed: Seed = 0, as_json: Json = False) -> None:
    """Where the traces of a run failed: accuracy, first errors, and published claims held against them."""
    emit(wrongturn.diagnose(wrongturn.Run.open(folder), seed=seed).dict(), as_json, print_study)


def report(folder: Folder, seed: Seed = 0, as_json: Json = False) -> None:
    """Diagnose a run and write its report.html again."""
    emit(wrongturn.report(wrongturn.Run.open(folder), seed=seed), as_json, print_summary)


def show(
    folder: Folder,
    trace: Annotated[str | None, typer.Argument(help="Id of a trace; without one, the traces are listed.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="List only traces whose answer is wrong.")] = False,
    limit: Annotated[int, typer.Option(min=1, help="Traces listed at most.")] = 20,
    as_json: Json = False,
) -> None:
    """Show a trace in the terminal, its tokens shaded by entropy, or list the traces of a run."""
    stored = wrongturn.Run.open(folder)
    if trace is not None:
        found = next(stored.traces(top_k=False, id=trace), None)
        if found is None:
            raise WrongturnError(f"{folder}: no trace {trace!r} (wrongturn show {folder} lists them)")
        problem = stored.problems().get(found.problem)
        emit(trace_facts(found), as_json, lambda _: print_trace(found, problem.prompt if problem else ""))
        return
    where = {"correct": False} if failed else {}
    listed = islice(stored.traces(top_k=False, **where), limit)  # as many parts as it takes, one at a time
    facts = {"traces": stored.table(["id"], **where).num_rows, "shown": [trace_facts(t, brief=True) for t in listed]}
    emit(facts, as_json, print_list)


# -- how results are shown ---------------------------------------------------------------------------------------------


def print_summary(summary: dict[str, Any]) -> None:
    if summary["traces"]:
        print_findings(summary)
    took = f" in {summary['seconds']} s" if "seconds" in summary else ""
    out.print(f"{summary['traces']} traces of {summary['problems']} problems{took}.")
    print_failed(summary)
    out.print(f"Report: {summary['report']}", soft_wrap=True)


def print_failed(facts: dict[str, Any]) -> None:
    """What could not be made, as :func:`wrongturn.pipeline.failed` tells it."""
    for reason, n in facts["failed"].items():
        out.print(f"{n} failed: {reason} ({visible(facts['why'][reason])})", style="yellow", soft_wrap=True)
    if facts["failed"]:
        out.print("The command that made the run tries them again.")


def print_findings(summary: dict[str, Any]) -> None:
    accuracy = table("Accuracy of one sample, %", "distribution", "right answers", "problems")
    for group, e in summary["accuracy"].items():
        accuracy.add_row(group, estimate(e), str(e["n"]))
    out.print(accuracy)
    for group, counts in summary["outcomes"].items():
        if counts.keys() - {"right", "wrong"}:
            unanswered = ", ".join(f"{n} {name}" for name, n in counts.items() if name not in ("right", "wrong"))
            out.print(f"{group}: of {sum(counts.values())} samples {unanswered}")
    print_claims(summary["claims"])
    onset = summary["onset"]
    out.print(
        f"Median onset: {estimate(onset['median'])} % into a failed trace;\n"
        f"{estimate(onset['share_30'])} % of failures begin in the first 30 %.\n"
    )
    print_comparison(summary["comparison"])


def print_comparison(rows: list[dict[str, Any]]) -> None:
    if not rows:
        out.print("Strategies are not compared: they share no graded problem\n")
        return
    compared = table(
        "Strategies, paired per problem, %", "strategy", "right", "tokens", "against sample", "at equal tokens"
    )
    for row in rows:
        compared.add_row(
            row["strategy"],
            estimate(row["accuracy"], digits=0),
            f"{row['decoded_tokens']:.0f}",
            estimate(row["difference"], signed=True),
            "beyond" if row["beyond_votes"] else estimate(row["equal_tokens"], signed=True),
        )
    out.print(compared)
    said = ["tokens: decoded a problem, all branches; at equal tokens: against votes that cost the same, one at least"]
    if largest := next((row["beyond_votes"] for row in rows if row["beyond_votes"]), None):
        said.append(f"beyond: more than the {largest:.0f} tokens of the largest vote that was collected")
    if ungraded := rows[0]["ungraded"]:
        said.append(f"problems left out, as not every answer to them is graded: {ungraded}")
    out.print("\n".join(said) + "\n", style="dim")


def print_claims(claims: list[dict[str, Any]]) -> None:
    held = table("Claims about failures", "claim", "verdict", "here", "problems")
    for claim in claims:
        shown = estimate(claim["estimate"], percent=False)
        held.add_row(claim["name"].replace("_", " "), claim["verdict"], shown, str(claim["n"]))
    out.print(held)


def print_study(found: dict[str, Any]) -> None:
    for group, e in found["accuracy"].items():
        classes = found["error_classes"].get(group, {})
        errors = ", ".join(f"{name} {n}" for name, n in sorted(classes.items(), key=lambda item: -item[1]))
        out.print(f"{group}: {estimate(e)} % right, n={e['n']}; first errors: {errors or 'none'}")
    print_claims(found["claims"])


def trace_facts(trace: wrongturn.Trace, brief: bool = False) -> dict[str, Any]:
    """A trace as plain values; unless ``brief`` with its text, token ids, entropies and events."""
    facts: dict[str, Any] = {
        "id": trace.id,
        "group": trace.group,
        "strategy": trace.strategy,
        "correct": trace.correct,
        "onset": trace.onset,
        "error": trace.error,
        "tokens": len(trace),
        "finish": trace.finish,
        "answer": trace.answer,
    }
    if not brief:
        entropy = [None if e != e else round(float(e), 5) for e in trace.signals.entropy]
        facts |= {"text": trace.text, "ids": trace.ids.tolist(), "entropy": entropy, "events": trace.events}
    return facts


def print_list(facts: dict[str, Any]) -> None:
    listed = table("Traces", "trace", "answer", "right", "first wrong token", "tokens")
    for t in facts["shown"]:
        wrong = "–" if t["onset"] in (None, -1) else f"{t['onset']} {t['error']}"
        right = {True: "yes", False: "no", None: "–"}[t["correct"]]
        listed.add_row(t["id"], t["answer"] or "–", right, wrong, str(t["tokens"]))
    out.print(listed)
    if facts["traces"] > len(facts["shown"]):
        out.print(f"{len(facts['shown'])} of {facts['traces']}; more with --limit")


def print_trace(trace: wrongturn.Trace, prompt: str) -> None:
    from wrongturn.report.inline import trace_text

    out.print(prompt, style="dim", highlight=False)
    out.print(trace_text(trace, width=out.width))
