"""The command ``wrongturn modes``: how failures of a run or a published table come about."""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.table import Table

from wrongturn.cli_common import out, svg_file, warn, write_picture
from wrongturn.diagnose.modes import Judgement, Published, failure_modes, published_modes
from wrongturn.diagnose.modes.figure import Curve, svg
from wrongturn.diagnose.modes.published import VERDICTS
from wrongturn.errors import WrongturnError

_CODES = {"C": "early better", "F": "whole trace better", "N": "near", "?": "ambiguous", "N/A": "not computed"}


def modes(
    source: Annotated[
        Path, typer.Argument(help="A run folder, or a table of window features (.csv, .xlsx, .parquet).")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object; warnings go to stderr.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Write the picture to this .svg file.")] = None,
    compat: Annotated[str | None, typer.Option(help="'published': the published procedure, number for number.")] = None,
    group: Annotated[str | None, typer.Option(help="Column that says which rows answer one problem.")] = None,
    grid: Annotated[
        str | None, typer.Option(help="For a run: prefixes, '32,64,128' tokens or '0.1,0.5' of it.")
    ] = None,
) -> None:
    """Do failures show in an early part of the trace already, or only in all of it?"""
    svg_file(plot)
    if compat not in (None, "published"):
        raise WrongturnError(f"--compat {compat!r} is not known (there is: 'published')")
    if compat and group is not None:
        raise WrongturnError(
            "--group: the published procedure takes every row by itself; leave out --group or --compat"
        )
    if compat:
        found = published_modes(source, grid=prefixes(grid))
        curve, show = published_curve(found), lambda: print_published(found)
    else:
        found = failure_modes(source, group=group, grid=prefixes(grid))
        curve, show = judged_curve(found), lambda: print_judged(found)
    for warning in found.warnings:
        warn(f"{source}: {warning}")
    if plot is not None and curve is None:
        raise WrongturnError(f"{source}: there is nothing to draw: {found.verdict}")
    if plot is not None and curve is not None:
        write_picture(plot, svg(curve))
    if as_json:
        sys.stdout.write(json.dumps(found.dict(), allow_nan=False) + "\n")
    else:
        show()


def prefixes(text: str | None) -> list[float] | None:
    """``"32,64"`` -> ``[32.0, 64.0]``; WrongturnError for anything that does not ascend from above 0."""
    if text is None:
        return None
    try:
        grid = [float(part) for part in text.split(",")]
    except ValueError:
        grid = []
    if not grid or grid[0] <= 0 or any(a >= b for a, b in pairwise(grid)):
        raise WrongturnError(f"--grid {text!r} is no ascending list of prefixes (expected e.g. 32,64,128 or 0.1,0.5)")
    if grid[0] < 1 < grid[-1]:
        raise WrongturnError(f"--grid {text!r} mixes fractions of a trace with numbers of tokens")
    return grid


def published_curve(found: Published) -> Curve:
    """The picture of a published report: pointwise 95 % intervals, as published."""
    rows = found.windows
    return Curve(
        title=Path(found.source).name,
        subtitle=f"{VERDICTS[found.verdict]} (published procedure), n={found.n}, {found.failures} failures",
        T=[row.T for row in rows],
        value=[row.score.ap for row in rows],
        low=[row.score.ci[0] for row in rows],
        high=[row.score.ci[1] for row in rows],
        full=found.full.ap,
        chance=found.base_rate,
        relative=found.relative,
        mark=found.commitment_window,
    )


def print_published(found: Published) -> None:
    low, high = found.full.ci
    say(f"{found.n} completions, {found.failures} failed ({100 * found.base_rate:.1f} %), {found.mode} traces")
    say(
        f"Whole trace: average precision {found.full.ap:.4f} [{low:.4f}, {high:.4f}], AUROC {found.full.auroc:.3f}; "
        f"chance {found.base_rate:.4f}"
    )
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("first", "AP", "minus whole", "95 %", "p", ""):
        table.add_column(heading, no_wrap=True)
    for row in found.windows:
        first = f"{100 * row.T:g} %" if found.relative else f"{row.T:g}"
        delta_low, delta_high = row.delta_ci
        table.add_row(
            first,
            f"{row.score.ap:.4f}",
            f"{row.delta:+z.4f}",
            f"[{delta_low:+z.4f}, {delta_high:+z.4f}]",
            f"{row.p:.4f}",
            _CODES[row.code],
        )
    out.print(table)
    at = "" if found.commitment_window is None else f", T={found.commitment_window:g}"
    say(f"Published verdict: {VERDICTS[found.verdict]}{at}")


def judged_curve(found: Judgement) -> Curve | None:
    """Ours: the early curve with the simultaneous band of its difference from the whole trace. None if not measured."""
    if found.full is None:
        return None
    rows = found.windows
    return Curve(
        title=Path(found.source).name,
        subtitle=f"{found.verdict}, n={found.n}, {found.failures} failures; simultaneous band against the whole trace",
        T=[row.T for row in rows],
        value=[row.skill.ap for row in rows],
        low=[row.skill.ap - row.delta + row.band[0] for row in rows],
        high=[row.skill.ap - row.delta + row.band[1] for row in rows],
        full=found.full.ap,
        chance=found.full.ap - found.full.lift,
        relative=found.relative,
        mark=None if found.commitment is None else found.commitment[0],
    )


def print_judged(found: Judgement) -> None:
    audit = ", ".join(f"{n} {name}" for name, n in found.outcomes.items() if n)
    say(f"Completions: {audit}. Told apart here: {found.failures} wrong of {found.n}, {found.mode} traces.")
    if found.full is not None:
        low, high = found.full.ci
        say(
            f"Whole trace: lift over chance {found.full.lift:+z.3f} [{low:+z.3f}, {high:+z.3f}], AUROC "
            f"{found.full.auroc:.3f}; length alone {found.full.length_lift:+z.3f}; "
            f"against permuted labels p={found.p:.3f}"
        )
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for heading in ("first", "longer", "lift", "length alone", "minus whole", "95 %, all windows"):
            table.add_column(heading, no_wrap=True)
        for row in found.windows:
            table.add_row(
                f"{100 * row.T:g} %" if found.relative else f"{row.T:g}",
                f"{100 * row.going_on:.0f} %",
                f"{row.skill.lift:+z.3f}",
                f"{row.skill.length_lift:+z.3f}",
                f"{row.delta:+z.3f}",
                f"[{row.band[0]:+z.3f}, {row.band[1]:+z.3f}]",
            )
        out.print(table)
    if found.commitment is not None:
        value, low, high = found.commitment
        say(f"Commitment point: {value:g} [{low:g}, {high:g}]")
    say(f"{found.verdict.upper()}: {found.reason}")


def say(text: str) -> None:
    out.print(text, highlight=False, soft_wrap=True)
