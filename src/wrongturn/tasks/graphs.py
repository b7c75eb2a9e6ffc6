"""Graph search: a breadth-first search written out token by token, and the automaton that checks every token of it.

A prompt lists directed edges and a query, ``1,3|2,4|1,2|0,1|0,2|3,4/0,4``; the completion writes the search and then
the shortest path, ``<0,(1,2),1,(2,3),2,(4)-4,2,0>0,2,4``. Each ``u,(...)`` expands the head of the queue and lists *all*
its out-neighbours in ascending order (queue and visited set stay implicit); ``-`` follows the list that contains the
target; then come the trace back through first discoverers and, after ``>``, the path. The correct trace is unique,
so the first token that leaves the automaton is the exact onset of a failure.

Format: "Learning to search" (H. N. Nguyen, 2025). The distributions ``G15_2,4`` are (nodes, shortest-path length in edges).
"""

from __future__ import annotations

import random
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from wrongturn.tasks.base import Check, Segment
from wrongturn.trace import Problem

LABELS = 20  # node names 0..19; a graph of n nodes uses a random subset, so every name is trained
PAD, BOS, EOS = 0, 1, 2
FIRST_LABEL = 3
SYMBOLS = (",", "|", "/", "<", ",(", "),", ")-", ">")
VOCAB: tuple[str, ...] = ("<pad>", "<bos>", "<eos>", *map(str, range(LABELS)), *SYMBOLS)
COMMA, BAR, SLASH, OPEN, LIST, NEXT, FOUND, DONE = range(FIRST_LABEL + LABELS, len(VOCAB))
_ID = {token: i for i, token in enumerate(VOCAB)}
_TOKEN = re.compile(r"\d+|\),|\)-|,\(|[,|/<>]")

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

Edge = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Query:
    """A graph and what is asked of it: the path from ``source`` to ``target`` (labels, edges in prompt order)."""

    edges: tuple[Edge, ...]
    source: int
    target: int

    def neighbours(self) -> dict[int, list[int]]:
        """Out-neighbours of every node, ascending."""
        out: dict[int, list[int]] = {}
        for u, v in self.edges:
            out.setdefault(u, []).append(v)
            out.setdefault(v, [])
        for adjacent in out.values():
            adjacent.sort()
        return out


# -- text and tokens ---------------------------------------------------------------------------------------------------


def encode(text: str) -> list[int]:
    """Token ids of a prompt or trace (spaces ignored). Raises ``ValueError`` naming the first foreign character."""
    ids, end = [], 0
    text = text.replace(" ", "")
    for match in _TOKEN.finditer(text):
        if match.start() != end or match.group() not in _ID:
            break
        ids.append(_ID[match.group()])
        end = match.end()
    if end != len(text):
        raise ValueError(f"not graph-search text: {text[end : end + 12]!r} at character {end}")
    return ids


def decode(ids: Iterable[int]) -> str:
    """Text of token ids; padding, begin and end tokens are left out."""
    return "".join(VOCAB[i] for i in ids if i > EOS)


def pieces(ids: Iterable[int]) -> list[str]:
    """The text of each token on its own (begin, end and padding are empty)."""
    return [VOCAB[i] if i > EOS else "" for i in ids]


def prompt_ids(query: Query) -> list[int]:
    """``<bos>`` edges ``/`` source ``,`` target."""
    ids = [BOS]
    for u, v in query.edges:
        ids += (u + FIRST_LABEL, COMMA, v + FIRST_LABEL, BAR)
    ids[-1] = SLASH
    return [*ids, query.source + FIRST_LABEL, COMMA, query.target + FIRST_LABEL]


def parse_prompt(ids: Sequence[int]) -> Query:
    """The query a prompt states. Raises ``ValueError`` where it is not of the form ``u,v|...|u,v/s,t``."""
    text = decode(ids)
    if not re.fullmatch(r"\d+,\d+(\|\d+,\d+)*/\d+,\d+", text):
        raise ValueError(f"not a graph-search prompt: {text[:40]!r} (expected 'u,v|u,v|.../source,target')")
    edges, query = text.split("/")
    pairs = [tuple(map(int, edge.split(","))) for edge in edges.split("|")]
    source, target = map(int, query.split(","))
    return Query(tuple((u, v) for u, v in pairs), source, target)


# -- graphs ------------------------------------------------------------------------------------------------------------


def distances(adjacent: dict[int, list[int]], source: int) -> dict[int, int]:
    """Shortest-path length in edges from ``source`` to every node it reaches."""
    found = {source: 0}
    queue = deque([source])
    while queue:
        u = queue.popleft()
        for v in adjacent[u]:
            if v not in found:
                found[v] = found[u] + 1
                queue.append(v)
    return found


def random_edges(rng: random.Random, nodes: int, density: tuple[float, float] = (1.3, 1.8)) -> tuple[Edge, ...]:
    """Distinct directed edges in random order, m ~ U[1.3 n, 1.8 n], over a random n-subset of the labels."""
    names = rng.sample(range(LABELS), nodes)
    m = min(rng.randint(round(density[0] * nodes), round(density[1] * nodes)), nodes * (nodes - 1))
    edges = []
    for k in rng.sample(range(nodes * (nodes - 1)), m):
        u, v = divmod(k, nodes - 1)
        edges.append((names[u], names[v + (v >= u)]))
    return tuple(edges)


def random_query(rng: random.Random, nodes: int, hops: tuple[int, int]) -> Query:
    """A query whose shortest path has a length drawn uniformly from ``hops`` (inclusive, in edges)."""
    want = rng.randint(*hops)
    while True:
        edges = random_edges(rng, nodes)
        adjacent = Query(edges, 0, 0).neighbours()
        source = rng.choice(tuple(adjacent))
        at_distance = [v for v, d in distances(adjacent, source).items() if d == want]
        if at_distance:
            return Query(edges, source, rng.choice(at_distance))


def discoverers(query: Query) -> dict[int, int | None]:
    """The node that first listed each node, in the order of discovery (None for the source)."""
    adjacent = query.neighbours()
    found: dict[int, int | None] = {query.source: None}
    for u in distances(adjacent, query.source):
        for v in adjacent[u]:
            found.setdefault(v, u)
    return found


def gold(query: Query) -> list[int]:
    """The one correct completion, ending in ``<eos>``. Raises ``ValueError`` where the target cannot be reached."""
    adjacent = query.neighbours()
    ids = [OPEN]
    for u in distances(adjacent, query.source):  # in order of discovery, which is the order of the queue
        ids += listing(u, adjacent[u])
        if query.target in adjacent[u]:
            ids[-1] = FOUND
            return ids + trace_back(query)
    raise ValueError(f"no path from {query.source} to {query.target}")


def trace_back(query: Query) -> list[int]:
    """``target,...,source>source,...,target<eos>``: back through first discoverers, then the path."""
    parent = discoverers(query)
    back, node = [], query.target
    while node is not None:
        back.append(node)
        node = parent[node]
    return [*_joined(back), DONE, *_joined(back[::-1]), EOS]


def listing(node: int, neighbours: Sequence[int]) -> list[int]:
    """``u,(v,w),``: one expansion."""
    return [node + FIRST_LABEL, LIST, *_joined(neighbours), NEXT]


def _joined(nodes: Sequence[int]) -> list[int]:
    ids = [COMMA] * (2 * len(nodes) - 1) if nodes else []
    ids[::2] = [v + FIRST_LABEL for v in nodes]
    return ids


# -- the checker -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Search:
    """The state a trace implies: queue and discoverers as *written*, so that later steps are judged in their context."""

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
        elif label != self.queue[0]:
            error = "fifo"
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
        expected = next((v for v in real if not self.listed or v > self.listed[-1]), None)
        error = None
        if label in self.listed:
            error = "dup_nbr"
        elif label not in real:
            error = "halluc_nbr"
        elif label != expected:
            error = "skip_nbr"
        self.listed.append(label)
        if label not in self.parent and label != self.query.source:
            self.parent[label] = self.node
            if label not in self.expanded:
                self.queue.append(label)
        self.phase = "separator"
        return error

    def _separator(self, token: int, label: int | None) -> str | None:
        if token in (NEXT, FOUND):
            return self._close(token)
        if token != COMMA:
            return "syntax"
        self.phase = "neighbour"
        return None if self._more() else "halluc_nbr"

    def _close(self, token: int) -> str | None:
        self.phase = "back" if token == FOUND else "node"
        if self._more():
            return "missing_nbr"
        found = self.query.target in self.listed
        if found == (token == FOUND):
            return None
        return "late_stop" if found else "early_stop"

    def _more(self) -> bool:
        return any(v > self.listed[-1] if self.listed else True for v in self.adjacent.get(self.node, []))

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


def check(query: Query, ids: Sequence[int]) -> Check:
    """Follow a completion token by token; name the first offending token and judge every segment in its context.

    A segment after the first error is judged against the queue and discoverers *as the trace wrote them*, so a trace
    may be locally valid again after its onset. O(tokens x out-degree).
    """
    search = _Search(query)
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


def answer(ids: Sequence[int]) -> str | None:
    """The final path, ``"0,2,4"``: what stands between ``>`` and ``<eos>``; None where the trace has no such part."""
    ids = [int(i) for i in ids]
    if not ids or ids[-1] != EOS or DONE not in ids:
        return None
    return decode(ids[len(ids) - ids[::-1].index(DONE) :]) or None


def grade(query: Query, path: str | None) -> bool:
    """True where ``path`` is a path from source to target and no shorter one exists (whatever the trace said)."""
    if path is None or not re.fullmatch(r"\d+(,\d+)*", path):
        return False
    nodes = [int(v) for v in path.split(",")]
    adjacent = query.neighbours()
    if nodes[0] != query.source or nodes[-1] != query.target:
        return False
    if any(v not in adjacent.get(u, ()) for u, v in zip(nodes, nodes[1:], strict=False)):
        return False
    return len(nodes) - 1 == distances(adjacent, query.source)[query.target]


# -- distributions -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Distribution:
    """``G{nodes}_{lo},{hi}``: graphs of so many nodes whose shortest path has ``lo`` to ``hi`` edges."""

    nodes: int
    hops: tuple[int, int]

    def __post_init__(self) -> None:
        if not 2 <= self.nodes <= LABELS:
            raise ValueError(f"nodes must be between 2 and {LABELS}, not {self.nodes}")
        low, high = self.hops
        if not 1 <= low <= high < self.nodes:
            raise ValueError(f"hops must satisfy 1 <= low <= high < nodes, not {low},{high} with {self.nodes} nodes")

    def __str__(self) -> str:
        return f"G{self.nodes}_{self.hops[0]},{self.hops[1]}"

    @classmethod
    def parse(cls, name: str) -> Distribution:
        """``"G15_2,4"`` -> Distribution(15, (2, 4)); ValueError otherwise."""
        match = re.fullmatch(r"G(\d+)_(\d+),(\d+)", name)
        if match is None:
            raise ValueError(f"not a graph distribution: {name!r} (expected e.g. 'G15_2,4')")
        return cls(int(match[1]), (int(match[2]), int(match[3])))

    def queries(self, seed: int) -> Iterator[Query]:
        """An endless stream of queries; the same seed gives the same stream."""
        rng = random.Random(f"{self}/{seed}")
        while True:
            yield random_query(rng, self.nodes, self.hops)


# -- the task ----------------------------------------------------------------------------------------------------------


class GraphSearch:
    """The task the rest of the package sees; grading and checking read the query from the problem's own prompt."""

    name = "graph_search"
    stop_ids: tuple[int, ...] = (EOS,)
    boundary_ids: tuple[int, ...] = (NEXT, FOUND, DONE, EOS)

    def problems(self, distribution: str | Distribution, n: int, seed: int = 0) -> list[Problem]:
        """``n`` problems of a distribution; the same seed gives the same problems, whatever ``n`` is."""
        if isinstance(distribution, str):
            distribution = Distribution.parse(distribution)
        group, stream = str(distribution), distribution.queries(seed)
        return [self.problem(next(stream), f"{group}/{seed}/{i}", group) for i in range(n)]

    def problem(self, query: Query, id: str, group: str = "") -> Problem:
        """One query as a problem."""
        ids = prompt_ids(query)
        return Problem(id, self.name, decode(ids), tuple(ids), answer(gold(query)), group)

    def encode(self, text: str) -> list[int]:
        return encode(text)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        return pieces(ids)

    def boundaries(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """True at each token that ends a step: a closed expansion, the trace back, the path."""
        return np.isin(np.asarray(ids), self.boundary_ids)

    def answer(self, ids: Sequence[int] | np.ndarray) -> str | None:
        return answer([int(i) for i in ids])

    def grade(self, problem: Problem, answer: str | None) -> bool:
        return grade(parse_prompt(problem.prompt_ids), answer)

    def check(self, problem: Problem, ids: Sequence[int] | np.ndarray) -> Check:
        return check(parse_prompt(problem.prompt_ids), ids)
