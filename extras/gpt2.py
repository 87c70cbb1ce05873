"""
Pretrained weights in: wherever a script takes a checkpoint, it takes GPT-2's weights too.

    python train_slm.py --init_from gpt2                     # downloaded once; also gpt2-medium, -large, -xl
    python train_slm.py --init_from my/pytorch_model.bin     # or model.safetensors, or a folder with one

Four questions, each answered by a function of its own: which file is meant (`weights_file`), which tensors
it holds (`read_tensors`), how they become the parameters of model.py (`parameters` and `model_config`, the
only ones that know GPT-2), and which tokenizer they go with (`tokenizer_of`). extras/export.py is the way
out.
"""
import os

import torch

from corpora.tokenizers import GPT2_PATTERN, gpt2_tokens, make_tokenizer, tokenizer_hash
from engine.cli import BadInput
from engine.files import locked, read_json

PUBLISHED = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")
URL = "https://huggingface.co/openai-community/{}/resolve/main/pytorch_model.bin"
FILES = ("model.safetensors", "pytorch_model.bin")  # the names that weights have in a folder

# The parameters have GPT-2's names in model.py too. But GPT-2's linear layers hold their matrices transposed.
TRANSPOSED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")
# corpora.tokenizers.tokenizer_hash of GPT-2's tokenizer: weights of its size go with it, unless something
# says otherwise.
TOKENIZER_SHA256 = "d8aea041f8cfa661a98510512f7d0a05c007b4266d8dc99bf5e4ae9eb037a0bf"


def is_gpt2(path):
    """Whether a name or path means weights in Hugging Face's format, and not a checkpoint of ours."""
    return path in PUBLISHED or os.path.isdir(path) or str(path).endswith((".bin", ".safetensors"))


def load(path):
    """Weights in Hugging Face's format as a checkpoint, a dict of `model`, `model_config` and
    `tokenizer_sha256`. Raises BadInput."""
    file = str(weights_file(path))
    folder = os.path.dirname(file)
    config_path = os.path.join(folder, "config.json")  # there may be one, which says what the weights are
    their_config = read_json(config_path) if os.path.exists(config_path) else {}
    state = parameters(read_tensors(file), file)
    config = model_config(state, their_config, file)
    state["wte.weight"] = state["wte.weight"][:config["vocab_size"]]  # (V, C): some have more rows
    state = {name: t.float().contiguous() for name, t in state.items()}
    return {"model": state, "model_config": config,
            "tokenizer_sha256": tokenizer_of(folder, their_config, config["vocab_size"])}


# ------------------------------------------------------------------------------------------- files to tensors

def weights_file(path):
    """The file that a published name, a folder or a file means. What is not there is downloaded. Raises
    BadInput."""
    if path in PUBLISHED and not os.path.exists(path):
        return download(path)
    if not os.path.isdir(path):
        return path
    for name in FILES:
        if os.path.exists(os.path.join(path, name)):
            return os.path.join(path, name)
    raise BadInput(f"the folder {path} holds neither {' nor '.join(FILES)}: give one that does")


def download(name):
    """The file of a published name in torch's cache, downloaded if it is not there. Raises BadInput."""
    file_name = f"{name}.bin"  # all are called pytorch_model.bin, and the cache goes by the name
    file = os.path.join(torch.hub.get_dir(), "checkpoints", file_name)
    os.makedirs(os.path.dirname(file), exist_ok=True)
    url = URL.format(name)
    with locked(f"{file}.lock", wait=True):  # of several processes one downloads
        try:
            if not os.path.exists(file):
                torch.hub.load_state_dict_from_url(url, map_location="cpu", weights_only=True,
                                                   file_name=file_name)
        except Exception as e:  # no network, a proxy's error page, a full disk
            raise BadInput(f"cannot download {url} ({e}): fetch it elsewhere, and give the file's path")
    return file


def read_tensors(file):
    """{name: tensor} as a .bin or .safetensors file holds them. Raises BadInput."""
    try:
        if not file.endswith(".safetensors"):
            return dict(torch.load(file, map_location="cpu", weights_only=True))
        try:
            from safetensors.torch import load_file
        except ImportError:
            raise BadInput(f"reading {file} needs another package: pip install safetensors")
        return load_file(file)
    except FileNotFoundError:
        published = ", ".join(PUBLISHED)
        raise BadInput(f"there is no {file}: give the path of GPT-2 weights, or one of {published}")
    except BadInput:
        raise
    except Exception as e:  # truncated or other files raise a dozen kinds
        raise BadInput(f"{file} does not hold the weights of a model, or is truncated "
                       f"({type(e).__name__}): fetch it again")


# ---------------------------------------------------------------------------------- tensors to our parameters

def parameters(tensors, file):
    """{name: tensor} with the names and shapes of model.py's parameters, from GPT-2's. Raises BadInput."""
    state = {}
    for name, t in tensors.items():
        name = name.removeprefix("transformer.")
        if name.endswith((".attn.bias", ".attn.masked_bias")):  # causal masks, which older files hold
            continue
        state[name] = t.t() if name.endswith(TRANSPOSED) else t          # (in, out) -> (out, in)
    if not {"wte.weight", "wpe.weight", "h.0.mlp.c_fc.weight"} <= state.keys():
        raise BadInput(f"{file} does not hold the weights of a GPT-2 model: give other weights")
    output = state.pop("lm_head.weight", state["wte.weight"])            # (V, C)
    if not output.equal(state["wte.weight"]):
        raise BadInput(f"{file} has an output layer of its own, where GPT-2's is the token embedding; "
                       f"model.py has no other: give other weights")
    return state


def model_config(state, their_config, file):
    """The fields of GPTConfig. Raises BadInput where the weights are not GPT-2's: model.py has no other.

    state: from `parameters`. their_config: config.json, {} if there is none. Without it the sizes are those
    of the tensors, with 64 channels a head, as all of GPT-2's published models have it.
    """
    (V, C), T = state["wte.weight"].shape, len(state["wpe.weight"])
    n_layer = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("h."))
    allowed = {"model_type": ["gpt2"], "activation_function": ["gelu_new"], "n_inner": [None, 4 * C],
               "layer_norm_epsilon": [1e-5], "scale_attn_weights": [True],
               "scale_attn_by_inverse_layer_idx": [False], "n_layer": [n_layer]}
    for key, values in allowed.items():
        if their_config.get(key, values[0]) not in values:
            raise BadInput(f"the config.json of {file} says {key} {their_config[key]!r}, which is not GPT-2 "
                           f"with {n_layer} layers; model.py has no other: give other weights")
    if "n_head" not in their_config and C % 64:
        raise BadInput(f"{file} has {C} channels, not 64 a head as GPT-2 has: put its config.json beside it")
    return {"block_size": T, "vocab_size": their_config.get("vocab_size", V), "n_layer": n_layer,
            "n_head": their_config.get("n_head", C // 64), "n_embd": C, "dropout": 0.0, "bias": True}


# ---------------------------------------------------------------------------------------------- the tokenizer

def tokenizer_of(folder, their_config, vocab_size):
    """The hash of the tokenizer that weights go with: what extras/export.py wrote into config.json, or that
    of merges.txt beside them, or GPT-2's own for weights of its size. Raises BadInput."""
    if "tokenizer_sha256" in their_config:
        return their_config["tokenizer_sha256"]
    merges = os.path.join(folder, "merges.txt")
    if os.path.exists(merges):
        try:
            return tokenizer_hash(make_tokenizer("gpt2", GPT2_PATTERN, gpt2_tokens(merges)))
        except ValueError as e:
            raise BadInput(f"{merges} is not a file of GPT-2 merges: {e}; put the tokenizer's own there")
    if vocab_size == 50257:
        return TOKENIZER_SHA256
    raise BadInput(f"what {vocab_size} token ids stand for is not known: put the tokenizer's merges.txt "
                   f"beside the weights in {folder or '.'}")
