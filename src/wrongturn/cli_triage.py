"""The command ``wrongturn triage``: which problems of a run need no further samples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.table import Table

from wrongturn.cli_common import Folder, Json, Seed, emit, out, svg_file, warn, write_picture
from wrongturn.cli_modes import say
from wrongturn.diagnose.triage import RECALL, Rule, Triage
from wrongturn.diagnose.triage import triage as sort_out
from wrongturn.diagnose.triage_figure import svg
from wrongturn.errors import WrongturnError
from wrongturn.stats import Estimate
from wrongturn.store import Run


def triage(
    folder: Folder,
    recall: Annotated[float, typer.Option(help="Share of wrong first answers that must be sampled again.")] = RECALL,
    plot: Annotated[Path | None, typer.Option(help="Write the picture to this .svg file.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Which problems need no further samples, and does uncertainty tell what agreement does not?"""
    if not 0 < recall < 1:
        raise WrongturnError(f"--recall {recall:g} is no share between 0 and 1")
    svg_file(plot)
    found = sort_out(Run.open(folder), recall=recall, seed=seed)
    for reason in found.reasons:
        warn(f"{folder}: {reason}")
    if plot is not None and not found.curves:
        raise WrongturnError(f"{folder}: there is nothing to draw")
    if plot is not None:
        write_picture(plot, svg(folder.name, found))
    emit(found.dict() if as_json else found, as_json, print_triage)


def print_triage(found: Triage) -> None:
    counts = ", ".join(f"{n} {name}" for name, n in found.outcomes.items())
    say(
        f"{found.problems} problems, {found.samples:.3g} samples each ({counts}); "
        f"mean agreement {percent(found.agreement)} %"
    )
    if found.first:
        say("\nAfter one sample: is its answer wrong?")
        out.print(scores(found, voted=False))
    if found.rule is not None:
        print_rule(found.rule)
    if found.voted:
        say("\nAfter all samples: is the voted answer wrong?")
        out.print(scores(found, voted=True))


def scores(found: Triage, voted: bool) -> Table:
    """Each score, then each lift of one over another."""
    listed = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("told from", "AUROC", "average precision"):
        listed.add_column(heading, no_wrap=heading != "told from")
    for skill in found.voted if voted else found.first:
        listed.add_row(skill.score, number(skill.auroc), number(skill.ap))
    for lift in found.lifts_voted if voted else found.lifts_first:
        listed.add_row(f"{lift.score} over {lift.over}", number(lift.auroc, "+"), number(lift.ap, "+"))
    return listed


def print_rule(rule: Rule) -> None:
    say(f"Rules that are to keep {100 * rule.target:g} % of wrong first answers from being skipped, on other folds:")
    say(f"  not sampled again     {percent(rule.skipped)} %")
    say(f"  wrong ones sampled    {percent(rule.recall)} %; above chance by {percent(rule.gain, '+')} points")
    say(f"  right answers         {percent(rule.triaged)} %")
    say(f"    the first sample's  {percent(rule.once)} %")
    say(f"    always voting       {percent(rule.voted)} %")
    say(f"  lost by not voting    {percent(rule.lost)} %; won {percent(rule.won)} %")
    say(f"  tokens                {percent(rule.tokens)} % of those of always voting")


def number(e: Estimate, sign: str = "") -> str:
    return f"{e.value:{sign}z.3f} [{e.low:{sign}z.3f}, {e.high:{sign}z.3f}]"


def percent(e: Estimate, sign: str = "") -> str:
    value, low, high = (100 * part for part in (e.value, e.low, e.high))
    return f"{value:{sign}z.1f} [{low:{sign}z.1f}, {high:{sign}z.1f}]"
