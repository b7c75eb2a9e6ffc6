"""The embedded engine: a small Llama in ONNX Runtime, batched continuously, with a prefix cache. No torch, no download.

What is computed for a request depends on the request alone. Its prompt (``prefix[:start]``, without the last token) is
prefilled on its own in one piece; every later token goes through the one-token graph, in which the arithmetic of a row
does not depend on the other rows; the cache hands out only what was computed so; a draw is a function of seed, position
and distribution. So with ``start`` given, the same request gives the same trace *bit for bit*, whatever else is in the
batch, found in the cache, or forked from: a fork at token i continues as the unforked trace would have. This holds for
one build of ONNX Runtime on one kind of CPU (elsewhere floats round differently). Without ``start`` the engine takes
whatever the cache has; then it holds up to the rounding of a prefill, about 1e-6 nats.

With an ancestor two graphs go over the same rows, each with keys and values of its own; what the specialist computes is
the same with and without.
"""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from wrongturn.engines._cache import Cache
from wrongturn.engines._draw import Floats, alternatives
from wrongturn.engines._loop import BatchEngine, Job
from wrongturn.engines._rows import Slots
from wrongturn.engines._vocabularies import check_pair, words
from wrongturn.engines.base import SIGNALS, Capabilities, Chunk
from wrongturn.signals import SignalConfig, from_logits
from wrongturn.tasks import get
from wrongturn.tasks.base import OwnTokens, OwnVocabulary
from wrongturn.trace import Ids
from wrongturn.vocabulary import Vocabulary

TASK = "wrongturn_task"
"""The key in a folder's ``config.json`` that says what its model has learned; without it: graph_search."""


class Embedded(BatchEngine):
    """Continues token ids with the packaged reasoner, or with a folder written by :mod:`wrongturn.lab.export`.

    ``slots`` requests are decoded at once, the others wait; ``retained`` finished ones are kept so that their prefixes
    can be reused. Each takes up to ``8 · layers · width · context`` bytes, 1.5 MB for the packaged model. More slots do
    not help a model of this size: a step reads all keys and values, and those of 16 rows still fit a processor's cache.
    ``ancestor`` is another such model, with the same tokens, that decodes in step.

    Raises:
        FileNotFoundError: there is no such model.
        EngineError: the ancestor has other tokens.
    """

    name = "embedded"

    def __init__(
        self,
        path: Path | str | None = None,
        *,
        ancestor: Path | str | None = None,
        slots: int = 16,
        retained: int = 128,
        threads: int = 1,
    ) -> None:
        folder = model_folder(path)
        config = read_config(folder)
        vocab, context = config["vocab_size"], config["max_position_embeddings"]
        self.model = folder.name
        self._session = session(folder / "graph.onnx", threads)
        self._shape = config["num_hidden_layers"], config["num_attention_heads"], context, config["head_dim"]
        models: list[Embedded] = [self]
        if ancestor is not None:
            other = model_folder(ancestor)
            check_pair(
                (folder.name, vocab, words(folder)), (other.name, read_config(other)["vocab_size"], words(other))
            )
            beside = Embedded(other, slots=slots, retained=retained, threads=threads)
            self.ancestor, context = beside, min(context, beside._rows.context)
            models.append(beside)
        super().__init__(slots, vocab, context)
        self.vocabulary = vocabulary(folder)
        self.capabilities = Capabilities(
            vocab_size=vocab,
            context=context,
            top_k=vocab,
            edits=True,
            ancestor=None if self.ancestor is None else self.ancestor.model,
            scores=True,
            token_ids=True,
            seeds=True,
            echo=False,
            prefix_caching=True,
            streaming=True,
            n=False,
        )
        self._weights = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:16]
        self._cache = Cache([model._shape for model in models], slots, retained)
        self._graphs = [Graph(m._session, kv, slots, vocab) for m, kv in zip(models, self._cache.kv, strict=True)]

    def identity(self) -> dict[str, Any]:
        """Also says which weights (the beginning of their SHA-256)."""
        return super().identity() | {"weights": self._weights}

    async def score(self, prefix: Ids, start: int, *, top_k: int = 0, signals: SignalConfig = SIGNALS) -> Chunk:
        """See :meth:`Engine.score`. The memory it takes is its own: what is being decoded is not disturbed."""
        self.check_score(prefix, start, top_k)
        ids = np.asarray(prefix, np.int32)
        given = ids[start:]
        logits = self._graphs[0].score(ids[:-1], np.arange(start - 1, len(ids) - 1, dtype=np.int32))
        measured = from_logits(logits, given, signals)
        return Chunk(given, measured, *alternatives(logits, given, measured, top_k), prompt=len(ids))

    def _begin(self, job: Job, slot: int) -> bool:
        if job.behind is not None and self._on_its_way(*job.behind):
            return False
        prefix, start = job.request.prefix, job.request.start
        base = None if start is None else max(0, min(start, len(prefix)) - 1)
        match = self._cache.find(prefix, base)
        if match.promise > match.count:
            job.behind = self._jobs[int(self._cache.slot[match.active])], match.promise
            return False
        job.behind, job.reused = None, match.count
        if match.count:
            self._cache.begin(slot, prefix, match.base, match)
            return True
        base = len(prefix) - 1 if base is None else base
        row = self._cache.begin(slot, prefix, base)
        if base:
            for graph in self._graphs:
                graph.prefill(row, prefix[:base])
            self._cache.fed[row] = base
        return True

    def _on_its_way(self, leader: Job, promise: int) -> bool:
        return leader.slot >= 0 and bool(self._cache.fed[self._cache.row[leader.slot]] < promise)

    def _forward(self) -> tuple[Slots, Floats, Floats | None]:
        cache, n = self._cache, self._cache.n
        fed = cache.fed[:n]
        tokens = cache.tokens[np.arange(n), fed]
        found = [graph.decode(tokens, fed) for graph in self._graphs]
        fed += 1
        fresh = fed == cache.known[:n]  # the others were fed a token of their prefix, and have more
        if not fresh.all():
            found = [logits[fresh] for logits in found]
        return cache.slot[:n][fresh], found[0], found[1] if len(found) > 1 else None

    def _append(self, slots: Slots, tokens: Ids) -> None:
        self._cache.append(slots, tokens)

    def _end(self, slot: int) -> None:
        self._cache.end(slot)


def read_config(folder: Path) -> dict[str, Any]:
    """The ``config.json`` of a model folder."""
    if not (folder / "graph.onnx").exists():
        raise FileNotFoundError(f"{folder}: no graph.onnx there (wrongturn.lab.export writes such a folder)")
    return json.loads((folder / "config.json").read_text())


def packaged() -> Path:
    """The folder of the reasoner that comes with the package."""
    return _WEIGHTS / "graph_search"


def model_folder(name: Path | str | None = None) -> Path:
    """The folder of a model that comes with the package, by its name (None: the reasoner), else ``name`` as a path."""
    if name is None:
        return packaged()
    known = [folder.name for folder in _WEIGHTS.iterdir() if (folder / "graph.onnx").exists()]
    own = (Path(name) / "graph.onnx").exists()  # a run folder of that name does not count
    return _WEIGHTS / name if str(name) in known and not own else Path(name)


_WEIGHTS = Path(str(resources.files("wrongturn.engines"))) / "weights"


def vocabulary(folder: Path) -> Vocabulary | None:
    """The vocabulary of a folder: a search task's own, which needs no library, where its tokenizer is that one."""
    tokens = words(folder)
    if tokens is None:
        return None
    task = get(json.loads((folder / "config.json").read_text()).get(TASK, "graph_search"))
    if isinstance(task, OwnTokens) and tokens == list(task.words):
        return OwnVocabulary(task)
    from wrongturn.engines._tokenizer import HFVocabulary

    return HFVocabulary.load(str(folder))


def session(file: Path, threads: int) -> ort.InferenceSession:
    """A graph, loaded."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # others need the cores as well
    return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


class Graph:
    """An ONNX Runtime session over rows of a cache it writes in place; see :func:`wrongturn.lab.export.graph`.

    All its inputs and outputs are bound to fixed memory, once per number of rows.
    """

    def __init__(self, session: ort.InferenceSession, kv: Floats, slots: int, vocab: int) -> None:
        self._session, self._kv = session, kv
        self._scratch: Floats | None = None  # keys and values of one row, for what is only scored
        self._ids = np.zeros((slots, 1), np.int32)
        self._past = np.zeros(slots, np.int32)
        self._total = np.zeros((), np.int32)
        self._every = np.arange(slots, dtype=np.int32)
        self._logits = np.zeros((slots, vocab), np.float32)
        self._bound: dict[int, ort.IOBinding] = {}

    def decode(self, tokens: Ids, positions: Slots) -> Floats:
        """Feed one token [n] to each of rows [0, n); logits [n, V], which the next call overwrites."""
        n = len(tokens)
        self._ids[:n, 0], self._past[:n] = tokens, positions
        self._total[...] = positions.max() + 1
        if n not in self._bound:
            self._bound[n] = self._bind(
                self._kv[:, :n], self._ids[:n], self._past[:n], self._every[:n], self._logits[:n]
            )
        self._session.run_with_iobinding(self._bound[n])
        return self._logits[:n]

    def prefill(self, row: int, tokens: Ids) -> None:
        """Compute the keys and values of a row's first tokens.

        Prompts go one by one: a padded batch of them is no faster on a CPU, and bits would depend on the company.
        """
        self._run(self._kv[:, row : row + 1], tokens, self._every[:1], self._logits[:1])

    def score(self, tokens: Ids, positions: Ids) -> Floats:
        """Logits [n, V] of what comes after ``positions`` [n] of a sequence, in memory of their own."""
        logits = np.empty((len(positions), self._logits.shape[1]), np.float32)
        if len(positions):
            if self._scratch is None:
                self._scratch = np.zeros_like(self._kv[:, :1])
            self._run(self._scratch, tokens, positions, logits)
        return logits

    def _run(self, kv: Floats, tokens: Ids, positions: Ids, logits: Floats) -> None:
        """Feed a row its first tokens at once."""
        self._total[...] = len(tokens)
        past = np.array([len(tokens) - 1], np.int32)
        self._session.run_with_iobinding(self._bind(kv, np.ascontiguousarray(tokens[None]), past, positions, logits))

    def _bind(self, kv: Floats, ids: Ids, past: Ids, last: Ids, logits: Floats) -> ort.IOBinding:
        binding = self._session.io_binding()
        for name, array in (("ids", ids), ("past", past), ("total", self._total), ("last", last)):
            binding.bind_input(name, "cpu", 0, np.int32, array.shape, array.ctypes.data)
        binding.bind_output("logits", "cpu", 0, np.float32, logits.shape, logits.ctypes.data)
        for i, rows in enumerate(kv):
            name = f"{('key', 'value')[i % 2]}.{i // 2}"
            binding.bind_input(name, "cpu", 0, np.float32, rows.shape, rows.ctypes.data)
            binding.bind_output(f"new_{name}", "cpu", 0, np.float32, rows.shape, rows.ctypes.data)
        return binding
