"""What every face on the command line shares: option types, progress bars, JSON or text, tables."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

import wrongturn
from wrongturn.errors import WrongturnError
from wrongturn.report.figures import visible
from wrongturn.tasks.countdown import Countdown


class Screen(Console):
    """A console for what others wrote, models, servers and files: no markup ("[/b]" is no tag), no escape sequences."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Every string on its way to the screen, table cells and titles too."""
        return super().render_str(visible(text, keep="\n\t"), **options)


out, err = Screen(), Screen(stderr=True)

DISTRIBUTIONS = ("G15_2,4", "G15_5,6", "G20_5,6")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object; progress goes to stderr.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything drawn: same seed, same result.")]
Graphs = Annotated[
    list[str] | None,
    typer.Option(
        "--graphs",
        help="G<nodes>_<shortest>,<longest path>, of Countdown C<numbers>; repeatable. "
        f"Default: {' '.join(DISTRIBUTIONS)}; C3 C4.",
    ),
]
Folder = Annotated[Path, typer.Argument(help="A run folder.")]


class Interrupted(Exception):
    """Ctrl-C during long work."""


def search_problems(name: str, distributions: list[str] | None, n: int, seed: int) -> list[wrongturn.Problem]:
    """``n`` problems of each distribution of a search task; WrongturnError for a task that makes none."""
    task = wrongturn.tasks.get(name)
    if not isinstance(task, (wrongturn.tasks.GraphSearch, Countdown)):
        raise WrongturnError(f"--task {name} needs a file of problems: only search tasks make their own")
    usual = ("C3", "C4") if isinstance(task, Countdown) else DISTRIBUTIONS
    return [problem for each in distributions or usual for problem in task.problems(each, n, seed)]


def count(text: str, option: str = "--tokens") -> int:
    """``"42M"`` -> 42 000 000; WrongturnError, which names the option, for anything else."""
    scale = {"k": 10**3, "M": 10**6, "G": 10**9}.get(text[-1:], 1)
    try:
        value = round(float(text[:-1] if scale > 1 else text) * scale)
    except ValueError:
        value = 0
    if value < 1:
        raise WrongturnError(f"{option} {text!r} is no number of tokens (expected e.g. 500k or 42M)")
    return value


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """A progress callback that draws one bar per stage on stderr."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err) as bars:
        stages: dict[str, Any] = {}

        def progress(what: str, done: int, total: int) -> None:
            stage = what.partition(" ")[0]  # a training's description changes, its stage does not
            if stage not in stages:
                stages[stage] = bars.add_task(what, total=total)
            bars.update(stages[stage], description=what, completed=done, total=total)

        try:
            yield progress
        except KeyboardInterrupt:
            raise Interrupted from None  # under a name of our own: the option parser would swallow the other


def warn(line: str) -> None:
    """One line on stderr about what is left out or odd."""
    err.print(f"wrongturn: {line}", style="yellow", highlight=False, soft_wrap=True)


def emit(facts: Any, as_json: bool, show: Callable[[Any], None]) -> None:
    """``facts`` as one JSON object on stdout, or for people as ``show`` prints them."""
    if as_json:
        sys.stdout.write(json.dumps(facts, allow_nan=False) + "\n")
    else:
        show(facts)


def estimate(e: dict[str, Any] | None, percent: bool = True, signed: bool = False, digits: int = 1) -> str:
    """``84.0 [80.1, 87.3]``, in percent or (with one more digit) as it is."""
    if not e or e["value"] is None:
        return "–"
    scale, digits = (100, digits) if percent else (1, digits + 1)
    value, low, high = (None if e[k] is None else e[k] * scale for k in ("value", "low", "high"))
    shown = f"{value:{'+' if signed else ''}.{digits}f}"
    return shown if low is None or high is None else f"{shown} [{low:.{digits}f}, {high:.{digits}f}]"


def table(title: str, *columns: str) -> Table:
    """A table without rules, its title on the left."""
    return Table(
        *columns,
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
    )


def svg_file(plot: Path | None) -> None:
    """WrongturnError for a picture's name that does not end in .svg."""
    if plot is not None and plot.suffix.lower() != ".svg":
        raise WrongturnError(f"--plot {plot}: the picture is an SVG file, so its name must end in .svg")


def write_picture(path: Path, text: str) -> None:
    """Write a picture; WrongturnError where that cannot be done."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as problem:
        raise WrongturnError(f"--plot {path}: {problem.strerror}") from None
