"""
GPT-2's weights in: wherever a script takes a checkpoint, it takes these too.

    python train_slm.py --init_from gpt2 ...                 # downloaded once; also gpt2-medium, gpt2-large, gpt2-xl
    python train_slm.py --init_from my/pytorch_model.bin ... # or model.safetensors, or the folder that holds one

The parameters have GPT-2's names here already; what differs is that Hugging Face keeps the matrices of its linear layers
transposed, and the output layer under one more name. extras/export.py is the way out.
"""
import os

import torch

from corpora.tokenizers import GPT2_PATTERN, gpt2_tokens, make_tokenizer, tokenizer_hash
from engine.cli import BadInput
from engine.files import locked, read_json

PUBLISHED = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")
URL = "https://huggingface.co/openai-community/{}/resolve/main/pytorch_model.bin"
# corpora.tokenizers.tokenizer_hash of GPT-2's tokenizer: what its weights go with, when nothing beside them says otherwise
TOKENIZER_SHA256 = "d8aea041f8cfa661a98510512f7d0a05c007b4266d8dc99bf5e4ae9eb037a0bf"
TRANSPOSED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")


def is_gpt2(path):
    """Whether a name or path means weights in Hugging Face's format."""
    return path in PUBLISHED or os.path.isdir(path) or str(path).endswith((".bin", ".safetensors"))


def weights_file(path):
    """The file that a published name, a folder or a file means. What is not there is downloaded. Raises BadInput."""
    if path in PUBLISHED and not os.path.exists(path):
        name = f"{path}.bin"  # all are called pytorch_model.bin, and the cache goes by the name
        file = os.path.join(torch.hub.get_dir(), "checkpoints", name)
        os.makedirs(os.path.dirname(file), exist_ok=True)
        url = URL.format(path)
        with locked(f"{file}.lock", wait=True):  # of several processes one downloads
            try:
                if not os.path.exists(file):
                    torch.hub.load_state_dict_from_url(url, map_location="cpu", weights_only=True, file_name=name)
            except Exception as e:  # no network, a proxy's error page, a full disk
                raise BadInput(f"cannot download {url} ({e}): fetch it elsewhere, and give the file's path")
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
            return tokenizer_hash(make_tokenizer("gpt2", GPT2_PATTERN, gpt2_tokens(merges)))
        except ValueError as e:
            raise BadInput(f"{merges} is not a file of GPT-2 merges: {e}")
    if vocab_size == 50257:
        return TOKENIZER_SHA256
    raise BadInput(f"what {vocab_size} token ids stand for is not known: put the tokenizer's merges.txt beside the weights in "
                   f"{folder or '.'}")
