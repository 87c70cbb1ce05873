"""
How fast few-shot generation is against Hugging Face's `transformers` with its own cache, on the same weights.

    pip install transformers safetensors tokenizers
    python -m bench.against_transformers --ckpt models/SmolLM2-135M --batch_sizes 1 16

The prompts are as in bench/generation.py: shots that all share, then a question. Both write the same number
of new tokens for every question, greedily. `transformers` gets each prompt whole, padded on the left in a
batch, as most evaluations do it; ours runs the shots once a batch. Writes OUT/against_transformers.json:
questions a second, and how many of the new tokens are the same.
"""
import os
import time
from dataclasses import dataclass, field

import torch

from bench import generation
from bench.results import write_result
from common import load_checkpoint, model_of
from engine.cli import BadInput, Progress, run
from engine.generation import generate
from engine.ranks import Ranks
from extras.pretrained import is_pretrained, weights_file


@dataclass
class Config:
    ckpt: str = ""               # a folder of Hugging Face's with its weights
    prefix: int = 900            # tokens of the shots, the same for all questions
    question: int = 57           # median length of a question, in tokens
    new_tokens: int = 100        # length of an answer
    questions: int = 16          # how many to answer
    batch_sizes: list[int] = field(default_factory=lambda: [1, 16])
    seed: int = 0                # of the prompts
    out: str = "out/bench"       # folder for against_transformers.json
    device: str = "auto"         # auto, cpu, cuda, cuda:1, mps

    def validate(self):
        if not self.ckpt:
            yield "--ckpt names the folder of a model"
        for name in ("prefix", "question", "new_tokens", "questions"):
            if getattr(self, name) < 1:
                yield f"{name} must be at least 1, not {getattr(self, name)}"
        if not self.batch_sizes or min(self.batch_sizes) < 1:
            yield "--batch_sizes takes numbers of 1 and more"


@torch.no_grad()
def theirs(model, prompts, new_tokens):
    """The new tokens of each prompt, a list of lists, by transformers' generate."""
    longest = max(map(len, prompts))
    padded = [[0] * (longest - len(p)) + p for p in prompts]
    mask = [[0] * (longest - len(p)) + [1] * len(p) for p in prompts]
    padded, mask = (torch.tensor(rows, device=model.device) for rows in (padded, mask))  # (B, longest) each
    out = model.generate(padded, attention_mask=mask, do_sample=False, min_new_tokens=new_tokens,
                         max_new_tokens=new_tokens, pad_token_id=0,
                         eos_token_id=None)                                    # (B, longest + new_tokens)
    return out[:, longest:].tolist()


def load_theirs(path, device):
    """The same weights as a model of transformers'. Raises BadInput without the package."""
    try:
        from transformers import AutoModelForCausalLM
    except ImportError:
        raise BadInput("this needs another package: pip install transformers safetensors tokenizers")
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).to(device).eval()


def main(cfg):
    ranks = Ranks(cfg.device)
    if not is_pretrained(cfg.ckpt) or not os.path.isfile(weights_file(cfg.ckpt)):
        raise BadInput(f"{cfg.ckpt} is no folder of Hugging Face's: write one of a checkpoint of yours with "
                       f"python -m extras.export")
    checkpoint = load_checkpoint(cfg.ckpt)
    model = model_of(checkpoint, cfg.ckpt, checkpoint["tokenizer_sha256"], cfg.ckpt).to(ranks.device).eval()
    their_model = load_theirs(os.path.dirname(weights_file(cfg.ckpt)), ranks.device)
    prompts = generation.prompts_of(generation.Config(
        prefix=cfg.prefix, question=cfg.question, questions=cfg.questions, seed=cfg.seed,
        vocab_size=model.config.vocab_size))
    needed, context = max(map(len, prompts)) + cfg.new_tokens, model.config.block_size
    if needed > context:
        raise BadInput(f"prompt and answer of {needed} tokens do not fit the context of {context} tokens of "
                       f"{cfg.ckpt}: give a smaller --prefix or --new_tokens")
    ways = {"ours": lambda batch: generate(model, batch, cfg.new_tokens),
            "transformers": lambda batch: theirs(their_model, batch, cfg.new_tokens)}
    result = {}
    for size in cfg.batch_sizes:
        answers, seconds = {}, {}
        for name, answer in ways.items():
            answer(prompts[:1])  # the first call is slower
            ranks.synchronize()
            start, new = time.perf_counter(), []
            progress = Progress(f"{name}, batch {size}", len(prompts), "questions")
            for at in range(0, len(prompts), size):
                new += answer(prompts[at:at + size])
                progress.show(len(new))
            progress.close()
            ranks.synchronize()
            answers[name], seconds[name] = new, time.perf_counter() - start
        pairs = [pair for a, b in zip(*answers.values()) for pair in zip(a, b)]
        result[str(size)] = {f"{name}_questions_per_s": len(prompts) / seconds[name] for name in ways}
        result[str(size)] |= {"ratio": seconds["transformers"] / seconds["ours"],
                              "same_tokens": sum(a == b for a, b in pairs) / len(pairs)}
        print(f"batch {size:3}: " + ", ".join(f"{k} {v:.3f}" for k, v in result[str(size)].items()))
    write_result(cfg, "against_transformers", ranks, {"batch_sizes": result})


if __name__ == "__main__":
    run(main, Config, __doc__)
