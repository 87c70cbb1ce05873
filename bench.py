"""
How fast, as ratios measured in one run.

    python bench.py                      # few-shot generation at GPT-2's size, against nanoGPT's way; about 6 minutes
    python bench.py --device cuda

Generation: an 8-shot prompt as long as GSM8K's (600 tokens, then questions of 30 to 110 tokens) and 100 new tokens,
from a model with random weights. nanoGPT's way runs the whole context again for every new token, one question after
the other. Both must write the same tokens. Prints a table and writes OUT.
"""
import os
import random
import time
from dataclasses import asdict, dataclass

import torch

from common import Progress, Ranks, run, source_revision, write_json
from model import GPT, GPTConfig


@dataclass
class Config:
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    vocab_size: int = 50257
    prefix: int = 600            # tokens of the shots, the same for all questions
    question: int = 57           # median length of a question, in tokens
    new_tokens: int = 100        # length of an answer
    questions: int = 256         # how many our way answers
    naive_questions: int = 2     # how many nanoGPT's way answers
    batch_size: int = 256        # eval_math.py takes as many if the memory allows it
    seed: int = 0
    out: str = "out/bench.json"
    device: str = "auto"         # auto, cpu, cuda, cuda:1, mps

    def validate(self):
        for name in ("prefix", "question", "new_tokens", "questions", "naive_questions", "batch_size"):
            if getattr(self, name) < 1:
                yield f"{name} must be at least 1, not {getattr(self, name)}"
        if self.n_layer < 1 or self.n_head < 1 or self.n_embd % self.n_head:
            yield f"n_layer and n_head must be at least 1, and n_embd ({self.n_embd}) a multiple of n_head ({self.n_head})"
        if self.naive_questions > self.questions:
            yield "naive_questions must not exceed questions"


@torch.no_grad()
def generate_naively(model, prompt, new_tokens):
    """nanoGPT's loop: the whole context through the model for each new token."""
    idx = torch.tensor([prompt], device=model.wte.weight.device)
    for _ in range(new_tokens):
        token = model.logits(model(idx)[:, -1]).argmax(dim=-1)
        idx = torch.cat([idx, token.unsqueeze(1)], dim=1)
    return idx[0, len(prompt):].tolist()


def main(cfg):
    ranks = Ranks(cfg.device)
    torch.manual_seed(cfg.seed)
    draw = random.Random(cfg.seed)
    lengths = [round(cfg.question * draw.triangular(0.5, 1.9, 0.75)) for _ in range(cfg.questions)]
    block_size = cfg.prefix + max(lengths) + cfg.new_tokens
    model = GPT(GPTConfig(block_size, cfg.vocab_size, cfg.n_layer, cfg.n_head, cfg.n_embd)).to(ranks.device).eval()
    shots = [draw.randrange(cfg.vocab_size) for _ in range(cfg.prefix)]
    prompts = [shots + [draw.randrange(cfg.vocab_size) for _ in range(n)] for n in lengths]

    def now():
        if ranks.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    with ranks.autocast():
        model.generate(prompts[:2], 2)  # the first call is slower
        order = sorted(range(cfg.questions), key=lambda i: -lengths[i])  # as eval_math.py does
        written, start, progress = {}, now(), Progress("our way", cfg.questions, "questions")
        for at in range(0, cfg.questions, cfg.batch_size):
            some = order[at:at + cfg.batch_size]
            written |= zip(some, model.generate([prompts[i] for i in some], cfg.new_tokens))
            progress.show(len(written))
        ours = cfg.questions / (now() - start)
        progress.close()
        same, start, progress = 0, now(), Progress("nanoGPT's way", cfg.naive_questions, "questions")
        for i in range(cfg.naive_questions):
            tokens = generate_naively(model, prompts[i], cfg.new_tokens)
            same += sum(a == b for a, b in zip(tokens, written[i]))
            progress.show(i + 1)
        naive = cfg.naive_questions / (now() - start)
        progress.close()
    same /= cfg.naive_questions * cfg.new_tokens
    os.makedirs(os.path.dirname(cfg.out) or ".", exist_ok=True)
    write_json(cfg.out, {
        "config": asdict(cfg), "device": str(ranks.device), "threads": torch.get_num_threads(), "torch": torch.__version__,
        "source": source_revision(), "questions_per_s": ours, "naive_questions_per_s": naive, "ratio": ours / naive,
        "same_tokens": same})
    print(f"ours           {ours:8.3f} questions/s, {ours * cfg.new_tokens:8.1f} new tokens/s\n"
          f"nanoGPT's way  {naive:8.4f} questions/s\n"
          f"ratio          {ours / naive:8.1f}, {same:.1%} of the tokens the same")


if __name__ == "__main__":
    run(main, Config, __doc__)
