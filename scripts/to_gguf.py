"""The packaged reasoner, or another that the lab exported, as a GGUF file for llama.cpp.

    pip install gguf safetensors
    python scripts/to_gguf.py reasoner.gguf [FOLDER]

Float32 throughout. The tokenizer is written as byte-level BPE whose merges spell exactly the tokens of graph search.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import load_file

from wrongturn.engines.embedded import packaged
from wrongturn.tasks.graph_text import BOS, EOS, FIRST_LABEL, PAD, VOCAB

NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write(folder: Path, out: Path) -> None:
    """Write the checkpoint in ``folder`` to ``out``. Raises ``ValueError`` where its vocabulary is another."""
    config = json.loads((folder / "config.json").read_text())
    if config["vocab_size"] != len(VOCAB):
        raise ValueError(f"{folder}: a vocabulary of {config['vocab_size']} tokens, not graph search's {len(VOCAB)}")
    heads, head_dim = config["num_attention_heads"], config["head_dim"]
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_name(folder.name)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_vocab_size(len(VOCAB))
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(head_dim)
    writer.add_rope_freq_base(config["rope_theta"])
    add_tokenizer(writer)
    for name, tensor in load_file(folder / "model.safetensors").items():
        if "q_proj" in name or "k_proj" in name:
            tensor = interleaved(tensor, heads)
        writer.add_tensor(gguf_name(name), tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_tokenizer(writer: gguf.GGUFWriter) -> None:
    """Byte-level BPE in which every token of two characters is one merge (ASCII is its own byte map)."""
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(list(VOCAB))
    writer.add_token_types([control if i < FIRST_LABEL else normal for i in range(len(VOCAB))])
    writer.add_token_merges([" ".join(text) for text in VOCAB[FIRST_LABEL:] if len(text) == 2])
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_pad_token_id(PAD)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)


def interleaved(tensor: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries or keys as llama.cpp rotates them: the two halves of a head alternate."""
    halves = tensor.reshape(heads, 2, -1, *tensor.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(tensor.shape)


def gguf_name(name: str) -> str:
    """``model.layers.0.self_attn.q_proj.bias`` -> ``blk.0.attn_q.bias``."""
    whole = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    if name in whole:
        return whole[name]
    _, _, layer, rest = name.split(".", 3)
    module, kind = rest.rsplit(".", 1)
    return f"blk.{layer}.{NAMES[module]}.{kind}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("folder", type=Path, nargs="?", default=packaged())
    asked = parser.parse_args()
    write(asked.folder, asked.out)
