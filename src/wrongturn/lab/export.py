"""A trained reasoner as a folder anyone can load: a Hugging Face Llama checkpoint, and a graph for ONNX Runtime.

The weights are in the folder once. ``graph.onnx`` holds no numbers of the model, only where in ``model.safetensors``
each tensor starts, so it is a few kB and the two files belong together. The same checkpoint gives the same bytes.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper
from safetensors.numpy import load_file, save
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from wrongturn.engines.embedded import TASK
from wrongturn.lab.folders import task_of
from wrongturn.lab.model import ModelConfig
from wrongturn.lab.recipes import own_tokens
from wrongturn.tasks.base import BOS, EOS, PAD, SPECIAL, OwnTokens

Array = npt.NDArray[np.float32]


def export(checkpoint: Path, out: Path) -> Path:
    """Write the newest whole checkpoint of a training run (``config.json``, ``last/model.safetensors``) to ``out``.

    Raises ``FileNotFoundError`` where there is no checkpoint, ``ValueError`` where ``out`` is the training's folder.
    """
    if out.resolve() == checkpoint.resolve():
        raise ValueError(f"{out}: the training is there; export it to another folder (such as {out / 'export'})")
    settings = json.loads((checkpoint / "config.json").read_text())
    found = next((f for f in (checkpoint / "last", checkpoint / "old") if (f / "model.safetensors").exists()), None)
    if found is None:
        raise FileNotFoundError(f"{checkpoint}: no last/model.safetensors there; has training saved yet?")
    return write(ModelConfig(**settings["model"]), load_file(found / "model.safetensors"), out, task_of(settings))


def write(config: ModelConfig, state: dict[str, Array], out: Path, task: str = "graph_search") -> Path:
    """Write the folder from a :class:`wrongturn.lab.model.Reasoner`'s state (arrays by name) and what it has learned.

    Raises ``ValueError`` for a shape ONNX Runtime's attention cannot do, or weights of another one.
    """
    learned = own_tokens(task)
    if config.vocab != len(learned.words):
        raise ValueError(f"a vocabulary of {config.vocab}, but {task} has {len(learned.words)} words")
    if config.head_dim % 16:
        raise ValueError(f"width / heads must be a multiple of 16 for ONNX Runtime, not {config.head_dim}")
    out.mkdir(parents=True, exist_ok=True)
    _json(out / "config.json", llama_config(config, task))
    _json(out / "generation_config.json", _GENERATION)
    _json(out / "tokenizer_config.json", _tokenizer_config(config))
    (out / "tokenizer.json").write_text(tokenizer(learned).to_str(pretty=True) + "\n")
    tensors = save(hugging_face_names(config, state), metadata={"format": "pt"})
    (out / "model.safetensors").write_bytes(tensors)
    (out / "graph.onnx").write_bytes(graph(config, out / "model.safetensors").SerializeToString(deterministic=True))
    return out


def _json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


# -- Hugging Face ------------------------------------------------------------------------------------------------------

_SPECIAL = {"bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD}
_GENERATION = {**_SPECIAL, "do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}


def llama_config(config: ModelConfig, task: str = "graph_search") -> dict[str, Any]:
    """``LlamaConfig`` as JSON; the rotary base is given both as transformers 5 (``rope_parameters``) and 4 read it."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **_SPECIAL,
        "vocab_size": config.vocab,
        "hidden_size": config.width,
        "intermediate_size": config.ffn,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.context,
        "hidden_act": "silu",
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "attention_bias": True,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "initializer_range": 0.02,
        "pretraining_tp": 1,
        "use_cache": True,
        "torch_dtype": "float32",
        TASK: task,
    }


def hugging_face_names(config: ModelConfig, state: dict[str, Array]) -> dict[str, Array]:
    """The state under Hugging Face's names, fused projections split. Raises ``ValueError`` if it does not fit."""
    tensors = {"model.embed_tokens.weight": state["embed.weight"], "model.norm.weight": state["norm.weight"]}
    for layer in range(config.layers):
        ours, theirs = f"blocks.{layer}.", f"model.layers.{layer}."
        for kind in ("weight", "bias"):
            for name, part in zip("qkv", np.split(state[f"{ours}qkv.{kind}"], 3), strict=True):
                tensors[f"{theirs}self_attn.{name}_proj.{kind}"] = part
            tensors[f"{theirs}self_attn.o_proj.{kind}"] = state[f"{ours}out.{kind}"]
        for name, part in zip(("gate", "up"), np.split(state[f"{ours}gate_up.weight"], 2), strict=True):
            tensors[f"{theirs}mlp.{name}_proj.weight"] = part
        tensors[f"{theirs}mlp.down_proj.weight"] = state[f"{ours}down.weight"]
        tensors[f"{theirs}input_layernorm.weight"] = state[f"{ours}norm1.weight"]
        tensors[f"{theirs}post_attention_layernorm.weight"] = state[f"{ours}norm2.weight"]
    if sum(t.size for t in tensors.values()) != sum(t.size for t in state.values()):
        raise ValueError("these weights are not of this architecture")
    return {name: np.ascontiguousarray(tensor, np.float32) for name, tensor in tensors.items()}


def tokenizer(task: OwnTokens) -> Tokenizer:
    """Encodes as the task does, begin token in front; refuses foreign text; decodes without spaces."""
    words = Tokenizer(models.WordLevel({token: i for i, token in enumerate(task.words)}, unk_token="<unk>"))
    words.add_special_tokens(list(SPECIAL))
    words.normalizer = normalizers.Replace(" ", "")
    words.pre_tokenizer = pre_tokenizers.Split(Regex(task.token.pattern), "isolated")
    words.post_processor = processors.TemplateProcessing(f"{SPECIAL[BOS]} $A", None, [(SPECIAL[BOS], BOS)])
    words.decoder = decoders.Fuse()
    return words


def _tokenizer_config(config: ModelConfig) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": SPECIAL[BOS],
        "eos_token": SPECIAL[EOS],
        "pad_token": SPECIAL[PAD],
        "model_max_length": config.context,
        "clean_up_tokenization_spaces": False,
    }


# -- ONNX --------------------------------------------------------------------------------------------------------------

_MS = "com.microsoft"  # ONNX Runtime's own operators: attention over a cache, fused norms, SiLU
_MS_OPERATORS = ("GroupQueryAttention", "SkipSimplifiedLayerNormalization", "QuickGelu")


def graph(config: ModelConfig, weights: Path) -> onnx.ModelProto:
    """The forward pass, its weights pointing into ``weights`` (which must lie beside the graph).

    Inputs: ``ids`` int32 [B, S]; ``past`` int32 [B], tokens each row has after this call, less one (what the operator
    calls ``seqlens_k``); ``total`` int32 scalar, tokens of the longest row after this call; ``last`` int32 [R], which
    of the B·S positions logits are wanted of; per layer ``key.i``, ``value.i`` float32 [B, heads, context, head_dim].
    Outputs: ``logits`` float32 [R, vocab]; ``new_key.i`` and ``new_value.i``, to be bound to the memory of the inputs.
    Either S = 1 (decode), or every row starts at position 0 (prefill, padded on the right).
    """
    build = _Builder(weights)
    logits = _forward(build, config)
    cache = ["B", config.heads, config.context, config.head_dim]
    info = helper.make_tensor_value_info
    inputs = [info("ids", TensorProto.INT32, ["B", "S"]), info("past", TensorProto.INT32, ["B"])]
    inputs += [info("total", TensorProto.INT32, []), info("last", TensorProto.INT32, ["R"])]
    outputs = [info(logits, TensorProto.FLOAT, ["R", config.vocab])]
    for i in range(config.layers):
        inputs += [info(f"{kind}.{i}", TensorProto.FLOAT, cache) for kind in ("key", "value")]
        outputs += [info(f"new_{kind}.{i}", TensorProto.FLOAT, cache) for kind in ("key", "value")]
    body = helper.make_graph(build.nodes, "reasoner", inputs, outputs, build.initializers)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(_MS, 1)]
    return helper.make_model(body, opset_imports=opsets, ir_version=8, producer_name="wrongturn")


class _Builder:
    """Nodes and initializers of a graph in the making; values are handed about by name."""

    def __init__(self, weights: Path) -> None:
        with weights.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            self._layout: dict[str, Any] = json.loads(file.read(size))
        self._file, self._start = weights.name, 8 + size
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[TensorProto] = []

    def __call__(self, op: str, *inputs: str, name: str, extra: tuple[str, ...] = (), **attributes: Any) -> str:
        """Add a node; its first output is called ``name`` and returned, ``extra`` are further outputs."""
        domain = _MS if op in _MS_OPERATORS else ""
        self.nodes.append(helper.make_node(op, inputs, [name, *extra], domain=domain, **attributes))
        return name

    def weight(self, name: str) -> str:
        """A tensor of the weights file."""
        entry = self._layout[name]
        start, end = entry["data_offsets"]
        tensor = TensorProto(name=name, dims=entry["shape"], data_type=TensorProto.FLOAT)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", self._file), ("offset", self._start + start), ("length", end - start)):
            tensor.external_data.add(key=key, value=str(value))
        self.initializers.append(tensor)
        return name

    def constant(self, name: str, value: npt.ArrayLike, dtype: npt.DTypeLike) -> str:
        """A small constant of the graph itself."""
        self.initializers.append(onnx.numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def linear(self, x: str, weight: str, *bias: str, name: str) -> str:
        """x [N, in] times a weight [out, in], plus a bias."""
        return self("Gemm", x, weight, *bias, name=name, transB=1)


def _forward(b: _Builder, config: ModelConfig) -> str:
    """All nodes; returns the name of the logits. Activations are [B·S, width] except around attention."""
    cos, sin = _rotary(b, config)
    minus_one = b.constant("minus_one", [-1], np.int64)
    flat = b.constant("flat", [-1, config.width], np.int64)
    shape = b("Concat", b("Shape", "ids", name="batch"), minus_one, name="shape", axis=0)
    embed = b.weight("model.embed_tokens.weight")
    x = b("Gather", embed, b("Reshape", "ids", minus_one, name="tokens"), name="embedded")
    epsilon = config.norm_eps
    gain = b.weight("model.layers.0.input_layernorm.weight")
    normed = b("SimplifiedLayerNormalization", x, gain, name="normed", epsilon=epsilon)
    for i in range(config.layers):
        p, last = f"model.layers.{i}.", i == config.layers - 1
        qkv = b("Reshape", _fused_qkv(b, config, normed, p), shape, name=f"{p}qkv")
        cache, updated = (f"key.{i}", f"value.{i}"), (f"new_key.{i}", f"new_value.{i}")
        attended = b(
            "GroupQueryAttention", qkv, "", "", *cache, "past", "total", cos, sin, name=f"{p}attended", extra=updated,
            num_heads=config.heads, kv_num_heads=config.heads, do_rotary=1, rotary_interleaved=0, scale=1.0,
        )  # fmt: skip
        attended = b("Reshape", attended, flat, name=f"{p}heads")
        if last:  # from here on only the wanted positions matter
            attended, x = (b("Gather", v, "last", name=f"last_{n}") for n, v in (("attended", attended), ("x", x)))
        o = f"{p}self_attn.o_proj."
        out = b.linear(attended, b.weight(f"{o}weight"), b.weight(f"{o}bias"), name=f"{p}out")
        normed, x = _add_norm(b, x, out, b.weight(f"{p}post_attention_layernorm.weight"), f"{p}mlp", epsilon)
        gate, up = (b.linear(normed, b.weight(f"{p}mlp.{n}_proj.weight"), name=f"{p}{n}") for n in ("gate", "up"))
        silu = b("QuickGelu", gate, name=f"{p}silu", alpha=1.0)  # x · sigmoid(1 · x)
        down = b.linear(b("Mul", silu, up, name=f"{p}gated"), b.weight(f"{p}mlp.down_proj.weight"), name=f"{p}down")
        after = "model.norm.weight" if last else f"model.layers.{i + 1}.input_layernorm.weight"
        normed, x = _add_norm(b, x, down, b.weight(after), f"{p}end", epsilon)
    return b.linear(normed, embed, name="logits")


def _add_norm(b: _Builder, x: str, y: str, gain: str, name: str, epsilon: float) -> tuple[str, str]:
    """RMS norm of x + y, and x + y."""
    total = f"{name}_sum"
    b("SkipSimplifiedLayerNormalization", x, y, gain, name=name, extra=("", "", total), epsilon=epsilon)
    return name, total


def _fused_qkv(b: _Builder, config: ModelConfig, x: str, p: str) -> str:
    """Queries, keys and values [B·S, 3·width] in one product; ONNX Runtime folds the concatenation when it loads.

    The 1/√head_dim of attention is put into the query weights: with a scale of 1, ONNX Runtime multiplies a single
    query by the keys where they lie, instead of repacking them first (twice as fast).
    """
    scale = b.constant(f"{p}scale", config.head_dim**-0.5, np.float32)
    fused = []
    for kind in ("weight", "bias"):
        q, k, v = (b.weight(f"{p}self_attn.{name}_proj.{kind}") for name in "qkv")
        q = b("Mul", q, scale, name=f"{p}q_{kind}")
        fused.append(b("Concat", q, k, v, name=f"{p}qkv_{kind}", axis=0))
    return b.linear(x, *fused, name=f"{p}qkv_flat")


def _rotary(b: _Builder, config: ModelConfig) -> tuple[str, str]:
    """Cosine and sine [context, head_dim / 2], computed in float64 when the graph is loaded instead of stored."""
    frequencies = config.rope_theta ** (-np.arange(0, config.head_dim, 2) / config.head_dim)
    ends = [b.constant(n, v, np.float64) for n, v in (("zero", 0), ("context", config.context), ("one", 1))]
    axis = b.constant("axis", [1], np.int64)
    positions = b("Unsqueeze", b("Range", *ends, name="range"), axis, name="positions")
    angles = b("Mul", positions, b.constant("frequencies", frequencies, np.float64), name="angles")
    ahead = b("Add", angles, b.constant("quarter_turn", np.pi / 2, np.float64), name="ahead")
    # cos x as sin(x + π/2): ONNX Runtime had no cosine in float64 for long (1.23 has none)
    cos, sin = (
        b("Cast", b("Sin", x, name=f"{name}64"), name=name, to=TensorProto.FLOAT)
        for name, x in (("cos", ahead), ("sin", angles))
    )
    return cos, sin
