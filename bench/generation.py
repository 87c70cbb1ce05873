"""
How fast few-shot generation is, in batches with a cache, against nanoGPT's way.

    python -m bench.generation                     # a model of GPT-2's size; 6 minutes on two cores
    python -m bench.generation --device cuda

The prompts are as long as GSM8K's with 8 shots: 600 tokens that all share, then a question of 30 to 110
tokens. The model has random weights and writes 100 new tokens. nanoGPT's way runs the whole context again
for every new token, one question after the other. Writes OUT/generation.json.
"""
import random
import time
from dataclasses import dataclass

import torch

from bench.results import write_result
from engine.cli import Progress, run
from engine.generation import generate
from engine.ranks import Ranks
from model import GPT, GPTConfig


@dataclass
class Config:
    prefix: int = 600            # tokens of the shots, the same for all questions
    question: int = 57           # median length of a question, in tokens
    new_tokens: int = 100        # length of an answer
    questions: int = 256         # how many our way answers
    naive_questions: int = 2     # how many nanoGPT's way answers
    batch_size: int = 256        # eval_math.py takes as many if the memory allows it
    n_layer: int = 12            # blocks of the model
    n_head: int = 12             # its attention heads
    n_embd: int = 768            # its channels
    vocab_size: int = 50257      # its vocabulary
    seed: int = 0                # of the weights and the prompts
    out: str = "out/bench"       # folder for generation.json
    device: str = "auto"         # auto, cpu, cuda, cuda:1, mps

    def validate(self):
        for name in ("prefix", "question", "new_tokens", "questions", "naive_questions", "batch_size",
                     "n_layer", "n_head", "n_embd", "vocab_size"):
            if getattr(self, name) < 1:
                yield f"{name} must be at least 1, not {getattr(self, name)}"
                return
        if self.n_embd % self.n_head:
            yield f"n_embd ({self.n_embd}) must be divisible by n_head ({self.n_head})"
        if self.naive_questions > self.questions:
            yield "naive_questions must not exceed questions"


@torch.no_grad()
def generate_naively(model, prompt, new_tokens):
    """nanoGPT's loop: the whole context through the model for each new token. Returns a list of token ids."""
    idx = torch.tensor([prompt], device=model.output_weight.device)            # (1, T)
    for _ in range(new_tokens):
        token = model.logits(model(idx)[:, -1]).argmax(dim=-1)                 # (1,)
        idx = torch.cat([idx, token.unsqueeze(1)], dim=1)                      # (1, T + 1)
    return idx[0, len(prompt):].tolist()


def prompts_of(cfg):
    """The prompts, lists of token ids: the same shots, then questions of different lengths."""
    draw = random.Random(cfg.seed)
    lengths = [max(1, round(cfg.question * draw.triangular(0.5, 1.9, 0.75))) for _ in range(cfg.questions)]
    shots = [draw.randrange(cfg.vocab_size) for _ in range(cfg.prefix)]
    return [shots + [draw.randrange(cfg.vocab_size) for _ in range(n)] for n in lengths]


def answer_in_batches(model, prompts, cfg):
    """The new tokens of each prompt, {number: list}, the longest prompts first, as eval_math.py does it."""
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    answers, progress = {}, Progress("our way", len(prompts), "questions")
    for at in range(0, len(order), cfg.batch_size):
        numbers = order[at:at + cfg.batch_size]
        answers |= zip(numbers, generate(model, [prompts[i] for i in numbers], cfg.new_tokens))
        progress.show(len(answers))
    progress.close()
    return answers


def answer_naively(model, prompts, cfg):
    """The same one after the other, nanoGPT's way."""
    answers, progress = {}, Progress("nanoGPT's way", len(prompts), "questions")
    for i, prompt in enumerate(prompts):
        answers[i] = generate_naively(model, prompt, cfg.new_tokens)
        progress.show(i + 1)
    progress.close()
    return answers


def main(cfg):
    ranks = Ranks(cfg.device)
    torch.manual_seed(cfg.seed)
    prompts = prompts_of(cfg)
    block_size = max(map(len, prompts)) + cfg.new_tokens
    model = GPT(GPTConfig(block_size, cfg.vocab_size, cfg.n_layer, cfg.n_head, cfg.n_embd))
    model = model.to(ranks.device).eval()

    def timed(answer, prompts):
        ranks.synchronize()
        start = time.perf_counter()
        answers = answer(model, prompts, cfg)
        ranks.synchronize()
        return answers, time.perf_counter() - start

    with ranks.autocast():
        generate(model, prompts[:2], 2)  # the first call is slower
        ours, our_seconds = timed(answer_in_batches, prompts)
        generate_naively(model, prompts[0], 2)
        naive, naive_seconds = timed(answer_naively, prompts[:cfg.naive_questions])
    same = sum(a == b for i in naive for a, b in zip(naive[i], ours[i])) / (len(naive) * cfg.new_tokens)
    our_speed, naive_speed = len(ours) / our_seconds, len(naive) / naive_seconds
    print(f"ours           {our_speed:8.3f} questions/s, {our_speed * cfg.new_tokens:8.1f} new tokens/s\n"
          f"nanoGPT's way  {naive_speed:8.4f} questions/s\n"
          f"ratio          {our_speed / naive_speed:8.1f}, {same:.1%} of the tokens the same")
    write_result(cfg, "generation", ranks, {
        "questions_per_s": our_speed, "naive_questions_per_s": naive_speed, "ratio": our_speed / naive_speed,
        "same_tokens": same})


if __name__ == "__main__":
    run(main, Config, __doc__)
