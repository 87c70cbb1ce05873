"""
GPT-2's weights in, and checkpoints out as a folder that Hugging Face's transformers (and so lm-evaluation-harness) loads.

    python train_slm.py --init_from gpt2 ...                 # downloaded once; also gpt2-medium, gpt2-large, gpt2-xl
    python train_slm.py --init_from my/pytorch_model.bin ... # or model.safetensors, or the folder that holds one
    python model.py --export out/slm/ckpt.pt out/slm/hf      # then: GPT2LMHeadModel.from_pretrained("out/slm/hf")

Wherever a script takes a checkpoint, it takes these too. The parameters have GPT-2's names here already; what differs is
that Hugging Face keeps the matrices of its linear layers transposed, and the output layer as one more name.
"""
import fcntl
import os
from dataclasses import dataclass, field

import torch

from common import BadInput, load_checkpoint, read_json, replacing, save_checkpoint, write_json
from data import END_OF_TEXT, GPT2_PATTERN, gpt2_characters, gpt2_ranks, load_tokenizer, make_tokenizer, tokenizer_hash
from model import GPT, GPTConfig

PUBLISHED = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")
URL = "https://huggingface.co/openai-community/{}/resolve/main/pytorch_model.bin"
# data.tokenizer_hash of GPT-2's tokenizer: what its weights go with, when nothing beside them says otherwise
TOKENIZER_SHA256 = "d8aea041f8cfa661a98510512f7d0a05c007b4266d8dc99bf5e4ae9eb037a0bf"
TRANSPOSED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")


# ------------------------------------------------------------------------------------------------- weights in

def is_gpt2(path):
    """Whether a name or path means weights in Hugging Face's format."""
    return path in PUBLISHED or os.path.isdir(path) or str(path).endswith((".bin", ".safetensors"))


def weights_file(path):
    """The file that a published name, a folder or a file means. What is not there is downloaded. Raises BadInput."""
    if path in PUBLISHED and not os.path.exists(path):
        name = f"{path}.bin"  # all are called pytorch_model.bin, and the cache goes by the name
        file = os.path.join(torch.hub.get_dir(), "checkpoints", name)
        os.makedirs(os.path.dirname(file), exist_ok=True)
        with open(f"{file}.lock", "w") as lock:  # of several processes one downloads
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                if not os.path.exists(file):
                    torch.hub.load_state_dict_from_url(URL.format(path), map_location="cpu", weights_only=True, file_name=name)
            except Exception as e:  # no network, a proxy's error page, a full disk
                raise BadInput(f"cannot download {URL.format(path)} ({e}): fetch it elsewhere, and give the file's path")
        return file
    if os.path.isdir(path):
        for name in ("model.safetensors", "pytorch_model.bin"):
            if os.path.exists(os.path.join(path, name)):
                return os.path.join(path, name)
        raise BadInput(f"the folder {path} holds neither model.safetensors nor pytorch_model.bin")
    return path


def load(path, device="cpu"):
    """Weights in Hugging Face's format as a checkpoint: its `model`, `model_config`, `tokenizer_sha256`. Raises BadInput.

    config.json beside the file is read where there is one; else the sizes are those of the tensors, with 64 channels a
    head, as all of GPT-2's models have it.
    """
    file = str(weights_file(path))
    state = read_weights(file, device)
    (V, C), T = state["wte.weight"].shape, len(state["wpe.weight"])
    n_layer = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("h."))
    folder = os.path.dirname(file)
    about = os.path.join(folder, "config.json")
    config = read_json(about) if os.path.exists(about) else {}
    for key, values in {"model_type": ["gpt2"], "activation_function": ["gelu_new"], "n_inner": [None, 4 * C],
                        "layer_norm_epsilon": [1e-5], "scale_attn_weights": [True],
                        "scale_attn_by_inverse_layer_idx": [False], "n_layer": [n_layer]}.items():
        if config.get(key, values[0]) not in values:
            raise BadInput(f"{about} says {key} {config[key]!r}, which is not GPT-2 with {n_layer} layers; model.py has no other")
    if "n_head" not in config and C % 64:
        raise BadInput(f"{file} has {C} channels, not 64 a head as GPT-2 has: put its config.json beside it")
    vocab_size = config.get("vocab_size", V)
    state["wte.weight"] = state["wte.weight"][:vocab_size]
    return {"model": state, "tokenizer_sha256": tokenizer_of(folder, config, vocab_size),
            "model_config": dict(block_size=T, vocab_size=vocab_size, n_layer=n_layer, n_head=config.get("n_head", C // 64),
                                 n_embd=C, dropout=0.0, bias=True)}


def read_weights(file, device):
    """{name: float32 tensor} with this repository's names and shapes, from a .bin or .safetensors. Raises BadInput."""
    try:
        if file.endswith(".safetensors"):
            try:
                from safetensors.torch import load_file
            except ImportError:
                raise BadInput(f"reading {file} needs another package: pip install safetensors")
            state = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
        state = {name.removeprefix("transformer."): t for name, t in state.items()}
        if not state.get("lm_head.weight", state["wte.weight"]).equal(state["wte.weight"]):
            raise BadInput(f"{file} has an output layer of its own, where GPT-2's is the token embedding; model.py has no other")
        state["wpe.weight"], state["h.0.mlp.c_fc.weight"]  # a KeyError says that it is something else
        # what is left out: the output layer, and causal masks, which older files hold
        return {name: (t.t() if name.endswith(TRANSPOSED) else t).float().contiguous().to(device) for name, t in state.items()
                if name != "lm_head.weight" and not name.endswith((".attn.bias", ".attn.masked_bias"))}
    except FileNotFoundError:
        raise BadInput(f"there is no {file}: give the path of GPT-2 weights, or one of {', '.join(PUBLISHED)}")
    except BadInput:
        raise
    except Exception as e:  # truncated or other files raise a dozen kinds
        raise BadInput(f"{file} does not hold the weights of a GPT-2 model, or is truncated ({type(e).__name__})")


def tokenizer_of(folder, about, vocab_size):
    """The hash of the tokenizer that weights go with: what we wrote into config.json, or merges.txt, or GPT-2's own."""
    if "tokenizer_sha256" in about:
        return about["tokenizer_sha256"]
    merges = os.path.join(folder, "merges.txt")
    if os.path.exists(merges):
        try:
            return tokenizer_hash(make_tokenizer("gpt2", GPT2_PATTERN, gpt2_ranks(merges)))
        except ValueError as e:
            raise BadInput(f"{merges} is not a file of GPT-2 merges: {e}")
    if vocab_size == 50257:
        return TOKENIZER_SHA256
    raise BadInput(f"what {vocab_size} token ids stand for is not known: put the tokenizer's merges.txt beside the weights in "
                   f"{folder or '.'}")


# ------------------------------------------------------------------------------------------------ weights out

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
    state["wte.weight"] = state["wte.weight"][:c.vocab_size]
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
