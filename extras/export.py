"""
Checkpoints out: a folder that Hugging Face's transformers, and so lm-evaluation-harness, loads as GPT-2.

    python -m extras.export --export out/slm/ckpt.pt out/slm/hf

Then AutoModelForCausalLM.from_pretrained("out/slm/hf") is the model, and AutoTokenizer its tokenizer. Our own
scripts take the folder in the place of a checkpoint, too (extras/gpt2.py).
"""
import os
from dataclasses import dataclass, field

import torch

from common import load_checkpoint, save_checkpoint
from corpora.tokenizers import END_OF_TEXT, gpt2_characters, load_tokenizer, tokenizer_hash, tokens_of
from engine.cli import BadInput, run
from engine.files import replacing, write_json
from extras.gpt2 import TRANSPOSED
from model import GPT, GPTConfig

CHARACTER_OF = {byte: character for character, byte in gpt2_characters().items()}


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
    checkpoint = load_checkpoint(path)
    data = cfg.data or checkpoint.get("config", {}).get("data", "")
    if not data:
        raise BadInput(f"{path} does not say which corpus it was trained on: name one with its tokenizer, "
                       f"--data DIR")
    enc = load_tokenizer(data)
    if tokenizer_hash(enc) != checkpoint["tokenizer_sha256"]:
        raise BadInput(f"{path} was trained with another tokenizer than that of {data}: give its own --data")
    os.makedirs(folder, exist_ok=True)
    export_weights(checkpoint, folder)
    export_tokenizer(enc, checkpoint["model_config"]["block_size"], folder)
    print(f"{folder}: load it with transformers' AutoModelForCausalLM and AutoTokenizer")


# ---------------------------------------------------------------------------------------------------- weights

def export_weights(checkpoint, folder):
    """Write config.json, and model.safetensors where that package is installed, else pytorch_model.bin."""
    c = GPTConfig(**checkpoint["model_config"])
    state = dict(checkpoint["model"])
    if not c.bias:  # theirs always has biases
        shapes = GPT(GPTConfig(1, 1, c.n_layer, c.n_head, c.n_embd)).state_dict()
        state |= {name: torch.zeros_like(t) for name, t in shapes.items() if name.endswith("bias")}
    tensors = {}
    for name, t in state.items():
        if name.endswith(TRANSPOSED):
            t = t.t()                                                    # (out, in) -> (in, out)
        tensors[f"transformer.{name}"] = t.contiguous()
    try:
        from safetensors.torch import save_file
        save_file(tensors, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    except ImportError:
        save_checkpoint(os.path.join(folder, "pytorch_model.bin"), tensors)
    end_of_text = c.vocab_size - 1
    write_json(os.path.join(folder, "config.json"), {
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "activation_function": "gelu_new",
        "vocab_size": c.vocab_size, "n_positions": c.block_size, "n_ctx": c.block_size, "n_embd": c.n_embd,
        "n_layer": c.n_layer, "n_head": c.n_head, "layer_norm_epsilon": 1e-5,
        "attn_pdrop": c.dropout, "embd_pdrop": c.dropout, "resid_pdrop": c.dropout,
        "bos_token_id": end_of_text, "eos_token_id": end_of_text, "tie_word_embeddings": True,
        "tokenizer_sha256": checkpoint["tokenizer_sha256"]})  # theirs ignores it; extras/gpt2.py reads it


# ---------------------------------------------------------------------------------------------- the tokenizer

def export_tokenizer(enc, block_size, folder):
    """Write a tiktoken Encoding as tokenizer.json and tokenizer_config.json, in the form of the package
    `tokenizers`; and as vocab.json and merges.txt, which older programs look for.

    Three steps in it give the ids that tiktoken gives: text is cut into words by the same pattern; the
    bytes of a word are written as GPT-2's printable characters; and these are merged by rules that `merges`
    finds again.
    """
    vocab = {characters(token): i for i, token in enumerate(tokens_of(enc))} | {END_OF_TEXT: enc.eot_token}
    rules = merge_rules(enc)
    cut_into_words = {"type": "Split", "pattern": {"Regex": enc._pat_str}, "behavior": "Isolated",
                      "invert": False}
    bytes_as_characters = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                           "use_regex": False}
    end_of_text = {"id": enc.eot_token, "content": END_OF_TEXT, "single_word": False, "lstrip": False,
                   "rstrip": False, "normalized": False, "special": True}
    byte_pair_encoding = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
        "ignore_merges": True,  # a word that is a token is taken whole, as tiktoken does
        "vocab": vocab, "merges": rules}
    write_json(os.path.join(folder, "tokenizer.json"), {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None,
        "added_tokens": [end_of_text],
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [cut_into_words, bytes_as_characters]},
        "post_processor": bytes_as_characters, "decoder": bytes_as_characters, "model": byte_pair_encoding})
    write_json(os.path.join(folder, "tokenizer_config.json"), {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT,
        "unk_token": END_OF_TEXT, "model_max_length": block_size, "clean_up_tokenization_spaces": False})
    write_json(os.path.join(folder, "vocab.json"), vocab)
    with replacing(os.path.join(folder, "merges.txt")) as f:
        f.write("#version: 0.2\n")
        f.writelines(f"{rule}\n" for rule in rules)


def characters(token):
    """A byte string in GPT-2's printable characters, one a byte."""
    return "".join(CHARACTER_OF[byte] for byte in token)


def merge_rules(enc):
    """The lines of merges.txt, in order: the two tokens of each pair, in GPT-2's printable characters."""
    ids = {token: i for i, token in enumerate(tokens_of(enc))}
    rules = []
    for token in ids:
        for left, right in merges(token, ids):
            rules.append(f"{characters(left)} {characters(right)}")
    return rules


def merges(token, ids):
    """The pairs of tokens that a token is merged from, [(left, right), ...]; a single byte has none.

    token: bytes. ids: {byte string: id}; pairs are merged in the order of the ids of what they become. In a
    byte-pair encoding there is one pair: the two parts that are left of the token when all merges before
    its own are done. A word that was put into the vocabulary without merges is left in more than two parts;
    then every cut of it into two tokens is one.
    """
    parts = [bytes([b]) for b in token]
    while len(parts) > 2:
        # Of all neighbours, those whose merge comes first. Those that are no token together come last.
        merged = [ids.get(left + right, len(ids)) for left, right in zip(parts, parts[1:])]
        first = merged.index(min(merged))
        if merged[first] >= ids[token]:  # no merge before its own is left
            cuts = [(token[:i], token[i:]) for i in range(1, len(token))]
            return [(left, right) for left, right in cuts if left in ids and right in ids]
        parts[first:first + 2] = [parts[first] + parts[first + 1]]
    return [tuple(parts)] if len(parts) == 2 else []


if __name__ == "__main__":
    run(main, Config, __doc__)
