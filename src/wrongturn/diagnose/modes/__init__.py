"""Failure modes: does an early prefix of a trace already tell that it will fail (*committed*), or do failures show no
earlier than in the whole trace (*persistent*)?

``failure_modes`` answers for a run or a published table of window features, or says why it cannot be told;
``published_modes`` does what the published framework does. scikit-learn (for the latter) and openpyxl (for .xlsx) are
the extra ``modes``, imported when used.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from wrongturn.diagnose.modes.features import (
    RELATIVE,
    SOUND,
    SUMMARIES,
    Features,
    answered_features,
    run_features,
    table_features,
)
from wrongturn.diagnose.modes.judge import judge
from wrongturn.diagnose.modes.judgement import Judgement
from wrongturn.diagnose.modes.published import N_BOOT, Published, published
from wrongturn.diagnose.modes.table import read_table
from wrongturn.errors import WrongturnError
from wrongturn.store import Run

__all__ = ["Features", "Judgement", "Published", "failure_modes", "features", "judge", "published", "published_modes"]

Source = str | os.PathLike[str] | Run


def failure_modes(
    source: Source, *, group: str | None = None, grid: Sequence[float] | None = None, seed: int = 0
) -> Judgement:
    """Committed, persistent or undetermined, of a run or a table (see :func:`features`)."""
    return judge(features(source, group=group, grid=grid, answered=True), seed=seed)


def published_modes(
    source: Source, *, grid: Sequence[float] | None = None, n_boot: int = N_BOOT, curves: bool = True
) -> Published:
    """The published report of a run or a table (see :func:`features`); without ``curves``, no single features."""
    return published(features(source, grid=grid), n_boot, curves)


def features(
    source: Source, *, group: str | None = None, grid: Sequence[float] | None = None, answered: bool = False
) -> Features:
    """What modes are told from, of a run (folder) or a table (.csv, .xlsx, .parquet).

    Args:
        group: column of a table that says which completions belong together; those of a run do by problem.
        grid: prefixes of a run's traces, in tokens, or as fractions of a trace if they begin below 1.
        answered: only completions with an answer, and our features, instead of the published choice of both.

    Raises:
        WrongturnError: it cannot be read, or a column or cell of it is not what it should be.
    """
    if isinstance(source, Run):
        return _of_run(source, group, grid, answered)
    path = Path(source)
    if not path.exists():
        raise WrongturnError(f"{path}: there is no such file or folder")
    if path.is_dir():
        return _of_run(Run.open(path), group, grid, answered)
    if grid is not None:
        raise WrongturnError(f"{path}: the windows of a table are those of its columns; a grid is for runs")
    table = read_table(path)
    return answered_features(table, group) if answered else table_features(table, group)


def _of_run(run: Run, group: str | None, grid: Sequence[float] | None, answered: bool) -> Features:
    if group is not None:
        raise WrongturnError(f"{run.path}: a group column is for tables; traces of a run belong together by problem")
    grid = RELATIVE if grid is None else grid
    names = SOUND if answered else SUMMARIES
    return run_features(run, grid, relative=bool(grid) and grid[0] < 1, names=names, answered=answered)
