"""Where a training runs: device, precision, several processes; and how much of the device it uses."""

from __future__ import annotations

import math
import os
import re
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from wrongturn.errors import WrongturnError
from wrongturn.lab.model import ModelConfig


@dataclass(frozen=True, slots=True)
class Machine:
    """One process of a training. ``rank`` of ``world`` processes; rank 0 writes files and reports."""

    device: str = "cpu"
    compile: bool = False
    rank: int = 0
    world: int = 1

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def autocast(self) -> AbstractContextManager[object]:
        """bfloat16 on a GPU. On CPUs without matrix units it is slower than float32, so they keep that."""
        return torch.autocast("cuda", torch.bfloat16) if self.device.startswith("cuda") else nullcontext()

    def total(self, number: int) -> int:
        """The sum of ``number`` over all processes."""
        if self.world == 1:
            return number
        summed = torch.tensor(number, device=self.device)
        dist.all_reduce(summed)
        return int(summed)

    def average(self, gradients: list[Tensor]) -> None:
        """Replace the gradients by their mean over all processes."""
        if self.world == 1:
            return
        flat = torch.cat([g.flatten() for g in gradients])
        dist.all_reduce(flat)
        for g, mean in zip(gradients, (flat / self.world).split([g.numel() for g in gradients]), strict=True):
            g.copy_(mean.view_as(g))


def here(device: str = "auto", compile: bool = False) -> Machine:
    """This process's place: ``device`` is 'auto' (a GPU if there is one), 'cpu' or 'cuda'; ``torchrun`` sets the rest.

    Raises :class:`wrongturn.errors.WrongturnError` for a device that is unknown or not there.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    there = ["cpu", *(["cuda"] if gpus else [])]
    if device == "auto":
        device = there[-1]
    if device not in ("cpu", "cuda"):
        raise WrongturnError(f"unknown device {device!r} (expected 'auto', 'cpu' or 'cuda')")
    if device not in there:
        raise WrongturnError(f"device {device!r} is not there (this torch and machine have: {', '.join(there)})")
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if device == "cuda" else "gloo")
    if device == "cuda":
        device = f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % gpus}"
        torch.cuda.set_device(device)
    return Machine(device, compile, rank, world)


# -- memory ------------------------------------------------------------------------------------------------------------


def bytes_needed(model: ModelConfig, batch: int, tokens: int) -> int:
    """About what a training step takes: weights, gradients, two moments, and the activations kept for backward.

    Per token and layer these are about 16 widths and 5 feed-forward widths of float32.
    """
    per_token = model.layers * (16 * model.width + 5 * model.ffn) + 3 * model.vocab + 4 * model.width
    return 4 * (4 * model.parameters() + batch * tokens * per_token)


def room(device: str, meminfo: Path = Path("/proc/meminfo")) -> float:
    """Memory of the device that can be had, bytes, what caches would give back included; infinite if nobody knows."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(device)[0]
    told = re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text() if meminfo.exists() else "", re.MULTILINE)
    return 1024 * int(told[1]) if told else math.inf


def check_memory(model: ModelConfig, batch: int, tokens: int, device: str, free: float | None = None) -> None:
    """Raise :class:`wrongturn.errors.WrongturnError` where a batch will not fit, saying what would."""
    free = room(device) if free is None else free
    needed = bytes_needed(model, batch, tokens)
    if needed <= free:
        return
    fixed = bytes_needed(model, 0, tokens)
    fits = int(max(0, free - fixed) * batch // (needed - fixed))
    what = f"about {needed / 1e9:.1f} GB for batches of {batch} x {tokens} tokens, {free / 1e9:.1f} GB are free"
    none = "not even one example would fit: a smaller --width or fewer --layers"
    advice = f"batches of {fits} would fit" if fits else none
    raise WrongturnError(f"too little memory on {device}: {what}; {advice}")


# -- speed -------------------------------------------------------------------------------------------------------------


def peak_flops(device: str, seconds: float = 0.3) -> float:
    """Multiply-adds x 2 a second of a large matrix product, measured: bfloat16 on a GPU, float32 on a CPU."""
    gpu = device.startswith("cuda")
    n = 8192 if gpu else 1024
    a = torch.randn(n, n, device=device, dtype=torch.bfloat16 if gpu else torch.float32)
    torch.mm(a, a)
    _wait(device)
    clock = time.perf_counter if gpu else time.process_time  # a processor may be shared with others
    rounds, begun = 0, clock()
    while clock() - begun < seconds:
        torch.mm(a, a)
        _wait(device)
        rounds += 1
    return rounds * 2 * n**3 / (clock() - begun)


def flops_per_token(model: ModelConfig, tokens: int) -> float:
    """Matrix arithmetic of a training step per token, in sequences of ``tokens`` (causal attention halved).

    The first block's projections are computed per word, not per token. That the last feed-forward and the logits are
    computed for the trace alone is not taken off, so this is a little high.
    """
    return 6 * (model.parameters() - 3 * model.width**2) + 6 * model.layers * model.width * tokens


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
