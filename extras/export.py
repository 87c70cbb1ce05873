"""
Checkpoints out: a folder that Hugging Face's transformers, and so lm-evaluation-harness, loads as GPT-2.

    python -m extras.export --export out/slm/ckpt.pt out/slm/hf    # then GPT2LMHeadModel.from_pretrained("out/slm/hf")
"""
import os
from dataclasses import dataclass, field

import torch

from common import load_checkpoint, save_checkpoint
from corpora.tokenizers import END_OF_TEXT, gpt2_characters, load_tokenizer, tokenizer_hash
from engine.cli import BadInput, run
from engine.files import replacing, write_json
from extras.gpt2 import TRANSPOSED
from model import GPT, GPTConfig


@dataclass
class Config:
    export: list[str] = field(default_factory=list)  # a checkpoint, and the folder to write
    data: str = ""                  # corpus folder, for its tokenizer (default: the one it was trained on)

    def validate(self):
        if len(self.export) != 2:
            yield "--export takes a checkpoint and the folder to write"


def main(cfg):
    path, folder = cfg.export
    if os.path.isdir(folder) and os.listdir(folder):
        raise BadInput(f"{folder} is not empty: give a new folder")
    ckpt = load_checkpoint(path)
    data = cfg.data or ckpt.get("config", {}).get("data", "")
    if not data:
        raise BadInput(f"{path} does not say which corpus it was trained on: name one with its tokenizer, --data DIR")
    enc = load_tokenizer(data)
    if tokenizer_hash(enc) != ckpt["tokenizer_sha256"]:
        raise BadInput(f"{path} was trained with another tokenizer than that of {data}: give its own --data")
    os.makedirs(folder, exist_ok=True)
    export_weights(ckpt, folder)
    export_tokenizer(enc, ckpt["model_config"]["block_size"], folder)
    print(f"{folder}: load it with transformers' AutoModelForCausalLM and AutoTokenizer")


def export_weights(ckpt, folder):
    """config.json, and model.safetensors where the package is installed, else pytorch_model.bin."""
    c = GPTConfig(**ckpt["model_config"])
    state = dict(ckpt["model"])
    if not c.bias:  # theirs always has biases
        biases = GPT(GPTConfig(1, 1, c.n_layer, c.n_head, c.n_embd)).state_dict()
        state |= {name: torch.zeros_like(t) for name, t in biases.items() if name.endswith("bias")}
    state = {f"transformer.{name}": (t.t() if name.endswith(TRANSPOSED) else t).contiguous() for name, t in state.items()}
    try:
        from safetensors.torch import save_file
        save_file(state, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    except ImportError:
        save_checkpoint(os.path.join(folder, "pytorch_model.bin"), state)
    end = c.vocab_size - 1
    write_json(os.path.join(folder, "config.json"), {
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "activation_function": "gelu_new", "vocab_size": c.vocab_size,
        "n_positions": c.block_size, "n_ctx": c.block_size, "n_embd": c.n_embd, "n_layer": c.n_layer, "n_head": c.n_head,
        "layer_norm_epsilon": 1e-5, "attn_pdrop": c.dropout, "embd_pdrop": c.dropout, "resid_pdrop": c.dropout,
        "bos_token_id": end, "eos_token_id": end, "tie_word_embeddings": True, "tokenizer_sha256": ckpt["tokenizer_sha256"]})


def export_tokenizer(enc, block_size, folder):
    """tokenizer.json and tokenizer_config.json; vocab.json and merges.txt too, which older programs look for."""
    ranks, character = enc._mergeable_ranks, {b: c for c, b in gpt2_characters().items()}

    def text(token):
        return "".join(character[b] for b in token)

    vocab = {text(token): i for token, i in ranks.items()} | {END_OF_TEXT: enc.eot_token}
    pairs = [f"{text(a)} {text(b)}" for token in sorted(ranks, key=ranks.get) for a, b in merges(token, ranks)]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": enc._pat_str}, "behavior": "Isolated", "invert": False}
    write_json(os.path.join(folder, "tokenizer.json"), {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None,
        "added_tokens": [{"id": enc.eot_token, "content": END_OF_TEXT, "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": True}],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": byte_level, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                  "ignore_merges": True,  # a word that is a token is taken whole, as tiktoken does
                  "vocab": vocab, "merges": pairs}})
    write_json(os.path.join(folder, "tokenizer_config.json"), {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT,
        "unk_token": END_OF_TEXT, "model_max_length": block_size, "clean_up_tokenization_spaces": False})
    write_json(os.path.join(folder, "vocab.json"), vocab)
    with replacing(os.path.join(folder, "merges.txt")) as f:
        f.write("#version: 0.2\n" + "".join(pair + "\n" for pair in pairs))


def merges(token, ranks):
    """The pairs of tokens that a token is merged from. ranks: {token: rank}; bytes have none.

    In a byte-pair encoding that is one pair: what the merges of lower rank leave of the token. A word that was put into
    the vocabulary without merges leaves more than two parts; then every way to cut it into two tokens is one.
    """
    parts = [bytes([b]) for b in token]
    while len(parts) > 2:
        best = min(range(len(parts) - 1), key=lambda i: ranks.get(parts[i] + parts[i + 1], len(ranks)))
        if ranks.get(parts[best] + parts[best + 1], len(ranks)) >= ranks[token]:
            cuts = ((token[:i], token[i:]) for i in range(1, len(token)))
            return [(a, b) for a, b in cuts if a in ranks and b in ranks]
        parts[best:best + 2] = [parts[best] + parts[best + 1]]
    return [tuple(parts)] if len(parts) == 2 else []


if __name__ == "__main__":
    run(main, Config, __doc__)
