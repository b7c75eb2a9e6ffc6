"""What an OpenAI-compatible request asks for, checked field by field."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from wrongturn.engines.base import Engine, Sampling
from wrongturn.vocabulary import Message, Vocabulary


class Refused(Exception):
    """A request that is not served; ``field`` is the one at fault."""

    def __init__(self, message: str, field: str | None = None, *, status: int = 400, code: str | None = None) -> None:
        super().__init__(message)
        self.field, self.status, self.code = field, status, code


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may cost; more is refused, not cut."""

    body: int = 16 << 20  # bytes
    choices: int = 512  # prompts times n
    max_tokens: int = 32_768  # where the engine's context is not known
    seconds: float = 600.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for completions or a chat; the choices are ``n`` of each prompt, in order."""

    prompts: list[list[int]]
    n: int
    max_tokens: int
    sampling: Sampling
    seed: int
    top: int | None  # alternatives per token; None: no log-probabilities at all
    echo: bool
    stop: tuple[str, ...]
    stop_ids: tuple[int, ...]
    stream: bool
    usage: bool  # a last event with the token counts
    running: bool  # and the counts so far in every event
    token_ids: bool  # also list the ids
    as_ids: bool  # name tokens ``token_id:N``


NEUTRAL: dict[str, tuple[Any, ...]] = {
    "allowed_token_ids": ([],),
    "bad_words": ([],),
    "best_of": (1,),
    "frequency_penalty": (0,),
    "function_call": ("none",),
    "functions": ([],),
    "guided_json": (),
    "guided_regex": (),
    "logit_bias": ({},),
    "min_p": (0,),
    "min_tokens": (0,),
    "presence_penalty": (0,),
    "prompt_logprobs": (),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "structured_outputs": (),
    "suffix": ("",),
    "tool_choice": ("none",),
    "tools": ([],),
    "top_k": (0, -1),
    "truncate_prompt_tokens": (),
    "use_beam_search": (False,),
}
"""Fields that would change the answer and are not served, with the values that change nothing."""


def parse(data: bytes) -> Fields:
    """The JSON object of a request body."""
    try:
        body = json.loads(data, parse_constant=_no_number)
    except (ValueError, RecursionError) as problem:
        raise Refused(f"the body is not JSON: {problem}") from None
    if not isinstance(body, dict):
        raise Refused(f"the body must be a JSON object, not {_kind(body)}")
    return Fields(body)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")


def _kind(value: Any) -> str:
    return {dict: "an object", list: "a list", str: "text", bool: "a boolean"}.get(type(value), json.dumps(value))


class Fields:
    """The fields of a request; null counts as absent."""

    def __init__(self, body: Mapping[str, Any]) -> None:
        self._body = {name: value for name, value in body.items() if value is not None}

    def __contains__(self, name: str) -> bool:
        return name in self._body

    def get(self, name: str) -> Any:
        """The field as it came, or None."""
        return self._body.get(name)

    def bad(self, name: str, expected: str) -> Refused:
        value = self._body.get(name)
        shown = json.dumps(value) if isinstance(value, int | float | str) else _kind(value)
        return Refused(f"{name} must be {expected}, not {shown[:80]}", name)

    def flag(self, name: str, default: bool = False) -> bool:
        value = self._body.get(name, default)
        if not isinstance(value, bool):
            raise self.bad(name, "true or false")
        return value

    def integer(self, name: str, default: int, low: int, high: int) -> int:
        value = self._body.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.bad(name, f"a whole number from {low} to {high}")
        return value

    def number(self, name: str, default: float, low: float, high: float) -> float:
        value = self._body.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise self.bad(name, f"a number from {low:g} to {high:g}")
        return float(value)

    def texts(self, name: str, most: int) -> tuple[str, ...]:
        """A text or a list of them, none of them empty."""
        value = self._body.get(name, [])
        value = [value] if isinstance(value, str) else value
        if not isinstance(value, list) or len(value) > most or not all(isinstance(v, str) and v for v in value):
            raise self.bad(name, f"text, or a list of at most {most} texts")
        return tuple(value)

    def ids(self, name: str) -> list[int]:
        """A list of token ids."""
        value = self._body.get(name, [])
        if not isinstance(value, list) or not all(is_id(v) for v in value):
            raise self.bad(name, "a list of token ids")
        return value

    def refuse_unserved(self) -> None:
        for name, neutral in NEUTRAL.items():
            if name in self._body and self._body[name] not in neutral:
                raise Refused(f"{name} is not served here", name)


def is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


async def completions(body: Fields, engine: Engine, limits: Limits) -> Asked:
    """A request to ``/v1/completions``."""
    echo = body.flag("echo")
    top = body.integer("logprobs", 0, 0, engine.capabilities.top_k) if "logprobs" in body else None
    return _asked(body, engine, limits, _prompts(body, engine.vocabulary), 16, top, echo)


async def chat(body: Fields, engine: Engine, limits: Limits) -> Asked:
    """A request to ``/v1/chat/completions``."""
    top = body.integer("top_logprobs", 0, 0, engine.capabilities.top_k)
    if not body.flag("logprobs"):
        if top:
            raise Refused("top_logprobs needs logprobs: true", "top_logprobs")
        top = None
    name = "max_completion_tokens" if "max_completion_tokens" in body else "max_tokens"
    return _asked(body, engine, limits, [await conversation(body, engine)], None, top, False, name)


def _asked(
    body: Fields,
    engine: Engine,
    limits: Limits,
    prompts: list[list[int]],
    max_tokens: int | None,
    top: int | None,
    echo: bool,
    max_name: str = "max_tokens",
) -> Asked:
    body.refuse_unserved()
    most = engine.capabilities.context or limits.max_tokens
    if len(prompts) > limits.choices:
        raise Refused(f"at most {limits.choices} prompts at once, not {len(prompts)}", "prompt")
    usual = most if max_tokens is None else min(max_tokens, most)
    stop_ids = () if body.flag("ignore_eos") or engine.vocabulary is None else engine.vocabulary.stop_ids
    temperature, top_p = body.number("temperature", 1.0, 0.0, 100.0), body.number("top_p", 1.0, 0.0, 1.0)
    if not top_p:
        raise body.bad("top_p", "a number above 0, up to 1")
    options = Fields(_object(body, "stream_options"))
    return Asked(
        prompts=prompts,
        n=body.integer("n", 1, 1, limits.choices // len(prompts)),
        max_tokens=body.integer(max_name, usual, 0 if echo else 1, most),
        sampling=Sampling(temperature, top_p),
        seed=body.integer("seed", secrets.randbits(62), -(2**63), 2**63 - 1),
        top=top,
        echo=echo,
        stop=body.texts("stop", 16),
        stop_ids=(*stop_ids, *body.ids("stop_token_ids")),
        stream=body.flag("stream"),
        usage=options.flag("include_usage"),
        running=options.flag("continuous_usage_stats"),
        token_ids=body.flag("return_token_ids"),
        as_ids=body.flag("return_tokens_as_token_ids"),
    )


def _object(body: Fields, name: str) -> Mapping[str, Any]:
    value = body.get(name) or {}
    if not isinstance(value, dict):
        raise body.bad(name, "an object")
    return value


# -- prompts -----------------------------------------------------------------------------------------------------------


def _prompts(body: Fields, vocabulary: Vocabulary | None) -> list[list[int]]:
    prompt = body.get("prompt")
    several = isinstance(prompt, list) and bool(prompt) and not is_id(prompt[0])
    special = body.flag("add_special_tokens", True)
    return [_prompt(body, p, vocabulary, special) for p in (prompt if several else [prompt])]


def _prompt(body: Fields, prompt: Any, vocabulary: Vocabulary | None, special: bool) -> list[int]:
    if isinstance(prompt, str):
        return encode(vocabulary, prompt, special)
    if not isinstance(prompt, list) or not prompt or not all(map(is_id, prompt)):
        raise body.bad("prompt", "text, token ids, or a list of either")
    return prompt


def encode(vocabulary: Vocabulary | None, text: str, special: bool) -> list[int]:
    """Token ids of a text, with the tokens that begin a sequence in front where ``special``."""
    try:
        return [*(begin_ids(vocabulary) if special else ()), *known(vocabulary).encode(text)]
    except ValueError as problem:
        raise Refused(str(problem), "prompt") from None


def begin_ids(vocabulary: Vocabulary | None) -> Sequence[int]:
    """The tokens a model expects in front of any text, where its vocabulary says so."""
    return getattr(vocabulary, "begin_ids", ())


def known(vocabulary: Vocabulary | None) -> Vocabulary:
    """The vocabulary, or a refusal."""
    if vocabulary is None:
        raise Refused("this model has no vocabulary here: send and ask for token ids", "prompt")
    return vocabulary


async def conversation(body: Fields, engine: Engine) -> list[int]:
    """The prompt of ``messages``; under ``continue_final_message`` it ends within the last one."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise body.bad("messages", "a list of messages")
    turns = [_message(i, m) for i, m in enumerate(messages)]
    begun = ""
    if body.flag("continue_final_message"):
        if body.flag("add_generation_prompt"):
            raise Refused(
                "continue_final_message and add_generation_prompt exclude each other", "add_generation_prompt"
            )
        begun = turns.pop()["content"]
    known(engine.vocabulary)
    try:
        return [*await engine.prompt(turns), *known(engine.vocabulary).encode(begun)]
    except ValueError as problem:
        raise Refused(str(problem), "messages") from None


def _message(i: int, message: Any) -> Message:
    role, content = (message.get(k) for k in ("role", "content")) if isinstance(message, dict) else (None, None)
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        content = "".join(str(part.get("text", "")) for part in content)
    if not isinstance(role, str) or not isinstance(content, str):
        raise Refused(f"messages[{i}] must have a role and a content, both text", f"messages[{i}]")
    return {"role": role, "content": content}
