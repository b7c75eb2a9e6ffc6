"""The automaton that follows a breadth-first search token by token and names the first wrong one."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from wrongturn.tasks.base import Check, Segment
from wrongturn.tasks.graph_text import COMMA, DONE, EOS, FIRST_LABEL, FOUND, LABELS, LIST, NEXT, OPEN, Query

ERRORS: dict[str, str] = {
    "syntax": "a token the grammar does not allow here",
    "halluc_nbr": "listed a node that is no neighbour, or announced one more than there are",
    "missing_nbr": "closed a list before all neighbours were in it",
    "skip_nbr": "listed a real neighbour out of order, skipping one",
    "dup_nbr": "listed a neighbour twice",
    "not_in_queue": "expanded a node that was never listed",
    "fifo": "expanded a queued node that was not the head of the queue",
    "revisit": "expanded a node a second time",
    "early_stop": "stopped before the target was listed",
    "late_stop": "went on after the target was listed",
    "backtrack_node": "traced back to a node that is not the first discoverer",
    "backtrack_short": "ended the trace back before the source",
    "backtrack_long": "traced back past the source",
    "path_node": "a path node that is not the traced one",
    "path_short": "ended the path before the target",
    "path_long": "went on after the path was complete",
    "truncated": "stopped before the end token",
}


@dataclass(slots=True)
class Search:
    """The state a trace implies: queue and discoverers as *written*; later steps are judged in their context.

    This one is breadth-first; other orders (:mod:`wrongturn.tasks.graph_orders`) say otherwise what may come next.
    """

    query: Query
    adjacent: dict[int, list[int]] = field(init=False)
    phase: str = "open"
    node: int = -1  # being expanded, or the last one traced back / walked
    listed: list[int] = field(default_factory=list)
    parent: dict[int, int] = field(default_factory=dict)
    queue: deque[int] = field(default_factory=deque)
    expanded: set[int] = field(default_factory=set)
    back: list[int] = field(default_factory=list)
    walked: int = 0

    def __post_init__(self) -> None:
        self.adjacent = self.query.neighbours()
        self.queue.append(self.query.source)

    def step(self, token: int) -> str | None:
        """Take one token: its error class, or None where it is the one correct token here."""
        label = token - FIRST_LABEL if FIRST_LABEL <= token < FIRST_LABEL + LABELS else None
        error = getattr(self, f"_{self.phase}")(token, label)
        if error == "syntax":  # wait for a step boundary before judging again
            self.phase = "lost"
        return error

    def _open(self, token: int, label: int | None) -> str | None:
        self.phase = "node"
        return None if token == OPEN else "syntax"

    def _node(self, token: int, label: int | None) -> str | None:
        if label is None:
            return "syntax"
        error = None
        if label in self.expanded:
            error = "revisit"
        elif label not in self.queue:
            error = "not_in_queue"
        else:
            error = self.turn(label)
        if label in self.queue:
            self.queue.remove(label)
        self.expanded.add(label)
        self.node, self.listed, self.phase = label, [], "list"
        return error

    def _list(self, token: int, label: int | None) -> str | None:
        self.phase = "first"
        return None if token == LIST else "syntax"

    def _first(self, token: int, label: int | None) -> str | None:
        return self._close(token) if token in (NEXT, FOUND) else self._neighbour(token, label)

    def _neighbour(self, token: int, label: int | None) -> str | None:
        if label is None:
            return "syntax"
        real = self.adjacent.get(self.node, [])
        error = None
        if label in self.listed:
            error = "dup_nbr"
        elif label not in real:
            error = "halluc_nbr"
        elif label not in self.due():
            error = "skip_nbr"
        self.listed.append(label)
        self.discover(label)
        self.phase = "separator"
        return error

    def turn(self, label: int) -> str | None:
        """The error of expanding this node of the queue now, None where it may."""
        return None if label == self.queue[0] else "fifo"

    def due(self) -> list[int]:
        """The neighbours that may be listed next: one, as long as there is any."""
        real = self.adjacent.get(self.node, [])
        return [v for v in real if not self.listed or v > self.listed[-1]][:1]

    def discover(self, label: int) -> None:
        """A node has been listed."""
        if label not in self.parent and label != self.query.source:
            self.parent[label] = self.node
            if label not in self.expanded:
                self.queue.append(label)

    def _separator(self, token: int, label: int | None) -> str | None:
        if token in (NEXT, FOUND):
            return self._close(token)
        if token != COMMA:
            return "syntax"
        self.phase = "neighbour"
        return None if self.due() else "halluc_nbr"

    def _close(self, token: int) -> str | None:
        self.phase = "back" if token == FOUND else "node"
        if self.due():
            return "missing_nbr"
        found = self.query.target in self.listed
        if found == (token == FOUND):
            return None
        return "late_stop" if found else "early_stop"

    def _back(self, token: int, label: int | None) -> str | None:
        if label is None:
            return "syntax"
        expected = self.parent.get(self.back[-1]) if self.back else self.query.target
        self.back.append(label)
        self.phase = "back_separator"
        return None if label == expected else "backtrack_node"

    def _back_separator(self, token: int, label: int | None) -> str | None:
        at_source = self.back[-1] == self.query.source
        if token == DONE:
            self.phase = "path"
            return None if at_source else "backtrack_short"
        if token != COMMA:
            return "syntax"
        self.phase = "back"
        return "backtrack_long" if at_source else None

    def _path(self, token: int, label: int | None) -> str | None:
        if label is None:
            return "syntax"
        self.walked += 1
        self.phase = "path_separator"
        expected = self.back[-self.walked] if self.walked <= len(self.back) else None
        return None if label == expected else "path_node"

    def _path_separator(self, token: int, label: int | None) -> str | None:
        complete = self.walked >= len(self.back)
        if token == EOS:
            self.phase = "end"
            return None if complete else "path_short"
        if token != COMMA:
            return "syntax"
        self.phase = "path"
        return "path_long" if complete else None

    def _end(self, token: int, label: int | None) -> str | None:
        return "syntax"

    def _lost(self, token: int, label: int | None) -> str | None:
        after = {NEXT: "node", FOUND: "back", DONE: "path", EOS: "end"}
        self.phase = after.get(token, "lost")
        return None


def check(query: Query, ids: Sequence[int], order: type[Search] = Search) -> Check:
    """Follow a completion token by token; name the first offending token and judge every segment in its context.

    A segment after the first error is judged against the queue and discoverers *as the trace wrote them*, so a trace
    may be locally valid again after its onset. O(tokens x out-degree).
    """
    search = order(query)
    first, kind = -1, None
    segments: list[Segment] = []
    start, flaw = 0, None
    for i, token in enumerate(ids):
        error = search.step(int(token))
        if error is not None:
            flaw = flaw or error
            if first < 0:
                first, kind = i, error
        if token in (NEXT, FOUND, DONE, EOS):
            segments.append(Segment(start, i + 1, _KIND[int(token)], flaw))
            start, flaw = i + 1, None
    if search.phase != "end":
        if first < 0:
            first, kind = len(ids), "truncated"
        if start < len(ids):
            segments.append(Segment(start, len(ids), "unfinished", flaw or "truncated"))
    return Check(first, kind, tuple(segments))


_KIND = {NEXT: "expand", FOUND: "expand", DONE: "backtrack", EOS: "path"}
