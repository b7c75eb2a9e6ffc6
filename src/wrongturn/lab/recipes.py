"""The tasks that can be learned here, and the recipe of each."""

from __future__ import annotations

from difflib import get_close_matches

from wrongturn.errors import WrongturnError
from wrongturn.lab.countdown_examples import CountdownRecipe
from wrongturn.lab.graph_examples import GraphRecipe
from wrongturn.lab.traces import WRITERS
from wrongturn.tasks import get
from wrongturn.tasks.base import OwnTokens

AnyRecipe = GraphRecipe | CountdownRecipe

RECIPES: dict[str, type[AnyRecipe]] = {**dict.fromkeys(WRITERS, GraphRecipe), "countdown_search": CountdownRecipe}
"""By the name of the task."""


def recipe(task: str, batch: int = 32) -> AnyRecipe:
    """How a task is learned. Raises :class:`wrongturn.errors.WrongturnError` for one that is not learned here."""
    return _kind(task)(task=task, batch=batch)


def only(task: str, distribution: str) -> AnyRecipe:
    """One distribution of a task and nothing else. Raises as :func:`recipe`, ``ValueError`` for a malformed one."""
    return _kind(task).only(distribution, task)


def words(task: str) -> tuple[str, ...]:
    """The vocabulary of a task."""
    return own_tokens(task).words


def own_tokens(task: str) -> OwnTokens:
    """The task itself, which has tokens of its own. Raises as :func:`recipe`."""
    _kind(task)
    found = get(task)
    assert isinstance(found, OwnTokens)
    return found


def _kind(task: str) -> type[AnyRecipe]:
    if task in RECIPES:
        return RECIPES[task]
    near = get_close_matches(task, RECIPES, 1, 0.4)
    meant = f"did you mean {near[0]!r}? There are" if near else "there are"
    raise WrongturnError(f"unknown task {task!r} ({meant} {', '.join(RECIPES)})")
