"""How a server is asked: which endpoint, token ids or texts, and how an answer that has begun is handed back to it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wrongturn.vocabulary import Message

Prompt = Sequence[int] | str | Sequence[Message]

PREFILLS: tuple[Mapping[str, Any], ...] = ({"continue_final_message": True, "add_generation_prompt": False}, {})
"""Ways to have a chat continue its last message: vLLM's and llama.cpp's, and just ending with the assistant's turn."""

IDS = {
    "return_token_ids": True,
    "return_tokens_as_token_ids": True,
    # A server fills in the sampling defaults of the checkpoint; what is drawn here is what was asked for.
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
}
"""vLLM's options that make it return ids, for the drawn tokens and for the alternatives, and sample plainly."""

_SECRET = re.compile(r"auth|bearer|cookie|credential|header|keys?$|passw|secret|token$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Dialect:
    """What the probe found out about asking. ``prefill`` None: a begun answer is not continued."""

    chat: bool = False
    ids: bool = False
    prefill: Mapping[str, Any] | None = None
    streams: bool = True  # with logprobs
    usage: bool = True  # told at the end of a stream
    limit: str = "max_tokens"
    logprobs: bool = True
    sampling: bool = True  # temperature and top_p are taken; else the model has its own

    @property
    def path(self) -> str:
        return "chat/completions" if self.chat else "completions"

    def body(
        self,
        model: str,
        prompt: Prompt,
        max_tokens: int,
        *,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seed: int | None = None,
        k: int = 0,
        stop_ids: Sequence[int] = (),
        written: str = "",
        stream: bool = False,
    ) -> dict[str, Any]:
        """A request's body. ``written`` is what a chat's answer begins with."""
        body: dict[str, Any] = {"model": model, self.limit: max_tokens}
        if self.sampling:
            body["temperature"] = temperature
        if self.chat:
            messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
            if written:
                messages.append({"role": "assistant", "content": written})
                body |= self.prefill or {}
            body["messages"] = messages
        else:
            body["prompt"] = prompt if isinstance(prompt, str) else list(prompt)
        if top_p < 1 and self.sampling:
            body["top_p"] = top_p
        if seed is not None:
            body["seed"] = seed if self.ids else seed % 2**31  # some servers keep 32 bits, signed or not
        if self.logprobs:
            body |= {"logprobs": True, "top_logprobs": k} if self.chat else {"logprobs": k}
        if self.ids:
            body |= IDS
            if stop_ids:
                body["stop_token_ids"] = list(stop_ids)
        if stream and self.streams:
            body["stream"] = True
            if self.usage:
                body["stream_options"] = {"include_usage": True} | (
                    {"continuous_usage_stats": True} if self.ids else {}
                )
        return body


def public(fields: Any) -> Any:
    """Fields of a body as JSON gives them back, but for what a name says is secret: what may be stored of them."""
    if isinstance(fields, Mapping):
        return {str(name): "***" if _SECRET.search(str(name)) else public(value) for name, value in fields.items()}
    return [public(value) for value in fields] if isinstance(fields, (list, tuple)) else fields
