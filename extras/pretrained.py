"""
Pretrained weights in: wherever a script takes a checkpoint, it takes GPT-2's, Llama's or Mistral's too, in
the format of Hugging Face.

    python train_slm.py --init_from gpt2                    # by name, downloaded once; see PUBLISHED
    python train_slm.py --init_from my/model                # a folder with config.json and the weights
    python train_slm.py --init_from my/pytorch_model.bin    # GPT-2's, which can do without a config.json
    python -m extras.pretrained --model smollm2-135m        # prints the folder of a name, or of a folder

Four questions, each answered by functions of their own: which files are meant (`weights_file`), which
tensors they hold (`read_tensors`), how these become the parameters of model.py (`from_gpt2` and `from_llama`,
the only ones that know the families), and which tokenizer they go with (`tokenizer_of`). extras/export.py is
the way out.
"""
import hashlib
import os
import urllib.request
from dataclasses import dataclass

import torch

from corpora.tokenizers import GPT2_PATTERN, gpt2_tokens, load_tokenizer, make_tokenizer, tokenizer_hash
from engine.cli import BadInput, run
from engine.files import file_hash, locked, read_json, replacing

GPT2 = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")
PUBLISHED = {name: f"openai-community/{name}" for name in GPT2} | {
    "smollm2-135m": "HuggingFaceTB/SmolLM2-135M", "smollm2-360m": "HuggingFaceTB/SmolLM2-360M",
    "smollm2-1.7b": "HuggingFaceTB/SmolLM2-1.7B", "rho-math-1b": "microsoft/rho-math-1b-v0.1",
    "rho-math-7b": "microsoft/rho-math-7b-v0.1",
    "tinyllama-1.1b": "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T"}
URL = "https://huggingface.co/{}/resolve/main/{}"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")     # the names that weights have in a folder
INDEX = ".index.json"                                    # ... and behind one of these, in several files

# GPT-2's linear layers hold their matrices transposed.
TRANSPOSED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
# corpora.tokenizers.tokenizer_hash of GPT-2's tokenizer: weights of its size go with it, unless something
# says otherwise.
TOKENIZER_SHA256 = "d8aea041f8cfa661a98510512f7d0a05c007b4266d8dc99bf5e4ae9eb037a0bf"


def is_pretrained(path):
    """Whether a name or path means weights in Hugging Face's format, and not a checkpoint of ours."""
    return path in PUBLISHED or os.path.isdir(path) or str(path).endswith((".bin", ".safetensors"))


def load(path):
    """Weights in Hugging Face's format as a checkpoint, a dict of `model`, `model_config` and
    `tokenizer_sha256`. Raises BadInput."""
    file = str(weights_file(path))
    folder = os.path.dirname(file)
    config_path = os.path.join(folder, "config.json")  # there may be one, which says what the weights are
    their_config = read_json(config_path) if os.path.exists(config_path) else {}
    family = {"gpt2": from_gpt2, "llama": from_llama, "mistral": from_llama}.get(
        their_config.get("model_type", "gpt2"))
    if family is None:
        raise BadInput(f"{config_path} says model_type {their_config['model_type']!r}; model.py has GPT-2's, "
                       f"Llama's and Mistral's architecture: give other weights")
    state, config = family(read_tensors(file), their_config, file)
    for name in ("wte.weight", "lm_head.weight"):
        if name in state:
            state[name] = state[name][:config["vocab_size"]]             # (V, C): some have more rows
    state = {name: t.float().contiguous() for name, t in state.items()}
    return {"model": state, "model_config": config,
            "tokenizer_sha256": tokenizer_of(folder, their_config, config["vocab_size"])}


# ------------------------------------------------------------------------------------------- files to tensors

def weights_file(path):
    """The file that a published name, a folder or a file means; of weights in several files, their index.
    What is not there is downloaded. Raises BadInput."""
    if path in PUBLISHED and not os.path.exists(path):
        path = download(path)
    if not os.path.isdir(path):
        return path
    for name in (*WEIGHTS, *(name + INDEX for name in WEIGHTS)):
        if os.path.exists(os.path.join(path, name)):
            return os.path.join(path, name)
    raise BadInput(f"the folder {path} holds neither {' nor '.join(WEIGHTS)}: give one that does")


def download(name):
    """The folder of a published name in torch's cache; what is not there is downloaded. Raises BadInput."""
    folder = os.path.join(torch.hub.get_dir(), "checkpoints", name)
    os.makedirs(folder, exist_ok=True)
    with locked(os.path.join(folder, "lock"), wait=True):  # of several processes one downloads
        fetch(name, folder, "config.json")
        if name in GPT2:
            fetch(name, folder, "merges.txt")
            fetch(name, folder, WEIGHTS[1])
            return folder
        fetch(name, folder, "tokenizer.json")
        fetch(name, folder, "tokenizer_config.json")
        for weights in WEIGHTS:
            if fetch(name, folder, weights + INDEX, needed=False):
                for part in shards(os.path.join(folder, weights + INDEX)):
                    fetch(name, folder, part)
                return folder
            if fetch(name, folder, weights, needed=weights == WEIGHTS[-1]):
                return folder
    return folder


def fetch(name, folder, file, needed=True):
    """Download a file of a published name into the folder, if it is not there; whether it is there then.
    Raises BadInput where it is needed."""
    path, url = os.path.join(folder, file), URL.format(PUBLISHED[name], file)
    if os.path.exists(path):
        return True
    try:
        with urllib.request.urlopen(url, timeout=60) as source, replacing(path, "wb") as f:
            while block := source.read(2**20):
                f.write(block)
        return True
    except OSError as e:  # no network, no such file, a full disk
        if not needed and getattr(e, "code", None) == 404:
            return False
        raise BadInput(f"cannot download {url} ({e}): fetch the model elsewhere, and give its folder")


def weights_hash(path):
    """What tells the weights of a checkpoint, a published name, a folder or a file apart."""
    file = str(weights_file(path))
    if not file.endswith(INDEX):
        return file_hash(file)
    parts = [file_hash(os.path.join(os.path.dirname(file), name)) for name in shards(file)]
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def hash_of_start(path, needed):
    """{"init_from_sha256": hash of the weights that a run starts from}, for its config.json; {} where it
    starts from none. {} too where they are gone and not needed, because the run goes on from its own. Raises
    BadInput or OSError where they are needed."""
    if not path:
        return {}
    try:
        return {"init_from_sha256": weights_hash(path)}
    except (BadInput, OSError):
        if needed:
            raise
        return {}


def shards(index):
    """The names of the files of an index. Raises BadInput."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise BadInput(f"{index} has no weight_map: fetch it again")
    return sorted(set(weight_map.values()))


def read_tensors(file):
    """{name: tensor} as a .bin or .safetensors file holds them, or the files of an index. Raises BadInput."""
    if file.endswith(INDEX):
        tensors = {}
        for name in shards(file):
            tensors |= read_tensors(os.path.join(os.path.dirname(file), name))
        return tensors
    try:
        if not file.endswith(".safetensors"):
            return dict(torch.load(file, map_location="cpu", weights_only=True))
        try:
            from safetensors.torch import load_file
        except ImportError:
            raise BadInput(f"reading {file} needs another package: pip install safetensors")
        return load_file(file)
    except FileNotFoundError:
        raise BadInput(f"there is no {file}: give the path of weights, or one of {', '.join(PUBLISHED)}")
    except BadInput:
        raise
    except Exception as e:  # truncated or other files raise a dozen kinds
        raise BadInput(f"{file} does not hold the weights of a model, or is truncated "
                       f"({type(e).__name__}): fetch it again")


# ---------------------------------------------------------------------------------- tensors to our parameters

def check(their_config, allowed, file, family):
    """Raises BadInput where config.json says something that model.py does not have. allowed: {key: the values
    that are known, the first of them where the key is missing}."""
    for key, values in allowed.items():
        if their_config.get(key, values[0]) not in values:
            raise BadInput(f"the config.json of {file} says {key} {their_config[key]!r}, which is not "
                           f"{family}; model.py has no other: give other weights")


def from_gpt2(tensors, their_config, file):
    """(parameters, fields of GPTConfig) from GPT-2's tensors. Raises BadInput.

    their_config: config.json, {} if there is none. Without it the sizes are those of the tensors, with 64
    channels a head, as all of GPT-2's published models have it.
    """
    state = {}
    for name, t in tensors.items():
        name = name.removeprefix("transformer.")
        if name.endswith((".attn.bias", ".attn.masked_bias")):  # causal masks, which older files hold
            continue
        state[name] = t.t() if name.endswith(TRANSPOSED) else t          # (in, out) -> (out, in)
    if not {"wte.weight", "wpe.weight", "h.0.mlp.c_fc.weight"} <= state.keys():
        raise BadInput(f"{file} does not hold the weights of a GPT-2 model: give other weights, or put the "
                       f"config.json of their family beside them")
    output = state.pop("lm_head.weight", state["wte.weight"])            # (V, C)
    if not output.equal(state["wte.weight"]):
        raise BadInput(f"{file} has an output layer of its own, where GPT-2's is the token embedding: give "
                       f"other weights")
    (V, C), T = state["wte.weight"].shape, len(state["wpe.weight"])
    n_layer = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("h."))
    allowed = {"activation_function": ["gelu_new"], "n_inner": [None, 4 * C], "layer_norm_epsilon": [1e-5],
               "scale_attn_weights": [True], "scale_attn_by_inverse_layer_idx": [False], "n_layer": [n_layer]}
    check(their_config, allowed, file, f"GPT-2 with {n_layer} layers")
    if "n_head" not in their_config and C % 64:
        raise BadInput(f"{file} has {C} channels, not 64 a head as GPT-2 has: put its config.json beside it")
    return state, {"block_size": T, "vocab_size": their_config.get("vocab_size", V), "n_layer": n_layer,
                   "n_head": their_config.get("n_head", C // 64), "n_embd": C, "dropout": 0.0, "bias": True}


LLAMA = {  # our name of a block's parameter: what it consists of in Llama's
    "ln_1.weight": ["input_layernorm"], "ln_2.weight": ["post_attention_layernorm"],
    "attn.c_attn.weight": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    "attn.c_proj.weight": ["self_attn.o_proj"],
    "mlp.c_fc.weight": ["mlp.gate_proj", "mlp.up_proj"], "mlp.c_proj.weight": ["mlp.down_proj"]}


def from_llama(tensors, their_config, file):
    """(parameters, fields of GPTConfig) from Llama's or Mistral's tensors. Mistral's context is cut to its
    sliding window, within which it is Llama. Raises BadInput."""
    c = their_config
    try:
        C, H, n_layer = c["hidden_size"], c["num_attention_heads"], c["num_hidden_layers"]
        F, V, T = c["intermediate_size"], c["vocab_size"], c["max_position_embeddings"]
    except KeyError as e:
        raise BadInput(f"the config.json of {file} lacks {e}: fetch it again")
    if C % H or C // H % 2:
        raise BadInput(f"the config.json of {file} says {C} channels in {H} heads: fetch it again")
    check(c, {"hidden_act": ["silu"], "attention_bias": [False], "mlp_bias": [False],
              "head_dim": [None, C // H], "rope_scaling": [None]}, file, "Llama's first form")
    rope = c.get("rope_parameters") or {}  # newer files have it
    check(rope, {"rope_type": ["default"]}, file, "Llama's first form")
    state = {}
    try:
        state["wte.weight"] = tensors["model.embed_tokens.weight"]
        state["ln_f.weight"] = tensors["model.norm.weight"]
        tied = c.get("tie_word_embeddings", False)
        if not tied:
            state["lm_head.weight"] = tensors["lm_head.weight"]
        used = {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"}
        for i in range(n_layer):
            for ours, theirs in LLAMA.items():
                names = [f"model.layers.{i}.{name}.weight" for name in theirs]
                parts = [tensors[name] for name in names]
                state[f"h.{i}.{ours}"] = torch.cat(parts)                # (outputs of all parts, in)
                used.update(names)
    except KeyError as e:
        raise BadInput(f"{file} lacks the tensor {e} of a Llama model with {n_layer} layers: fetch it again")
    more = [name for name in tensors if name not in used and not name.endswith("rotary_emb.inv_freq")]
    if more:
        raise BadInput(f"{file} holds {more[0]}, of which model.py knows nothing: give other weights")
    return state, {"block_size": min(T, c.get("sliding_window") or T), "vocab_size": V, "n_layer": n_layer,
                   "n_head": H, "n_embd": C, "dropout": 0.0, "bias": False, "arch": "llama",
                   "n_kv_head": c.get("num_key_value_heads") or H, "n_inner": F, "tied": tied,
                   "rope_base": float(rope.get("rope_theta") or c.get("rope_theta") or 10000.0),
                   "norm_eps": c.get("rms_norm_eps", 1e-6)}


# ---------------------------------------------------------------------------------------------- the tokenizer

def tokenizer_of(folder, their_config, vocab_size):
    """The hash of the tokenizer that weights go with: what extras/export.py wrote into config.json, or that
    of merges.txt or tokenizer.json beside them, or GPT-2's own for weights of its size. Raises BadInput."""
    if "tokenizer_sha256" in their_config:
        return their_config["tokenizer_sha256"]
    merges = os.path.join(folder, "merges.txt")
    if os.path.exists(merges) and their_config.get("model_type", "gpt2") == "gpt2":
        try:
            return tokenizer_hash(make_tokenizer("gpt2", GPT2_PATTERN, gpt2_tokens(merges)))
        except ValueError as e:
            raise BadInput(f"{merges} is not a file of GPT-2 merges: {e}; put the tokenizer's own there")
    if os.path.exists(os.path.join(folder, "tokenizer.json")):
        return tokenizer_hash(load_tokenizer(folder or "."))
    if vocab_size == 50257:
        return TOKENIZER_SHA256
    raise BadInput(f"what {vocab_size} token ids stand for is not known: put the tokenizer's merges.txt or "
                   f"tokenizer.json beside the weights in {folder or '.'}")


@dataclass
class Config:
    model: str = "gpt2"   # a published name, or a folder

    def validate(self):
        return []


def main(cfg):
    file = weights_file(cfg.model)
    if not os.path.isfile(file):
        raise BadInput(f"there is no {cfg.model}: give the folder of a model, or one of "
                       f"{', '.join(PUBLISHED)}")
    print(os.path.dirname(os.path.abspath(file)))


if __name__ == "__main__":
    run(main, Config, __doc__)
