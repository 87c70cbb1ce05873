"""
How fast, and how much memory: ratios measured in one run.

    python bench.py                                   # the training step, scoring and loading, at three shapes
    python bench.py --part demo                       # one of them, in a minute
    python bench.py --part generation                 # few-shot generation, against nanoGPT's way; 6 minutes
    python bench.py --device cuda --compile

Parts: `gpt2` (GPT-2's 124M parameters), `vocab` (a small body under GPT-2's vocabulary) and `demo` (the built-in corpus's
model, on one thread) each measure, on random tokens,

    clm_nanogpt     a training step as nanoGPT takes it: all logits in float32, one cross-entropy
    clm             ours (keep 1.0)
    slm_naive_0.6   the reference model runs beside the model, all logits, masked mean
    slm_0.6, _0.3   ours, reference losses given; _filtered with --filter_backward
    forward         a bare forward pass, logits included, without gradient
    score           score.py's inner loop: the same, losses, and writing them

one after the other, again and again, so that what changes with time changes all. Times are medians, ratios medians of the
ratios within a round, both with their quartiles. Memory is the peak of a process that takes one step. MFU is the
share of the measured speed of a large matrix product that the model's own operations reach. `batches` is the time to
load the tokens and scores of a step. Every part writes OUT/PART.json.
"""
import dataclasses
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import time
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch.nn import functional as F

import train_slm
from common import Progress, Ranks, adamw, run, source_revision, write_json
from data import Tokens, batch
from kept import compile_passes, kept_loss
from model import GPT, GPTConfig
from score import Scores, score_rows

SHAPES = {"gpt2": GPTConfig(1024, 50304), "vocab": GPTConfig(256, 50304, 4, 4, 256), "demo": GPTConfig(192, 419, 2, 2, 64)}
ROWS = {"gpt2": 4, "vocab": 8, "demo": 8}         # of a training step, on a processor
SCORE_ROWS = {"gpt2": 4, "vocab": 32, "demo": 64}  # of a forward pass
STEPS = ("clm_nanogpt", "clm", "slm_naive_0.6", "slm_0.6", "slm_0.3", "slm_0.6_filtered", "slm_0.3_filtered")


@dataclass
class Config:
    part: list[str] = dataclasses.field(default_factory=lambda: ["gpt2", "vocab", "demo"])  # of these, and generation
    rows: int = 0                # rows of a step (0: 4, 8 and 8; on a GPU four times as many)
    rounds: int = 5              # how often each step is measured at least
    seconds: float = 60          # and for how long at least
    compile: bool = False        # torch.compile the models
    out: str = "out/bench"       # folder for PART.json
    device: str = "auto"         # auto, cpu, cuda, cuda:1, mps
    seed: int = 0
    # generation
    prefix: int = 600            # tokens of the shots, the same for all questions
    question: int = 57           # median length of a question, in tokens
    new_tokens: int = 100        # length of an answer
    questions: int = 256         # how many our way answers
    naive_questions: int = 2     # how many nanoGPT's way answers
    batch_size: int = 256        # eval_math.py takes as many if the memory allows it
    n_layer: int = 12            # the model that generates
    n_head: int = 12
    n_embd: int = 768
    vocab_size: int = 50257

    def validate(self):
        for name in ("rounds", "prefix", "question", "new_tokens", "questions", "naive_questions", "batch_size", "n_layer",
                     "n_head"):
            if getattr(self, name) < 1:
                yield f"{name} must be at least 1, not {getattr(self, name)}"
                return
        if self.rows < 0 or self.seconds < 0:
            yield "rows and seconds must not be negative"
        for part in self.part:
            if part not in (*SHAPES, "generation"):
                yield f"part must be of {', '.join(SHAPES)} and generation, not {part!r}"
        if self.n_embd % self.n_head:
            yield f"n_embd ({self.n_embd}) must be divisible by n_head ({self.n_head})"
        if self.naive_questions > self.questions:
            yield "naive_questions must not exceed questions"


def training_steps(shape, rows, ranks, compiled):
    """The model, the same compiled or not, inputs, targets, the optimizer, and {name: function that takes a step}."""
    torch.manual_seed(0)
    device, n = ranks.device, rows * shape.block_size
    model = GPT(shape).to(device)
    optimizer = adamw(model, train_slm.Config(lr=0.0), device)  # lr 0: all rounds do the same work
    x, y = (torch.randint(shape.vocab_size, (rows, shape.block_size), device=device) for _ in range(2))
    ref = 20 * torch.rand(n, device=device)
    reference_model = []

    def nanogpt_losses(model, reduction):
        with ranks.autocast():
            logits = model.logits(model(x))
            return logits, F.cross_entropy(logits.view(n, -1).float(), y.flatten(), reduction=reduction)
    body = model
    if compiled:
        compile_passes()
        body, nanogpt_losses = torch.compile(model), torch.compile(nanogpt_losses)

    def update(loss):
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def clm_nanogpt():
        logits, loss = nanogpt_losses(model, "mean")  # it returns the logits too, so they are there all the time
        update(loss)

    def slm_naive(keep):
        if not reference_model:
            reference_model.append(GPT(shape).to(device).eval())
        with torch.no_grad():
            ref_losses = nanogpt_losses(reference_model[0], "none")[1]
        logits, losses = nanogpt_losses(model, "none")
        k = round(keep * n)
        mask = torch.zeros(n, device=device)
        mask[(losses.detach() - ref_losses).argsort(descending=True)[:k]] = 1
        update((losses * mask).sum() / k)

    def ours(keep, filter_backward=False):
        k = round(keep * n)
        with ranks.autocast():
            hidden = body(x, n_kept=None if k == n else k, filter_backward=filter_backward)
            loss_sum, _, _ = kept_loss(hidden, model.wte.weight, y, k, lambda losses, i: losses - ref[i])
        update(loss_sum / k)

    return model, body, x, y, optimizer, dict(zip(STEPS, (
        clm_nanogpt, lambda: ours(1.0), lambda: slm_naive(0.6), lambda: ours(0.6), lambda: ours(0.3), lambda: ours(0.6, True),
        lambda: ours(0.3, True))))


def peak_memory(name, shape, rows, device, threads):
    """Bytes that a process needs at the most which takes this step, weights and optimizer included."""
    torch.set_num_threads(threads)
    ranks = Ranks(device)
    model, _, _, _, optimizer, steps = training_steps(shape, rows, ranks, False)
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.step()  # its state is made in the first step
    optimizer.zero_grad(set_to_none=True)
    steps[name]()
    if ranks.device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    if os.path.exists("/proc/self/status"):
        with open("/proc/self/status") as f:  # ru_maxrss would start from that of the parent
            return next(int(line.split()[1]) * 1024 for line in f if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def in_a_process_of_its_own(f, *args):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(f, args)


def matmul_flops(ranks):
    """Operations per second of a large matrix product, in the dtype that training uses."""
    n = 8192 if ranks.device.type == "cuda" else 2048
    a = torch.randn(n, n, device=ranks.device, dtype=torch.bfloat16 if ranks.device.type == "cuda" else torch.float32)
    seconds = []
    for _ in range(10):
        ranks.synchronize()
        start = time.perf_counter()
        a @ a
        ranks.synchronize()
        seconds.append(time.perf_counter() - start)
    return 2 * n**3 / min(seconds)


def step_flops(shape, rows):
    """Operations of the matrix products of a CLM step: 2 per weight and token forward, 4 backward; causal attention."""
    weights = 12 * shape.n_layer * shape.n_embd**2 + shape.vocab_size * shape.n_embd
    return rows * shape.block_size * (6 * weights + 6 * shape.n_layer * shape.block_size * shape.n_embd)


def quartiles(values):
    return [float(np.quantile(values, q)) for q in (0.25, 0.5, 0.75)]


def loading(shape, rows):
    """Seconds to read the tokens and the scores of a step from memory-mapped files that are in memory, a median."""
    T, n = shape.block_size, 2_000_000
    with tempfile.TemporaryDirectory() as folder:
        np.random.default_rng(0).integers(shape.vocab_size, size=n, dtype=np.uint16).tofile(f"{folder}/noisy.bin")
        write_json(f"{folder}/noisy.json", {"dtype": "uint16", "n_tokens": n, "sha256": "", "labels": None,
                                            "vocab_size": shape.vocab_size, "tokenizer_sha256": ""})
        tokens = Tokens(folder, "noisy", T)
        np.zeros((tokens.n_rows, T), dtype=np.float16).tofile(f"{folder}/loss.bin")
        write_json(f"{folder}/scores.json", {"corpus_sha256": "", "block_size": T, "rows_done": tokens.n_rows,
                                             "ckpt_sha256": ""})
        scores, seconds = Scores(folder, tokens), []
        for step in range(200):
            start = time.perf_counter()
            r = batch(tokens.n_rows, rows, 0, step)
            tokens.rows(r), scores.rows(r)
            seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def bench_shape(part, cfg, ranks):
    shape, rows = SHAPES[part], cfg.rows or ROWS[part] * (4 if ranks.device.type == "cuda" else 1)
    threads = 1 if part == "demo" else torch.get_num_threads()
    memory = {name: in_a_process_of_its_own(peak_memory, name, shape, rows, cfg.device, threads) for name in STEPS}
    default_threads = torch.get_num_threads()
    torch.set_num_threads(threads)
    model, body, x, y, _, steps = training_steps(shape, rows, ranks, cfg.compile)

    many = max(1, SCORE_ROWS[part] // rows)
    many_x, many_y = x.repeat(many, 1), y.repeat(many, 1)

    def forward():
        with torch.no_grad(), ranks.autocast():
            body.logits(body(many_x))

    def score():
        with ranks.autocast():
            scores = score_rows(body, many_x, many_y)[0]
        scores_file.write(scores.half().cpu().numpy().tobytes())
    steps |= {"forward": forward, "score": score}

    seconds, start, progress = {name: [] for name in steps}, time.time(), Progress(part, 0, "steps")
    with tempfile.TemporaryFile() as scores_file:
        while len(seconds["clm"]) < cfg.rounds + 1 or time.time() - start < cfg.seconds:
            for name, step in steps.items():
                ranks.synchronize()
                at = time.perf_counter()
                step()
                ranks.synchronize()
                seconds[name].append(time.perf_counter() - at)
            progress.show(len(seconds["clm"]) * len(steps))
    progress.close()
    seconds = {name: np.array(s[1:]) for name, s in seconds.items()}  # the first round warms up
    peak, flops, n = matmul_flops(ranks), step_flops(shape, rows), rows * shape.block_size
    result = {"shape": asdict(shape), "rows": rows, "rounds": len(seconds["clm"]), "threads": threads, "matmul_flops": peak,
              "parameters": sum(p.numel() for p in model.parameters()), "loading_seconds": loading(shape, rows), "steps": {}}
    for name, s in seconds.items():
        against = "forward" if name in ("forward", "score") else "clm_nanogpt"
        low, mid, high = quartiles(s)
        r_low, ratio, r_high = quartiles(s / seconds[against])
        result["steps"][name] = record = {
            "seconds": mid, "seconds_quartiles": [low, high], "tokens_per_s": n * (many if against == "forward" else 1) / mid,
            "ratio": ratio, "ratio_quartiles": [r_low, r_high]}
        if name in memory:
            record |= {"memory": memory[name], "memory_ratio": memory[name] / memory["clm_nanogpt"]}
        if name.startswith("clm"):
            record["mfu"] = flops / mid / peak
    torch.set_num_threads(default_threads)
    return result


def table(result):
    """What bench_shape measured, as a table in markdown."""
    lines = ["| | ms (quartiles) | tokens/s | time, ratio (quartiles) | peak memory, MB | ratio | MFU |", "|---|---|---|---|---|---|---|"]
    for name, r in result["steps"].items():
        low, high = (q * 1e3 for q in r["seconds_quartiles"])
        memory = f"{r['memory'] / 2**20:,.0f} | {r['memory_ratio']:.2f}" if "memory" in r else " | "
        lines.append(f"| {name} | {r['seconds'] * 1e3:,.1f} ({low:,.1f} to {high:,.1f}) | {r['tokens_per_s']:,.0f} | {r['ratio']:.3f} "
                     f"({r['ratio_quartiles'][0]:.3f} to {r['ratio_quartiles'][1]:.3f}) | {memory} | "
                     f"{format(r['mfu'], '.0%') if 'mfu' in r else ''} |")
    return "\n".join(lines)


@torch.no_grad()
def generate_naively(model, prompt, new_tokens):
    """nanoGPT's loop: the whole context through the model for each new token."""
    idx = torch.tensor([prompt], device=model.wte.weight.device)
    for _ in range(new_tokens):
        token = model.logits(model(idx)[:, -1]).argmax(dim=-1)
        idx = torch.cat([idx, token.unsqueeze(1)], dim=1)
    return idx[0, len(prompt):].tolist()


def bench_generation(cfg, ranks):
    """An 8-shot prompt as long as GSM8K's (600 tokens, then questions of 30 to 110 tokens) and 100 new tokens, from random
    weights. nanoGPT's way runs the whole context again for every new token, one question after the other."""
    torch.manual_seed(cfg.seed)
    draw = random.Random(cfg.seed)
    lengths = [round(cfg.question * draw.triangular(0.5, 1.9, 0.75)) for _ in range(cfg.questions)]
    block_size = cfg.prefix + max(lengths) + cfg.new_tokens
    model = GPT(GPTConfig(block_size, cfg.vocab_size, cfg.n_layer, cfg.n_head, cfg.n_embd)).to(ranks.device).eval()
    shots = [draw.randrange(cfg.vocab_size) for _ in range(cfg.prefix)]
    prompts = [shots + [draw.randrange(cfg.vocab_size) for _ in range(n)] for n in lengths]

    def now():
        ranks.synchronize()
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
    print(f"ours           {ours:8.3f} questions/s, {ours * cfg.new_tokens:8.1f} new tokens/s\n"
          f"nanoGPT's way  {naive:8.4f} questions/s\n"
          f"ratio          {ours / naive:8.1f}, {same:.1%} of the tokens the same")
    return {"questions_per_s": ours, "naive_questions_per_s": naive, "ratio": ours / naive, "same_tokens": same}


def main(cfg):
    ranks = Ranks(cfg.device)
    os.makedirs(cfg.out, exist_ok=True)
    for part in cfg.part:
        result = bench_generation(cfg, ranks) if part == "generation" else bench_shape(part, cfg, ranks)
        if part != "generation":
            print(f"{part}: {result['rows']} x {result['shape']['block_size']} tokens a step, {result['parameters']:,} parameters, "
                  f"{result['rounds']} rounds; loading a step's tokens and scores takes {result['loading_seconds'] * 1e3:.3f} ms\n"
                  + table(result))
        device = torch.cuda.get_device_name() if ranks.device.type == "cuda" else str(ranks.device)
        write_json(os.path.join(cfg.out, f"{part}.json"), {
            "config": asdict(cfg), "device": device, "threads": torch.get_num_threads(), "torch": torch.__version__,
            "source": source_revision(), **result})


if __name__ == "__main__":
    run(main, Config, __doc__)
