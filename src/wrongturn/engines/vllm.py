"""vLLM in this process: its scheduler batches the requests and caches their prefixes; no server, no port.

vLLM tells the most probable tokens, not the distribution: signals are those of the top ``logprobs``, with bounds.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from vllm import EngineArgs, SamplingParams  # pyright: ignore[reportMissingImports]
from vllm.sampling_params import RequestOutputKind  # pyright: ignore[reportMissingImports]
from vllm.v1.engine.llm_engine import LLMEngine  # pyright: ignore[reportMissingImports]

from wrongturn.engines._completion import Completion, Token, seed_after
from wrongturn.engines._tokenizer import HFVocabulary
from wrongturn.engines.base import Capabilities, Chunk, Engine, Request
from wrongturn.errors import EngineError

NAN = float("nan")


class VLLM(Engine):
    """Continues token ids with a checkpoint: a folder, or a name on the hub.

    ``logprobs`` alternatives are asked for per token, ``slots`` requests are decoded at once. ``options`` are vLLM's
    own engine arguments (``gpu_memory_utilization``, ``tensor_parallel_size``, ``enforce_eager``, …).

    Raises:
        FileNotFoundError: there is no such folder.
        EngineError: vLLM does not start with this model.
    """

    name = "vllm"

    def __init__(
        self,
        path_or_name: str | Path,
        *,
        logprobs: int = 20,
        slots: int = 64,
        context: int | None = None,
        dtype: str = "auto",
        trust_remote_code: bool = False,
        **options: Any,
    ) -> None:
        if logprobs < 1:
            raise ValueError(f"logprobs must be at least 1, not {logprobs}")
        folder = Path(path_or_name).expanduser()
        if folder.is_dir() and not (folder / "config.json").exists():
            raise FileNotFoundError(f"{folder}: no config.json there (expected a Hugging Face checkpoint)")
        self.vocabulary = HFVocabulary.load(path_or_name, trust_remote_code=trust_remote_code)
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # in this process
        try:
            args = EngineArgs(
                model=str(folder if folder.is_dir() else path_or_name),
                dtype=dtype,  # type: ignore[arg-type]
                max_model_len=context,  # type: ignore[arg-type]
                max_num_seqs=slots,
                max_logprobs=logprobs,
                enable_prefix_caching=True,
                disable_log_stats=True,
                trust_remote_code=trust_remote_code,
                **options,
            )
            self._engine = LLMEngine.from_engine_args(args)
        except (OSError, RuntimeError, TypeError, ValueError) as error:
            first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise EngineError(f"vLLM does not start with {path_or_name}: {first}", fatal=True) from None
        config = self._engine.model_config
        vocab = config.get_vocab_size()
        self.model = folder.name if folder.is_dir() else str(path_or_name)
        self.concurrency = slots * 3 // 2
        self.capabilities = Capabilities(
            vocab_size=vocab,
            context=config.max_model_len,
            top_k=min(logprobs, vocab),  # asked for more than there are, vLLM's engine dies
            token_ids=True,
            seeds=True,
            echo=False,
            prefix_caching=True,
            streaming=True,
            n=False,
        )
        self._numbers = count()
        self._queues: dict[str, asyncio.Queue[Any]] = {}
        self._task: asyncio.Task[None] | None = None

    async def close(self) -> None:
        """Let go of the model."""
        self._engine.engine_core.shutdown()

    async def stream(self, request: Request) -> AsyncGenerator[Chunk, None]:
        """Chunks of the continuation, at least one; see :meth:`Engine.stream`."""
        self.check(request)
        request = replace(request, prefix=np.asarray(request.prefix, np.int32))
        context, vocab = self.capabilities.context, self.capabilities.vocab_size
        assert context is not None
        limit = min(request.max_tokens, context - len(request.prefix))
        if request.meter is not None:
            limit = int(min(limit, request.meter.left))
        completion = Completion(request, limit, vocab, _id)
        why, reused = ("budget", 0) if limit < 1 else (None, 0)
        if why is None:
            number, queue = self._ask(request, limit)
            try:
                told = None
                while why is None and told is None:
                    output = await queue.get()
                    if isinstance(output, Exception):
                        raise output
                    reused = output.num_cached_tokens or reused
                    told = output.outputs[0].finish_reason
                    for token in _tokens(output.outputs[0], self.capabilities.top_k):
                        why = completion.add(token)
                        if why is not None:
                            break
                    if why is None and told is None and completion.due:
                        yield completion.take()
                why = why or completion.finish(told)
            finally:
                if self._queues.pop(number, None) is not None:
                    self._engine.abort_request([number])  # of no effect where it has ended
        last = completion.take()
        last.finish, last.pending = why, completion.pending
        last.reused, last.prompt = reused, len(request.prefix) - reused if len(completion) else 0
        yield last

    def _ask(self, request: Request, limit: int) -> tuple[str, asyncio.Queue[Any]]:
        """Hand a request to vLLM; its number, and where its outputs will come."""
        begun = len(request.prefix) if request.start is None else request.start
        params = SamplingParams(
            max_tokens=limit,
            temperature=request.sampling.temperature,
            top_p=request.sampling.top_p,
            seed=seed_after(request.seed, len(request.prefix) - begun) % 2**63,
            stop_token_ids=list(request.stop_ids),
            ignore_eos=True,
            logprobs=self.capabilities.top_k,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
        number = str(next(self._numbers))
        self._engine.add_request(number, {"prompt_token_ids": request.prefix.tolist()}, params)
        queue = self._queues[number] = asyncio.Queue()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="vllm batch")
        elif self._task.get_loop() is not asyncio.get_running_loop():
            if self._task.get_loop().is_running():
                raise RuntimeError("this vllm engine is in use by another event loop; open a second engine")
            self._task = asyncio.get_running_loop().create_task(self._run(), name="vllm batch")
        return number, queue

    async def _run(self) -> None:
        """Step while there is work; between steps the callers see what has come."""
        me = asyncio.current_task()
        try:
            while self._task is me and self._queues:
                for output in self._engine.step():
                    if (queue := self._queues.get(output.request_id.partition("-")[0])) is not None:
                        queue.put_nowait(output)
                await asyncio.sleep(0)
        except Exception as error:
            failed = EngineError(f"vLLM has failed: {error}", fatal=True)
            for queue in self._queues.values():
                queue.put_nowait(failed)


def _tokens(output: Any, k: int) -> list[Token]:
    """What a step has brought, best alternatives first."""
    found = []
    for token, listed in zip(output.token_ids, output.logprobs or [{}] * len(output.token_ids), strict=True):
        ranked = sorted(((i, entry.logprob) for i, entry in listed.items()), key=lambda pair: -pair[1])
        logprob = listed[token].logprob if token in listed else NAN
        found.append(Token("", int(token), logprob, _best(ranked, listed, k)))
    return found


def _best(ranked: list[tuple[int, float]], listed: Mapping[int, Any], k: int) -> list[Any]:
    """The k most probable; a sampled token from further down is listed too, and is none of them."""
    return [(i, logprob) for i, logprob in ranked if (listed[i].rank or 1) <= k][:k]


def _id(token: Any) -> int:
    found = token.id if isinstance(token, Token) else token
    return -1 if found is None else int(found)
