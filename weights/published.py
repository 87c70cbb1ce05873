"""
Published weights in: GPT-2's, Llama's or Mistral's, in Hugging Face's format, become a checkpoint of ours.

    python -m weights.published --model gpt2 --out models/gpt2    # by name, downloaded once; see PUBLISHED
    python -m weights.published --model my/hf --out models/mine   # a folder with config.json and the weights

OUT gets ckpt.pt, which every script takes like one that was trained here, and the tokenizer of the weights:

    python prepare.py --tokenizer models/gpt2 --curated math.jsonl --noisy web.jsonl --out data/mine
    python train_slm.py --init_from models/gpt2/ckpt.pt --data data/mine --out out/slm
"""
import os
import urllib.request
from dataclasses import dataclass

import torch

from corpora.hf_tokenizer import BYTE_OF, NAMES, config_of, named_tokens
from corpora.tokenizers import is_gpt2_folder, load_tokenizer, make_tokenizer, save_tokenizer, tokenizer_hash
from engine.checkpoints import save_checkpoint
from engine.cli import BadInput, launch
from engine.files import read_json, replacing
from model import GPT, GPTConfig

GPT2 = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")
PUBLISHED = {name: f"openai-community/{name}" for name in GPT2} | {
    "smollm2-135m": "HuggingFaceTB/SmolLM2-135M", "smollm2-360m": "HuggingFaceTB/SmolLM2-360M",
    "smollm2-1.7b": "HuggingFaceTB/SmolLM2-1.7B", "rho-math-1b": "microsoft/rho-math-1b-v0.1",
    "rho-math-7b": "microsoft/rho-math-7b-v0.1",
    "tinyllama-1.1b": "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T"}
URL = "https://huggingface.co/{}/resolve/main/{}"
ABOUT = ("config.json", "merges.txt", "tokenizer.json", "tokenizer_config.json")
INDEX = ".index.json"  # weights in several files have a table of them, which ends in this
WEIGHTS = ("model.safetensors", "model.safetensors" + INDEX, "pytorch_model.bin", "pytorch_model.bin" + INDEX)
TRANSPOSED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")  # what GPT-2 holds transposed


@dataclass
class Config:
    model: str = ""   # a published name, or a folder
    out: str = ""     # folder to write: ckpt.pt, and the tokenizer beside it

    def validate(self):
        if not self.model or not self.out:
            yield f"--model is one of {', '.join(PUBLISHED)}, or a folder, and --out the folder to write"


def main(cfg):
    # What an interrupted call left is written anew; a corpus, a run or another model is not touched.
    there = sorted(os.listdir(cfg.out)) if os.path.isdir(cfg.out) else []
    for name in there:
        if not name.startswith(("ckpt.pt.tmp", "tokenizer.json")):
            refuse(cfg.out, name)
    checkpoint, enc = read_published(cfg.model)
    if "tokenizer.json" in there:
        with open(os.path.join(cfg.out, "tokenizer.json"), "rb") as f:
            if checkpoint["tokenizer_sha256"].encode() not in f.read():
                refuse(cfg.out, "tokenizer.json")
    checkpoint["config"] = {"data": cfg.out}  # where its tokenizer is, as in a checkpoint of a run
    os.makedirs(cfg.out, exist_ok=True)
    save_tokenizer(enc, cfg.out)       # first: where there is a ckpt.pt, its tokenizer is there too
    path = os.path.join(cfg.out, "ckpt.pt")
    save_checkpoint(path, checkpoint)
    n_parameters = sum(t.numel() for t in checkpoint["model"].values())
    print(f"{path}: {n_parameters:,} parameters; its tokenizer is that of --data {cfg.out}")


def refuse(out, name):
    raise BadInput(f"{os.path.join(out, name)} is there already: delete it, or give another --out")


def read_published(model):
    """(a checkpoint of the weights that a name or folder means, their tokenizer). Raises BadInput."""
    folder = model
    if model in PUBLISHED and not os.path.exists(model):
        folder = download(model)
    if not os.path.exists(os.path.join(folder, "config.json")):
        raise BadInput(f"there is no folder {folder} with a config.json: give one, or one of the names "
                       f"{', '.join(PUBLISHED)}")
    try:
        return convert(folder, config_of(folder, "config.json"))
    except (TypeError, AttributeError, ValueError, KeyError, ArithmeticError, RuntimeError) as e:
        reason = (str(e) or type(e).__name__).splitlines()[0]
        raise BadInput(f"{folder} is damaged, or of an unknown kind ({reason:.100}): fetch it again")


def convert(folder, their_config):
    """What read_published gives, of a folder. Raises any error where its files hold what no model has."""
    families = {"gpt2": from_gpt2, "llama": from_llama, "mistral": from_llama}
    family = their_config.get("model_type")
    if family not in families:
        raise BadInput(f"the config.json of {folder} says model_type {family!r}: give GPT-2's, Llama's or "
                       f"Mistral's weights")
    state, config = families[family](read_folder(folder), their_config, folder)
    for name in ("wte.weight", "lm_head.weight"):
        if name in state:  # some have more rows than ids; a copy, as a part would be saved with the whole
            state[name] = state[name][:config["vocab_size"]].clone()     # (V, C)
    state = {name: t.float().contiguous() for name, t in state.items()}
    try:
        with torch.device("meta"):  # shapes alone, nothing is computed
            wanted = GPT(GPTConfig(**config)).state_dict()
    except ValueError as e:
        raise BadInput(f"{folder} is of no model that model.py has: {e}; fetch it again")
    for name in {**wanted, **state}:
        if name not in wanted or name not in state or wanted[name].shape != state[name].shape:
            raise BadInput(f"{folder} does not fit a model of its sizes: {name} is missing, is none of its "
                           f"parameters, or has another shape; fetch it again")
    enc = tokenizer_of(folder, their_config)
    return {"model": state, "model_config": config, "tokenizer_sha256": tokenizer_hash(enc)}, enc


def download(name):
    """The folder of a published name in torch's cache; what is not there is downloaded. Raises BadInput."""
    folder = os.path.join(torch.hub.get_dir(), "checkpoints", name)
    os.makedirs(folder, exist_ok=True)
    there = set(os.listdir(folder))
    found = [file for file in WEIGHTS if file in there]
    # The weights come last: where there are some, what else is missing is not published.
    if not found or "config.json" not in there or there.isdisjoint(("merges.txt", "tokenizer.json")):
        for file in ABOUT:
            fetch(name, folder, file)
    for file in found or reversed(WEIGHTS):  # first a .bin, which needs no package to read
        if fetch(name, folder, file):
            for part in shards(os.path.join(folder, file)):
                fetch(name, folder, part)
            break
    return folder


def fetch(name, folder, file):
    """Download a file if it is not there; whether it is there then. Raises BadInput."""
    path, url = os.path.join(folder, file), URL.format(PUBLISHED[name], file)
    if os.path.exists(path):
        return True
    try:
        with urllib.request.urlopen(url, timeout=60) as source, replacing(path, "wb") as f:
            while block := source.read(2**20):
                f.write(block)
        return True
    except OSError as e:  # no network, no such file, a full disk
        if getattr(e, "code", None) == 404:
            return False
        raise BadInput(f"cannot download {url} ({e}): fetch the model elsewhere, and give its folder")


def shards(file):
    """The names of the files that weights are in, by their index or as one file. Raises BadInput."""
    if not file.endswith(INDEX):
        return [os.path.basename(file)]
    index = read_json(file)
    weight_map = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(weight_map, dict) or not all(isinstance(part, str) for part in weight_map.values()):
        raise BadInput(f"{file} has no weight_map of file names: fetch it again")
    return sorted(set(weight_map.values()))


def read_folder(folder):
    """{name: tensor} of all files of weights in a folder. Raises BadInput."""
    found = [name for name in WEIGHTS if os.path.exists(os.path.join(folder, name))]
    if not found:
        raise BadInput(f"the folder {folder} has none of {', '.join(WEIGHTS)}: give one that does")
    tensors = {}
    for name in shards(os.path.join(folder, found[0])):
        file = os.path.join(folder, name)
        try:
            if file.endswith(".safetensors"):
                from safetensors.torch import load_file
                tensors |= load_file(file)
            else:
                tensors |= torch.load(file, map_location="cpu", weights_only=True)
        except ImportError:
            raise BadInput(f"reading {file} needs another package: pip install safetensors")
        except FileNotFoundError:
            raise BadInput(f"there is no {file}, which the index beside it names: fetch it again")
        except Exception as e:  # truncated or other files raise a dozen kinds
            raise BadInput(f"{file} holds no weights, or is truncated ({type(e).__name__}): fetch it again")
    return tensors


def check(their_config, allowed, folder, family):
    """Raises BadInput where config.json has none of the values of a key, the first of them its default."""
    for key, values in allowed.items():
        if their_config.get(key, values[0]) not in values:
            raise BadInput(f"the config.json of {folder} says {key} {their_config[key]!r}, which is not "
                           f"{family}; model.py has no other: give other weights")


def from_gpt2(tensors, their_config, folder):
    """(parameters, fields of GPTConfig) from GPT-2's tensors, whose sizes they are. Raises BadInput."""
    state = {}
    for name, t in tensors.items():
        name = name.removeprefix("transformer.")
        if name.endswith((".attn.bias", ".attn.masked_bias")):  # causal masks, which older files hold
            continue
        state[name] = t.t() if name.endswith(TRANSPOSED) else t          # (in, out) -> (out, in)
    if not {"wte.weight", "wpe.weight", "h.0.mlp.c_fc.weight"} <= state.keys():
        raise BadInput(f"{folder} does not hold the weights of a GPT-2 model: give other weights")
    output = state.pop("lm_head.weight", state["wte.weight"])            # (V, C)
    if not output.equal(state["wte.weight"]):
        raise BadInput(f"{folder} has an output layer of its own, as no GPT-2 has: give other weights")
    (V, C), T = state["wte.weight"].shape, len(state["wpe.weight"])
    n_layer = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("h."))
    allowed = {"activation_function": ["gelu_new"], "n_inner": [None, 4 * C], "layer_norm_epsilon": [1e-5],
               "scale_attn_weights": [True], "scale_attn_by_inverse_layer_idx": [False], "n_layer": [n_layer]}
    check(their_config, allowed, folder, f"GPT-2 with {n_layer} layers")
    return state, {"block_size": T, "vocab_size": their_config.get("vocab_size", V), "n_layer": n_layer,
                   "n_head": their_config.get("n_head", 12), "n_embd": C}  # Hugging Face's default


LLAMA = {  # our name of a block's parameter: what it consists of in Llama's
    "ln_1.weight": ["input_layernorm"], "ln_2.weight": ["post_attention_layernorm"],
    "attn.c_attn.weight": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    "attn.c_proj.weight": ["self_attn.o_proj"],
    "mlp.c_fc.weight": ["mlp.gate_proj", "mlp.up_proj"], "mlp.c_proj.weight": ["mlp.down_proj"]}


def from_llama(tensors, their_config, folder):
    """The same from Llama's tensors, or Mistral's: within its sliding window, it is Llama."""
    c = their_config
    try:
        C, H, n_layer = c["hidden_size"], c["num_attention_heads"], c["num_hidden_layers"]
        F, V, T = c["intermediate_size"], c["vocab_size"], c["max_position_embeddings"]
    except KeyError as e:
        raise BadInput(f"the config.json of {folder} lacks {e}: fetch it again")
    if C % H or C // H % 2:
        raise BadInput(f"the config.json of {folder} says {C} channels in {H} heads: fetch it again")
    check(c, {"hidden_act": ["silu"], "attention_bias": [False], "mlp_bias": [False],
              "head_dim": [None, C // H], "rope_scaling": [None]}, folder, "Llama's first form")
    rope = c.get("rope_parameters") or {}  # newer files have it
    check(rope, {"rope_type": ["default"]}, folder, "Llama's first form")
    tensors, state, tied = dict(tensors), {}, c.get("tie_word_embeddings", False)
    try:
        state["wte.weight"] = tensors.pop("model.embed_tokens.weight")
        state["ln_f.weight"] = tensors.pop("model.norm.weight")
        if not tied:
            state["lm_head.weight"] = tensors["lm_head.weight"]
        for i in range(n_layer):
            for ours, theirs in LLAMA.items():
                parts = [tensors.pop(f"model.layers.{i}.{name}.weight") for name in theirs]
                state[f"h.{i}.{ours}"] = torch.cat(parts)                # (outputs of all parts, in)
    except KeyError as e:
        raise BadInput(f"{folder} lacks the tensor {e} of a Llama with {n_layer} layers: fetch it again")
    more = [name for name in tensors if not name.endswith(("lm_head.weight", "rotary_emb.inv_freq"))]
    if more:
        raise BadInput(f"{folder} holds {more[0]}, of which model.py knows nothing: give other weights")
    return state, {"block_size": min(T, c.get("sliding_window") or T), "vocab_size": V, "n_layer": n_layer,
                   "n_head": H, "n_embd": C, "arch": "llama",
                   "n_kv_head": c.get("num_key_value_heads") or H, "n_inner": F, "tied": tied,
                   "rope_base": float(rope.get("rope_theta") or c.get("rope_theta") or 10000.0),
                   "norm_eps": c.get("rms_norm_eps", 1e-6)}


def tokenizer_of(folder, their_config):
    """The tokenizer beside the weights. The config.json of weights/export.py has its hash."""
    path, sha256 = os.path.join(folder, "tokenizer.json"), their_config.get("tokenizer_sha256")
    if not os.path.exists(path) and not is_gpt2_folder(folder):
        raise BadInput(f"what the token ids of {folder} stand for is not known: put its tokenizer.json "
                       f"there, or the merges.txt of GPT-2")
    if sha256 is None:
        return load_tokenizer(folder)
    spec = read_json(path)
    try:  # the form that export.export_byte_pairs writes
        pattern = spec["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
        vocab = spec["model"]["vocab"]
        tokens = [bytes(BYTE_OF[c] for c in text) for text in sorted(vocab, key=vocab.get)[:-1]]
        enc = make_tokenizer("exported", pattern, tokens)
        enc.named = dict.fromkeys(NAMES) | named_tokens(folder)[0]
        if tokenizer_hash(enc) == sha256:
            return enc
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        pass  # another kind, which Hugging Face's package runs
    enc = load_tokenizer(folder)
    if tokenizer_hash(enc) != sha256:
        raise BadInput(f"the tokenizer in {folder} is not the one that its config.json names: export again")
    return enc


if __name__ == "__main__":
    launch(main, Config, __doc__)
