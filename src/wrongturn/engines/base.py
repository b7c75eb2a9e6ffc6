"""What an engine is: something that continues token ids.

One call, :meth:`Engine.stream`. Batching, prefix reuse and concurrency live inside the engine: callers just ``await``,
and many awaiting at once make one batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from wrongturn.engines.edits import Edit
from wrongturn.errors import EngineError
from wrongturn.signals import SignalConfig, Signals
from wrongturn.trace import Ids
from wrongturn.vocabulary import Message, Vocabulary

if TYPE_CHECKING:
    from wrongturn.divergence import Divergence


SIGNALS = SignalConfig()


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do, found by a probe where it is remote, and written into every trace."""

    vocab_size: int | None = None
    context: int | None = None
    top_k: int = 0  # most alternatives per token; equal to vocab_size where the full distribution is known
    logprobs: str = "raw"  # "raw": before temperature and truncation; "processed": after; "none"
    prefix: bool = True  # continues an arbitrary token prefix
    logits: bool = False
    hidden_states: bool = False
    edits: bool = False  # draws from edited logits
    ancestor: str | None = None  # the model that decodes in step with this one
    scores: bool = False  # says what it thinks of given tokens
    token_ids: bool | None = None  # takes prompts as ids and returns ids; None, here and below: not known
    seeds: bool | None = None  # the same seed gives the same tokens
    echo: bool | None = None  # returns logprobs of the prompt
    prefix_caching: bool | None = None
    streaming: bool | None = None  # logprobs also while streaming
    n: bool | None = None  # several completions in one request

    def dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. Temperature 0 is greedy; ``top_p`` keeps the smallest nucleus of that mass."""

    temperature: float = 1.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise ValueError(f"temperature must be at least 0, not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], not {self.top_p}")


class Meter:
    """A cap on decoded tokens shared by any number of concurrent requests; the engine counts, nobody overspends."""

    def __init__(self, limit: int | None = None) -> None:
        if limit is not None and limit < 1:
            raise ValueError(f"a budget must be at least 1 token, not {limit}")
        self.limit = limit
        self.spent = 0

    @property
    def left(self) -> float:
        """Tokens that may still be decoded."""
        return float("inf") if self.limit is None else self.limit - self.spent


class Watch(Protocol):
    """The state of one stop condition over the rows of an engine's batch, evaluated for all rows at once."""

    def admit(self, row: int, ids: Sequence[int], signals: Signals) -> None:
        """A request begins in ``row``; ``ids`` and ``signals`` are what its trace holds so far (the history)."""

    def step(
        self,
        rows: npt.NDArray[np.intp],
        last: npt.NDArray[np.int32],
        signals: Signals,
        divergence: Divergence | None = None,
    ) -> npt.NDArray[np.bool_]:
        """Which of ``rows`` stop *before* their next token is drawn.

        ``last`` is the last token of each row, ``signals`` are those of its next token's distribution (``nll`` is NaN).
        ``divergence`` is that of the two models' distributions (``delta`` is NaN), where the condition needs it.
        """
        ...

    def release(self, row: int) -> None:
        """The request in ``row`` has ended."""


class Until(Protocol):
    """A stop condition. Equal conditions share one :class:`Watch`; so they are frozen, hashable dataclasses."""

    @property
    def needs_logprobs(self) -> bool:
        """Whether it can only fire where the engine tells probabilities."""
        ...

    @property
    def needs_ancestor(self) -> bool:
        """Whether it watches how the model diverges from its ancestor."""
        ...

    def watch(self, rows: int) -> Watch:
        """Fresh state for up to ``rows`` concurrent requests."""
        ...

    def again(self) -> Until:
        """The same condition for a request that begins where it stopped before: one token is drawn first."""
        ...


@dataclass(frozen=True, slots=True)
class Request:
    """Continue ``prefix`` (prompt and completion so far, one sequence of ids).

    ``start`` is where the completion begins in ``prefix`` (None: at its end); ``history`` its signals (for ``until``).
    The draw at completion position i depends on (seed, i) and the distribution alone, whatever else is in the batch.
    With an ``edit`` the token is drawn from the edited distribution; signals and alternatives are the model's own.
    """

    prefix: Ids
    max_tokens: int
    sampling: Sampling = Sampling()
    seed: int = 0
    stop_ids: tuple[int, ...] = ()
    start: int | None = None
    history: Signals | None = None
    until: Until | None = None
    meter: Meter | None = None
    top_k: int = 0
    chunk: int | None = None  # tokens per yielded chunk; None: everything at once, at the end
    signals: SignalConfig = field(default_factory=SignalConfig)
    hidden: tuple[int, ...] = ()  # layers whose states are wanted: 0 the embeddings, i after layer i, -1 the last
    edit: Edit | None = None


@dataclass(slots=True, repr=False)
class Chunk:
    """A piece of a continuation: one entry per token. ``finish`` is set on the last chunk, as are the prefill counts.

    ``pending`` holds, where ``finish`` is "until", the signals (length 1) of the distribution that made it stop.
    ``hidden`` [tokens, layers, width] holds the states each token was drawn from, where the request asked for them.
    ``unlisted`` tokens were decoded for it besides: a server counted them and showed only a text, or not even that.
    """

    ids: Ids
    signals: Signals
    top_ids: npt.NDArray[np.int32]
    top_logprobs: npt.NDArray[np.float32]
    finish: str | None = None
    prompt: int = 0  # tokens computed by prefill for this request
    reused: int = 0  # prefix tokens found in the cache
    pending: Signals | None = None
    hidden: npt.NDArray[np.float16] | None = None
    unlisted: int = 0

    def __repr__(self) -> str:
        # Short: asyncio.run of Python 3.11 formats its result (in signal.signal), which took 10 ms per chunk.
        return f"Chunk({len(self.ids)} tokens, finish={self.finish!r}, prompt={self.prompt}, reused={self.reused})"

    def __getitem__(self, span: slice) -> Chunk:
        """The tokens of a slice. How many were ``unlisted`` is known for all of them only."""
        chunk = Chunk(self.ids[span], self.signals[span], self.top_ids[span], self.top_logprobs[span])
        chunk.hidden = None if self.hidden is None else self.hidden[span]
        chunk.unlisted = self.unlisted if len(chunk.ids) == len(self.ids) else 0
        return chunk

    @classmethod
    def concat(cls, chunks: Sequence[Chunk]) -> Chunk:
        """One chunk of several, in order."""
        last = chunks[-1]
        return cls(
            np.concatenate([c.ids for c in chunks]),
            Signals.concat([c.signals for c in chunks]),
            np.concatenate([c.top_ids for c in chunks]),
            np.concatenate([c.top_logprobs for c in chunks]),
            last.finish,
            last.prompt,
            last.reused,
            last.pending,
            None if last.hidden is None else np.concatenate([c.hidden for c in chunks if c.hidden is not None]),
            sum(c.unlisted for c in chunks),
        )


class Engine(ABC):
    """Continues token ids. Closing a stream early (``aclose``) stops decoding at once and frees its place."""

    name: str
    model: str
    capabilities: Capabilities
    vocabulary: Vocabulary | None = None  # None: the task has its own
    opening: tuple[str, dict[str, Any]] | None = None  # what engines.open made it of, so that a worker can
    ancestor: Engine | None = None  # the model it decodes in step with, as an engine of its own
    concurrency: int = 96  # problems to keep in flight: somewhat more than a batch, so that it never waits for one

    @abstractmethod
    def stream(self, request: Request) -> AsyncGenerator[Chunk, None]:
        """Chunks of the continuation, at least one.

        Raises ``ValueError`` for a token id outside the vocabulary or a prefix that leaves no room in the context.
        """

    async def generate(self, request: Request) -> Chunk:
        """The whole continuation."""
        return Chunk.concat([chunk async for chunk in self.stream(request)])

    async def score(self, prefix: Ids, start: int, *, top_k: int = 0, signals: SignalConfig = SIGNALS) -> Chunk:
        """What the model says of the given tokens ``prefix[start:]``; nothing is decoded (``finish`` is None).

        Raises ``EngineError`` where the engine cannot, ``ValueError`` for what :meth:`stream` would refuse.
        """
        raise EngineError(f"the engine {self.name} cannot score given tokens", fatal=True)

    async def ready(self) -> None:  # noqa: B027 (most engines know themselves)
        """Find out what a remote engine can do, once, before anything is asked of it."""

    async def prompt(self, messages: Sequence[Message]) -> Sequence[int]:
        """Token ids of a conversation, ready for the answer. Raises ``EngineError`` for a model without a chat."""
        if self.vocabulary is None:
            raise EngineError(f"{self.name}: {self.model} has no vocabulary of words to put a question in", fatal=True)
        return self.vocabulary.prompt(messages)

    def identity(self) -> dict[str, Any]:
        """Which model this is: what a run's traces must have in common. Not where it runs, nor what it can do there."""
        return {"engine": self.name, "model": self.model}

    def provenance(self) -> dict[str, Any]:
        """What is stamped on traces: the identity, the ancestor's, and what the engine can do. Never a key."""
        beside = {} if self.ancestor is None else {"ancestor": self.ancestor.identity()}
        return self.identity() | beside | {"capabilities": self.capabilities.dict()}

    def check(self, request: Request) -> None:
        """The bad input every engine refuses alike."""
        prefix, known = np.asarray(request.prefix), self.capabilities
        for name, value, least in (
            ("max_tokens", request.max_tokens, 1),
            ("chunk", request.chunk, 1),
            ("top_k", request.top_k, 0),
        ):
            if value is not None and value < least:
                raise ValueError(f"{name} must be at least {least}, not {value}")
        if request.hidden and not known.hidden_states:
            raise ValueError(f"the engine {self.name} does not tell hidden states")
        self._check_edit(request)
        if len(prefix) == 0:
            raise ValueError("the prefix is empty: there must be at least one token to continue")
        start = len(prefix) if request.start is None else request.start
        if not 0 <= start <= len(prefix):
            raise ValueError(f"start must be a place in the prefix of {len(prefix)} tokens, not {start}")
        if request.history is not None and len(request.history) != len(prefix) - start:
            known_of = f"{len(request.history)} tokens, but the prefix goes on for {len(prefix) - start} from its start"
            raise ValueError(f"the history has {known_of}")
        self._check_ids(prefix)
        if known.context is not None and len(prefix) >= known.context:
            raise ValueError(f"the prefix has {len(prefix)} tokens; the context of {self.model} holds {known.context}")

    def check_score(self, prefix: Ids, start: int, top_k: int) -> None:
        """The bad input every engine that scores refuses alike."""
        if top_k < 0:
            raise ValueError(f"top_k must be at least 0, not {top_k}")
        if not 1 <= start <= len(prefix):
            raise ValueError(f"what is scored must begin at 1 to {len(prefix)}, the prefix's end, not {start}")
        self._check_ids(np.asarray(prefix))
        context = self.capabilities.context
        if context is not None and len(prefix) > context:
            raise ValueError(f"the prefix has {len(prefix)} tokens; the context of {self.model} holds {context}")

    def _check_edit(self, request: Request) -> None:
        edit, known = request.edit, self.capabilities
        if edit is not None and not known.edits:
            raise EngineError(f"the engine {self.name} draws from the model's own distribution: no edits", fatal=True)
        if known.ancestor is None:
            for what, needs in (("the edit", edit), ("the stop condition", request.until)):
                if needs is not None and needs.needs_ancestor:
                    name = type(needs).__name__
                    raise EngineError(
                        f"{what} {name} needs an ancestor: {self.name} was opened without one", fatal=True
                    )

    def _check_ids(self, prefix: Ids) -> None:
        vocab = self.capabilities.vocab_size
        if vocab is not None:
            bad = np.flatnonzero((prefix < 0) | (prefix >= vocab))
            if len(bad):
                raise ValueError(f"token id {prefix[bad[0]]} at position {bad[0]} is outside the vocabulary of {vocab}")

    async def close(self) -> None:  # noqa: B027 (most engines hold nothing)
        """Release what the engine holds."""
