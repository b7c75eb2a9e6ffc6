"""The lab's one architecture: a small Llama (RMSNorm, RoPE, SwiGLU, tied embeddings, attention biases)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Shape of a reasoner; ``context`` is the longest prompt + trace in tokens."""

    vocab: int = 31
    layers: int = 4
    heads: int = 4
    width: int = 128
    ffn: int = 256
    context: int = 384
    rope_theta: float = 500.0
    norm_eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    def parameters(self) -> int:
        """Number of weights."""
        d, f = self.width, self.ffn
        return self.vocab * d + d + self.layers * (4 * d * d + 4 * d + 3 * d * f + 2 * d)


def rope_frequencies(config: ModelConfig) -> Tensor:
    """[head_dim / 2] angular frequencies, radians per token."""
    h = config.head_dim
    return config.rope_theta ** (-torch.arange(0, h, 2, dtype=torch.float64) / h)


class Block(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, d, f = config.heads, config.width, config.ffn
        self.norm1 = nn.RMSNorm(d, eps=config.norm_eps)
        self.qkv = nn.Linear(d, 3 * d)
        self.out = nn.Linear(d, d)
        self.norm2 = nn.RMSNorm(d, eps=config.norm_eps)
        self.gate_up = nn.Linear(d, 2 * f, bias=False)
        self.down = nn.Linear(f, d, bias=False)

    def project(self, x: Tensor) -> Tensor:
        """[..., width] -> [..., 3 width]: queries, keys and values."""
        return self.qkv(self.norm1(x))

    def forward(self, x: Tensor, qkv: Tensor, cos: Tensor, sin: Tensor, keep: Tensor | None = None) -> Tensor:
        """x [batch, tokens, width] and its projections -> the like of x, or [n, width]: only where ``keep`` is True."""
        b, t, d = x.shape
        qk, v = qkv.view(b, t, 3, self.heads, d // self.heads).split((2, 1), dim=2)
        q, k = rotate(qk, cos, sin).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v[:, :, 0].transpose(1, 2), is_causal=True)
        attended = attended.transpose(1, 2).reshape(b, t, d)
        if keep is not None:
            x, attended = x[keep], attended[keep]
        x = x + self.out(attended)
        gate, up = self.gate_up(self.norm2(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding, half-split layout (as Hugging Face's Llama and ONNX Runtime's rotary).

    x is [batch, tokens, 2, heads, head_dim]; ``cos`` and ``sin`` are [tokens, 1, 1, head_dim], the first half of the
    sines negative: one product, one rotated copy and one fused multiply-add, all of them in memory order.
    """
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


class Reasoner(nn.Module):
    """Token ids [batch, tokens] -> logits [batch, tokens, vocab]; pad on the right."""

    cos: Tensor
    sin: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        angles = torch.outer(torch.arange(config.context, dtype=torch.float64), rope_frequencies(config))
        cos, sin = angles.cos().float(), angles.sin().float()
        self.register_buffer("cos", torch.cat((cos, cos), -1)[:, None, None], persistent=False)
        self.register_buffer("sin", torch.cat((-sin, sin), -1)[:, None, None], persistent=False)
        self.apply(self._initialise)
        for block in self.blocks:
            assert isinstance(block, Block)
            for linear in (block.out, block.down):  # GPT-2: residual branches start smaller the deeper the model
                nn.init.normal_(linear.weight, std=0.02 * (128 / config.width) ** 0.5 / (2 * config.layers) ** 0.5)

    def _initialise(self, module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02 * (128 / self.config.width) ** 0.5 * 2)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.06)

    def forward(self, ids: Tensor, keep: Tensor | None = None) -> Tensor:
        """Logits [batch, tokens, vocab]; with ``keep`` [batch, tokens] bool, [n, vocab] of those positions alone.

        Training keeps the trace's positions: the last block's feed-forward, a fifth of the work, then skips the prompt.
        What the first block projects depends on the token alone, so it is computed once a token of the vocabulary.
        """
        x = self.embed(ids)
        cos, sin = self.cos[: ids.shape[1]], self.sin[: ids.shape[1]]
        for i, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            qkv = block.project(x) if i else F.embedding(ids, block.project(self.embed.weight))
            x = block(x, qkv, cos, sin, keep if i == len(self.blocks) - 1 else None)
        return F.linear(self.norm(x), self.embed.weight)

    @torch.no_grad()
    def look_back(self, offsets: tuple[int, ...] = (1, 2), strength: float = 5.5) -> None:
        """Let the first layer's heads be born attending to fixed offsets: the previous token, and the one before.

        With RoPE, a query bias c·e^(-i·d·f) against a key bias c scores c²·Σ cos(f·(distance - d)), which peaks at d.
        """
        config, first = self.config, self.blocks[0]
        assert isinstance(first, Block)
        bias = first.qkv.bias.view(3, config.heads, 2, config.head_dim // 2)
        f = rope_frequencies(config).float()
        for head, d in zip(range(config.heads), offsets, strict=False):
            bias[0, head, 0], bias[0, head, 1] = strength * (d * f).cos(), -strength * (d * f).sin()
            bias[1, head, 0], bias[1, head, 1] = strength, 0.0
