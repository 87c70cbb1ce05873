"""
How fast training steps and generation are, against the way nanoGPT does it.

    python -m analysis.speed --part demo --rows 8                          # half a minute on two cores
    python -m analysis.speed --device cuda --compile --rows 16             # all of it on a GPU, and memory

Parts are shapes: gpt2 (124M parameters), vocab (a small body under GPT-2's vocabulary), demo. Of each:

    step      clm_nanogpt                 all logits in float32, one cross-entropy
              clm_fast                    as train_ref.py --fast takes it
              slm_plain_0.6               as train_slm.py --keep 0.6 takes it
              slm_fast_0.6, slm_fast_0.3  as train_slm.py --fast takes it
              slm_naive_0.6               without score files: a reference model runs in every step
    generate  nanogpt                     the whole context again for each token, one question at a time
              batched                     engine/generation.py: a cache, all questions together

step_8 is a step of eight micro-batches. The rows of a table take turns. A ratio is that of the time for a
token to that of the first row in the same round: the median, and quartiles. MB: the most that a GPU held
during a call. Prints tables, writes OUT/PART.json.
"""
import gc
import os
import re
import time
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial

import numpy as np
import torch
from torch.nn import functional as F

from common import GRAD_CLIP, Optimisation, adamw
from engine import fast_loss
from engine.cli import Progress, launch
from engine.files import source_revision, write_json
from engine.generation import generate
from engine.ranks import Ranks
from model import GPT, GPTConfig, token_loss

SHAPES = {"gpt2": GPTConfig(block_size=1024, vocab_size=50304, n_layer=12, n_head=12, n_embd=768),
          "vocab": GPTConfig(block_size=256, vocab_size=50304, n_layer=4, n_head=4, n_embd=256),
          "demo": GPTConfig(block_size=192, vocab_size=429, n_layer=3, n_head=2, n_embd=64)}
STEPS = ("clm_nanogpt", "clm_fast", "slm_plain_0.6", "slm_fast_0.6", "slm_fast_0.3", "slm_naive_0.6")
QUESTIONS = 64                              # answered together, as many as eval_math.py takes


@dataclass
class Config:
    part: list[str] = field(default_factory=lambda: list(SHAPES))  # shapes to measure: gpt2, vocab, demo
    measure: list[str] = field(default_factory=lambda: ["step", "step_8", "generate"])  # tables
    rows: int = 4                # rows of a micro-batch
    rounds: int = 10             # how often each is measured
    compile: bool = False        # torch.compile the model that takes the steps
    out: str = "out/speed"       # folder for PART.json
    device: str = "auto"         # auto, cpu, cuda, cuda:1, mps

    def validate(self):
        if not set(self.part) <= set(SHAPES):
            yield f"part must be of {', '.join(SHAPES)}, not {' '.join(self.part)}"
        if not all(re.fullmatch(r"generate|step(_[1-9]\d*)?", table) for table in self.measure):
            yield f"measure must be of step, step_8 and so on, generate, not {' '.join(self.measure)}"
        if self.rows < 1 or self.rounds < 1:
            yield "rows and rounds must be at least 1"


class Work:
    """What steps need: a model, its optimizer, and micro-batches of random tokens in the host's memory."""

    def __init__(self, shape, rows, n_micro, ranks, compiled=False):
        torch.manual_seed(0)
        self.ranks = ranks
        self.if_compiled = torch.compile if compiled else lambda function: function
        self.model = GPT(shape).to(ranks.device)
        self.called_model = self.if_compiled(self.model)
        self.nanogpt_loss = self.if_compiled(nanogpt_loss)
        self.optimizer = adamw(self.model, Optimisation(lr=0.0), ranks.device)  # so the weights stay
        V, size = shape.vocab_size, (rows, shape.block_size)
        self.micro_batches = [(torch.randint(V, size), torch.randint(V, size), 20 * torch.rand(size))
                              for _ in range(n_micro)]                         # x, y, L_ref: (B, T) each

    @cached_property
    def reference_model(self):
        """Made in the naive step, which comes last, so it is in no other's memory."""
        return self.if_compiled(GPT(self.model.config).to(self.ranks.device))


def nanogpt_loss(model, x, y):
    """The loss as nanoGPT's model computes it. x, y: (B, T)."""
    logits = model.logits(model(x)).float()                                    # (B, T, V)
    return F.cross_entropy(logits.view(-1, logits.size(-1)), y.view(-1))       # of (B*T, V) and (B*T,)


def plain_selected_loss(hidden, weight, targets, ref_loss, k):
    """The sum over the selected tokens, as train_slm.py writes it down. targets, ref_loss: (B, T)."""
    loss = token_loss(F.linear(hidden, weight), targets)               # logits (B, T, V), losses (B, T)
    ranked = (loss.detach() - ref_loss).flatten().argsort(descending=True, stable=True)     # (B*T,)
    selected = torch.zeros_like(ranked, dtype=torch.bool)
    selected[ranked[:k]] = True
    return (loss * selected.view(loss.shape)).sum()                    # of (B, T)


def step_loss(name, work, x, y, ref_loss):
    """The mean loss of a micro-batch in this kind of step. x, y, ref_loss: (B, T)."""
    if name == "clm_nanogpt":
        return work.nanogpt_loss(work.model, x, y)
    if name == "slm_naive_0.6":  # computes the reference losses itself
        with torch.no_grad():
            hidden = work.reference_model(x)
            ref_loss = token_loss(F.linear(hidden, work.reference_model.output_weight), y)       # (B, T)
    hidden, weight = work.called_model(x), work.model.output_weight
    if name == "clm_fast":
        return fast_loss.all_tokens_loss(hidden, weight, y) / y.numel()
    k = round(float(name[-3:]) * y.numel())
    if name.startswith("slm_fast"):
        return fast_loss.selected_loss(hidden, weight, y, ref_loss, k, torch.sub)[0] / k
    return plain_selected_loss(hidden, weight, y, ref_loss, k) / k


def take_step(work, name, n_micro):
    """A training step of this kind on the first n_micro micro-batches, as train_slm.py takes it."""
    for micro_batch in work.micro_batches[:n_micro]:
        x, y, ref_loss = map(work.ranks.to_device, micro_batch)                # (B, T) each
        with work.ranks.autocast():
            loss = step_loss(name, work, x, y, ref_loss)
        (loss / n_micro).backward()  # in each micro-batch equally many tokens count
    torch.nn.utils.clip_grad_norm_(work.model.parameters(), GRAD_CLIP)
    work.optimizer.step()
    work.optimizer.zero_grad(set_to_none=True)


def random_prompts(shape):
    """(prompts, number of tokens to generate), in GSM8K's proportions; all share 60% of the context."""
    T, V = shape.block_size, shape.vocab_size
    examples = torch.randint(V, (6 * T // 10,)).tolist()
    lengths = torch.linspace(0.03 * T, 0.11 * T, QUESTIONS).round().int().tolist()
    return [examples + torch.randint(V, (n,)).tolist() for n in lengths], T // 10


def generate_nanogpt(model, prompt, new_tokens):
    """nanoGPT's loop, with the likeliest token in the place of a sample. Returns the new ones, a list."""
    idx = torch.tensor([prompt], device=model.output_weight.device)            # (1, T)
    for _ in range(new_tokens):
        token = model.logits(model(idx)[:, -1]).argmax(dim=-1)                 # (1,)
        idx = torch.cat([idx, token.unsqueeze(1)], dim=1)                      # (1, T + 1)
    return idx[0, len(prompt):].tolist()


def rows_of(table, work):
    """{row: (what to call, how many tokens a call is for)}."""
    if table == "generate":
        def answer(function, prompts, n):
            with torch.no_grad(), work.ranks.autocast():
                function(work.model, prompts, n)  # not compiled: eval_math.py does not compile
        prompts, n = random_prompts(work.model.config)
        middle = prompts[QUESTIONS // 2]  # a question of middle length
        return {"nanogpt": (partial(answer, generate_nanogpt, middle, n), n),
                "batched": (partial(answer, generate, prompts, n), QUESTIONS * n)}
    n_micro, n_tokens = len(work.micro_batches), sum(x.numel() for x, *_ in work.micro_batches)
    return {name: (partial(take_step, work, name, n_micro), n_tokens) for name in STEPS}


def take_turns(rows, rounds, ranks):
    """Call each row once a round. Returns ({row: its seconds}, {row: bytes in use on a GPU})."""
    seconds, memory = {name: [] for name in rows}, dict.fromkeys(rows, 0)
    for name, (call, _) in rows.items():
        call()  # compiles, and makes what stays in memory
        if ranks.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            call()
            memory[name] = torch.cuda.max_memory_allocated()
    progress, done = Progress("speed", rounds * len(rows), "measurements"), 0
    for _ in range(rounds):
        for name, (call, _) in rows.items():
            progress.show(done, name)
            done += 1
            ranks.synchronize()
            start = time.perf_counter()
            call()
            ranks.synchronize()
            seconds[name].append(time.perf_counter() - start)
    progress.close()
    return seconds, memory


def records_of(rows, seconds, memory):
    """{row: what is reported of it}."""
    per_token = {name: np.array(seconds[name]) / n for name, (_, n) in rows.items()}       # (rounds,) each
    first = next(iter(per_token.values()))
    records = {}
    for name in rows:
        low, middle, high = np.quantile(per_token[name] / first, [0.25, 0.5, 0.75]).tolist()
        records[name] = {"seconds": np.median(seconds[name]), "tokens_per_s": 1 / np.median(per_token[name]),
                         "memory": memory[name], "ratio": middle, "ratio_quartiles": [low, high]}
    return records


def measure(table, shape, cfg, ranks):
    """Measure a table, and print it. Returns {row: record}."""
    torch.compiler.reset()  # the sizes of the last table must not decide how this one is compiled
    gc.collect()            # nor must its models count as memory
    n_micro = int(table.partition("_")[2] or 1)
    rows = rows_of(table, Work(shape, cfg.rows, n_micro, ranks, cfg.compile))
    records = records_of(rows, *take_turns(rows, cfg.rounds, ranks))
    print(f"\n{table:<14}{'ms':>11}{'tokens/s':>11}{'MB':>9}   ratio (quartiles)")
    for name, r in records.items():
        low, high = r["ratio_quartiles"]
        print(f"{name:<14}{1e3 * r['seconds']:>11,.1f}{r['tokens_per_s']:>11,.0f}"
              f"{r['memory'] / 2**20:>9,.0f}   {r['ratio']:.3g} ({low:.3g} to {high:.3g})", flush=True)
    return records


def main(cfg):
    ranks = Ranks(cfg.device)
    device = torch.cuda.get_device_name() if ranks.device.type == "cuda" else str(ranks.device)
    about = {"source": source_revision(), "torch": torch.__version__, "device": device,
             "threads": torch.get_num_threads(), "config": asdict(cfg)}
    if cfg.compile:
        fast_loss.compile_passes()
    os.makedirs(cfg.out, exist_ok=True)
    for part in cfg.part:
        print(f"\n{part} on {device}: {cfg.rows} x {SHAPES[part].block_size} tokens a micro-batch")
        tables = {table: measure(table, SHAPES[part], cfg, ranks) for table in cfg.measure}
        write_json(os.path.join(cfg.out, f"{part}.json"), about | {"tables": tables})


if __name__ == "__main__":
    launch(main, Config, __doc__)
