"""
Checkpoints out: a folder that Hugging Face's transformers, and so lm-evaluation-harness, loads as GPT-2 or as
Llama.

    python -m weights.export --export out/slm/ckpt.pt out/slm/hf

weights/published.py makes the same checkpoint of the folder again.
"""
import os
from dataclasses import dataclass, field

from corpora.hf_tokenizer import BYTE_OF, END_OF_TEXT, HFTokenizer
from corpora.tokenizers import load_tokenizer, tokenizer_hash, tokens_of
from engine.checkpoints import load_checkpoint, save_checkpoint
from engine.cli import BadInput, launch
from engine.files import replacing, write_json
from model import GPTConfig
from weights.published import LLAMA, TRANSPOSED

CHARACTER_OF = {byte: character for character, byte in BYTE_OF.items()}


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
        raise BadInput(f"{path} does not say which corpus it was trained on: give --data")
    enc = load_tokenizer(data)
    if tokenizer_hash(enc) != checkpoint["tokenizer_sha256"]:
        raise BadInput(f"{path} was trained with another tokenizer than that of {data}: give its own --data")
    os.makedirs(folder, exist_ok=True)
    export_weights(checkpoint, enc, folder)
    export_tokenizer(enc, checkpoint["model_config"]["block_size"], folder)
    print(f"{folder}: load it with transformers' AutoModelForCausalLM and AutoTokenizer")


def export_weights(checkpoint, enc, folder):
    """Write config.json, and model.safetensors where that package is installed, else pytorch_model.bin."""
    c = GPTConfig(**checkpoint["model_config"])
    to_theirs = llama_tensors if c.arch == "llama" else gpt2_tensors
    tensors, their_config = to_theirs(dict(checkpoint["model"]), c)
    their_config |= special_ids(enc, c.vocab_size)
    try:
        from safetensors.torch import save_file
        save_file(tensors, os.path.join(folder, "model.safetensors"), metadata={"format": "pt"})
    except ImportError:
        save_checkpoint(os.path.join(folder, "pytorch_model.bin"), tensors)
    their_config["tokenizer_sha256"] = checkpoint["tokenizer_sha256"]  # weights/published.py reads it
    write_json(os.path.join(folder, "config.json"), their_config)


def special_ids(enc, n_rows):
    """What config.json must say, lest transformers take other ids: those of the tokens that begin, end and
    pad a text, null where there is none or no row for it."""
    ids = {}
    for name in ("bos_token", "eos_token", "pad_token"):
        number = enc.id_of(enc.named[name]) if enc.named[name] else n_rows
        ids[f"{name}_id"] = number if number < n_rows else None
    return ids


def gpt2_tensors(state, c):
    """({name: tensor} as transformers' GPT-2 has them, its config.json)."""
    tensors = {}
    for name, t in state.items():
        if name.endswith(TRANSPOSED):
            t = t.t()                                                    # (out, in) -> (in, out)
        tensors[f"transformer.{name}"] = t.contiguous()
    return tensors, {
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "activation_function": "gelu_new",
        "vocab_size": c.vocab_size, "n_positions": c.block_size, "n_ctx": c.block_size, "n_embd": c.n_embd,
        "n_layer": c.n_layer, "n_head": c.n_head, "layer_norm_epsilon": 1e-5,
        "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0, "tie_word_embeddings": True}


def llama_tensors(state, c):
    """The same as transformers' Llama has them: what is one matrix here is two or three there."""
    kv_channels = c.n_embd // c.n_head * c.n_kv_head
    rows = {"attn.c_attn.weight": [c.n_embd, kv_channels, kv_channels],
            "mlp.c_fc.weight": [c.n_inner, c.n_inner]}
    tensors = {"model.embed_tokens.weight": state["wte.weight"], "model.norm.weight": state["ln_f.weight"]}
    if not c.tied:
        tensors["lm_head.weight"] = state["lm_head.weight"]
    for i in range(c.n_layer):
        for ours, theirs in LLAMA.items():
            whole = state[f"h.{i}.{ours}"]
            for name, part in zip(theirs, whole.split(rows.get(ours, len(whole)))):
                tensors[f"model.layers.{i}.{name}.weight"] = part.contiguous()
    return tensors, {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "vocab_size": c.vocab_size, "max_position_embeddings": c.block_size, "hidden_size": c.n_embd,
        "intermediate_size": c.n_inner, "num_hidden_layers": c.n_layer, "num_attention_heads": c.n_head,
        "num_key_value_heads": c.n_kv_head, "rms_norm_eps": c.norm_eps, "rope_theta": c.rope_base,
        "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": c.tied}


def export_tokenizer(enc, block_size, folder):
    """Write tokenizer.json, Hugging Face's own as it came, and its special tokens' names."""
    if isinstance(enc, HFTokenizer):
        with replacing(os.path.join(folder, "tokenizer.json")) as f:
            f.write(enc.spec)
    else:
        export_byte_pairs(enc, folder)
    write_json(os.path.join(folder, "tokenizer_config.json"), {
        "tokenizer_class": "PreTrainedTokenizerFast", **enc.named, "model_max_length": block_size,
        "clean_up_tokenization_spaces": False})


def export_byte_pairs(enc, folder):
    """Write a tiktoken Encoding as tokenizer.json, and as vocab.json and merges.txt for older programs."""
    ids = {token: i for i, token in enumerate(tokens_of(enc))}
    vocab = {characters(token): i for token, i in ids.items()} | {END_OF_TEXT: enc.eot_token}
    rules = [f"{characters(left)} {characters(right)}" for token in ids for left, right in merges(token, ids)]
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
    write_json(os.path.join(folder, "vocab.json"), vocab)
    with replacing(os.path.join(folder, "merges.txt")) as f:
        f.write("\n".join(["#version: 0.2", *rules, ""]))


def characters(token):
    """A byte string in GPT-2's printable characters, one a byte."""
    return "".join(CHARACTER_OF[byte] for byte in token)


def merges(token, ids):
    """The pairs [(left, right), ...] that a token is merged from. ids: {byte string: id}, in whose order
    pairs are merged. In a byte-pair encoding there is one pair: what is left of the token when all merges
    before its own are done. Of a word that is there without merges, every cut into two tokens is one."""
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
    launch(main, Config, __doc__)
