"""
How fast a training step and scoring are, and how much memory a step needs: ratios measured in one run.

    python -m bench.step                                        # everything, at three shapes
    python -m bench.step --part demo                            # one shape, in a few minutes
    python -m bench.step --part gpt2 --steps clm_nanogpt slm_0.6 --micro_batches 8 --rounds 3 --seconds 0
    python -m bench.step --part gpt2 --device cuda --compile

Parts: `gpt2` (GPT-2's 124M parameters), `vocab` (a small body under GPT-2's vocabulary) and `demo` (the
model of the built-in corpus, on one thread). Each measures, on random tokens (bench/work.py):

    clm_nanogpt       a training step as nanoGPT takes it: all logits in float32, one cross-entropy
    clm               ours, all tokens (engine/fast_loss.py)
    slm_naive_0.6     SLM written down directly: the reference model runs beside the model, a mean over a mask
    slm_0.6, slm_0.3  ours, with the reference losses given; _filtered with extras/filter_backward.py
    forward           a bare forward pass, logits included, without gradient
    score             score.py's inner loop: the same, losses, and writing them

A training step is measured with each number of micro-batches in --micro_batches: that many forward and
backward passes of --rows rows each, whose gradients add up, then the optimizer. So a step with 8 takes
about 8 times as long as one with 1. With GPT-2's shape a pass of 4 x 1024 tokens takes some 30 seconds on
two cores; --steps, --rounds and --seconds keep the whole short.

The measurements take turns, again and again, so that what changes with time changes all of them. Times are
medians. A ratio is the median of the ratios within a round, to clm_nanogpt with as many micro-batches (that
of score: to forward). Both are given with their quartiles. Memory is the peak of a process of its own that
takes the step, or what the step allocates on a GPU at most. MFU is the share of the measured speed of a large
matrix product that the model's own operations reach. Loading is reading the tokens and reference losses of a
micro-batch. Every part writes OUT/PART.json.
"""
import functools
import gc
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field

import numpy as np
import torch

from bench.results import write_result
from bench.work import PASSES, ROWS, SCORE_ROWS, SHAPES, STEPS, Work, passes_of
from data import Scores, Tokens, batch
from engine import fast_loss
from engine.cli import Progress, run
from engine.files import write_json
from engine.ranks import Ranks


@dataclass
class Config:
    part: list[str] = field(default_factory=lambda: list(SHAPES))  # shapes to measure: gpt2, vocab, demo
    steps: list[str] = field(default_factory=lambda: [*STEPS, *PASSES])  # what to measure, by name
    micro_batches: list[int] = field(default_factory=lambda: [1, 8])  # measure steps of so many micro-batches
    rows: int = 0                # rows of a micro-batch (0: 4, 8 and 8; on a GPU four times as many)
    rounds: int = 5              # how often each step is measured at least
    seconds: float = 60          # and for how long at least
    compile: bool = False        # torch.compile the model
    out: str = "out/bench"       # folder for PART.json
    device: str = "auto"         # auto, cpu, cuda, cuda:1, mps

    def validate(self):
        for part in self.part:
            if part not in SHAPES:
                yield f"part must be of {', '.join(SHAPES)}, not {part!r}"
        for name in self.steps:
            if name not in STEPS and name not in PASSES:
                yield f"steps must be of {', '.join([*STEPS, *PASSES])}, not {name!r}"
        if set(self.steps) & set(STEPS) and "clm_nanogpt" not in self.steps:
            yield "steps must name clm_nanogpt too, which the ratios of training steps are to"
        if "score" in self.steps and "forward" not in self.steps:
            yield "steps must name forward too, which the ratio of score is to"
        if min(self.micro_batches) < 1 or self.rounds < 1:
            yield "micro_batches and rounds must be at least 1"
        if self.rows < 0 or self.seconds < 0:
            yield "rows and seconds must not be negative"


# ------------------------------------------------------------------------------------------ memory

def peak_memory(name, shape, rows, n_micro, device, threads):
    """Bytes that this process needs at most to take the step STEPS[name], weights and optimizer included.

    None where the system does not tell. It must run in a process of its own.
    """
    torch.set_num_threads(threads)
    step = STEPS[name]
    work = Work(shape, rows, n_micro, Ranks(device), filtered=step.filtered)
    for p in work.model.parameters():
        p.grad = torch.zeros_like(p)
    work.update()  # the optimizer makes its state in its first step
    step.take(work, n_micro, step.keep)
    return peak_of_this_process()


def peak_on_gpu(name, work, n_micro):
    """The same of a GPU, on which nothing but `work` may be. In this process, which compiles once for all."""
    step = STEPS[name]
    step.take(work, n_micro, step.keep)  # what is compiled or made in a first step is not a part of it
    torch.cuda.reset_peak_memory_stats()
    step.take(work, n_micro, step.keep)
    vars(work).pop("reference_model", None)  # the other steps do without
    return torch.cuda.max_memory_allocated()


def peak_of_this_process():
    """The largest resident size so far, in bytes, or None."""
    if os.path.exists("/proc/self/status"):  # Linux, where ru_maxrss would begin with what the parent needs
        with open("/proc/self/status", encoding="utf-8") as f:
            for line in f:
                if line.startswith("VmHWM"):
                    return int(line.split()[1]) * 1024
    try:
        import resource  # not on Windows
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def in_a_process_of_its_own(function, *args):
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


# ------------------------------------------------------------------------------------- comparisons

def matmul_flops(ranks):
    """Operations per second of a large matrix product, in the dtype that training uses."""
    n, dtype = 2048, torch.float32
    if ranks.device.type == "cuda":
        n, dtype = 8192, torch.bfloat16
    a = torch.randn(n, n, device=ranks.device, dtype=dtype)
    return 2 * n**3 / min(seconds_of(lambda: a @ a, ranks) for _ in range(10))


def micro_batch_flops(shape, rows):
    """Operations of the matrix products of CLM with one micro-batch: for each weight and token 2 forward and
    4 backward, and those of causal attention."""
    weights = 12 * shape.n_layer * shape.n_embd**2 + shape.vocab_size * shape.n_embd
    return rows * shape.block_size * (6 * weights + 6 * shape.n_layer * shape.block_size * shape.n_embd)


def loading(shape, rows):
    """Seconds to read the tokens and reference losses of a micro-batch from files in memory, a median."""
    T, n = shape.block_size, 2_000_000
    with tempfile.TemporaryDirectory() as folder:
        token_ids = np.random.default_rng(0).integers(shape.vocab_size, size=n, dtype=np.uint16)
        token_ids.tofile(os.path.join(folder, "noisy.bin"))
        write_json(os.path.join(folder, "noisy.json"), {
            "dtype": "uint16", "n_tokens": n, "sha256": "", "labels": None, "vocab_size": shape.vocab_size,
            "tokenizer_sha256": ""})
        tokens = Tokens(folder, "noisy", T)
        np.zeros((tokens.n_rows, T), dtype=np.float16).tofile(os.path.join(folder, "loss.bin"))
        write_json(os.path.join(folder, "scores.json"), {
            "corpus_sha256": "", "block_size": T, "rows_done": tokens.n_rows, "ckpt_sha256": ""})
        scores, seconds = Scores(folder, tokens), []
        for step in range(200):
            start = time.perf_counter()
            numbers = batch(tokens.n_rows, rows, 0, step)
            tokens.rows(numbers)
            scores.rows(numbers)
            seconds.append(time.perf_counter() - start)
        del tokens, scores  # Windows does not remove a file that is mapped
    return float(np.median(seconds))


# --------------------------------------------------------------------------------------- measuring

def seconds_of(action, ranks):
    ranks.synchronize()
    start = time.perf_counter()
    action()
    ranks.synchronize()
    return time.perf_counter() - start


def take_turns(actions, cfg, ranks, part):
    """Run the actions, {key: function}, one after the other in each round. Returns {key: seconds of each}."""
    seconds = {key: [] for key in actions}
    start, rounds, progress = time.time(), 0, Progress(part, 0, "measurements")
    while rounds < cfg.rounds or time.time() - start < cfg.seconds:
        for i, (key, action) in enumerate(actions.items()):
            seconds[key].append(seconds_of(action, ranks))
            progress.show(rounds * len(actions) + i + 1)
        rounds += 1
    progress.close()
    return {key: np.array(values) for key, values in seconds.items()}


def quartiles(values):
    return [float(np.quantile(values, q)) for q in (0.25, 0.5, 0.75)]


def record_of(seconds, baseline, n_tokens):
    """What is reported of a measurement.

    seconds, baseline: (rounds,) arrays, its own and those of what it is compared with. n_tokens: of one turn.
    """
    low, median, high = quartiles(seconds)
    ratio_low, ratio, ratio_high = quartiles(seconds / baseline)
    return {"seconds": median, "seconds_quartiles": [low, high], "tokens_per_s": n_tokens / median,
            "ratio": ratio, "ratio_quartiles": [ratio_low, ratio_high]}


def bench_shape(part, cfg, ranks):
    """Measure cfg.steps at the shape of this name. Returns a dict with `steps`, by number of micro-batches
    and name, `passes`, by name, and what they were measured with."""
    shape, rows, on_gpu = SHAPES[part], cfg.rows or ROWS[part], ranks.device.type == "cuda"
    if on_gpu and not cfg.rows:
        rows *= 4
    default_threads = torch.get_num_threads()
    threads = 1 if part == "demo" else default_threads
    chosen = [(n_micro, name) for n_micro in cfg.micro_batches for name in STEPS if name in cfg.steps]
    kinds = {STEPS[name].filtered for _, name in chosen} | {False}

    def new_work(filtered):
        return Work(shape, rows, max(cfg.micro_batches), ranks, cfg.compile, filtered)

    # From the second micro-batch on there are gradients already: eight need as much memory as two.
    memory = dict.fromkeys((min(n_micro, 2), name) for n_micro, name in chosen)
    if not on_gpu:
        for n_micro, name in memory:  # not compiled, since the compiler's own memory would count
            memory[n_micro, name] = in_a_process_of_its_own(
                peak_memory, name, shape, rows, n_micro, cfg.device, threads)
    torch.set_num_threads(threads)
    if cfg.compile:
        fast_loss.compile_passes()
    works = {}
    for filtered in sorted(kinds, reverse=True):
        works.clear()
        gc.collect()  # on a GPU each kind is weighed while the other is gone; what was compiled is kept
        works[filtered] = new_work(filtered)
        for n_micro, name in memory:
            if on_gpu and STEPS[name].filtered == filtered:
                memory[n_micro, name] = peak_on_gpu(name, works[filtered], n_micro)
    if True in kinds:
        works[True] = new_work(True)

    actions = {}
    for n_micro, name in chosen:
        step = STEPS[name]
        step.take(works[step.filtered], min(n_micro, 2), step.keep)  # compiles, and fills the caches
        actions[n_micro, name] = functools.partial(step.take, works[step.filtered], n_micro, step.keep)
    many = max(1, SCORE_ROWS[part] // rows)
    with tempfile.TemporaryFile() as scores_file:
        for name, action in passes_of(works[False], many, scores_file).items():
            if name in cfg.steps:
                action()
                actions["passes", name] = action
        seconds = take_turns(actions, cfg, ranks, part)

    peak, n_tokens = matmul_flops(ranks), rows * shape.block_size
    result = {
        "shape": asdict(shape), "rows": rows, "rounds": len(next(iter(seconds.values()))), "threads": threads,
        "matmul_flops": peak, "parameters": sum(p.numel() for p in works[False].model.parameters()),
        "loading_seconds": loading(shape, rows), "steps": {}, "passes": {}}
    for n_micro, name in chosen:
        record = record_of(seconds[n_micro, name], seconds[n_micro, "clm_nanogpt"], n_micro * n_tokens)
        bytes_needed = memory[min(n_micro, 2), name]
        if bytes_needed:
            record["memory"] = bytes_needed
            record["memory_ratio"] = bytes_needed / memory[min(n_micro, 2), "clm_nanogpt"]
        if name.startswith("clm"):
            record["mfu"] = n_micro * micro_batch_flops(shape, rows) / record["seconds"] / peak
        result["steps"].setdefault(str(n_micro), {})[name] = record
    for name in PASSES:
        if name in cfg.steps:
            times, baseline = seconds["passes", name], seconds["passes", "forward"]
            result["passes"][name] = record_of(times, baseline, many * n_tokens)
    torch.set_num_threads(default_threads)
    return result


# --------------------------------------------------------------------------------------- reporting

def table_of(title, records):
    columns = "ms (quartiles) | tokens/s | time, ratio (quartiles) | peak memory, MB | ratio | MFU |"
    lines = [f"| {title} | {columns}", "|---|---|---|---|---|---|---|"]
    for name, r in records.items():
        low, high = (seconds * 1e3 for seconds in r["seconds_quartiles"])
        ratio_low, ratio_high = r["ratio_quartiles"]
        memory = f"{r['memory'] / 2**20:,.0f} | {r['memory_ratio']:.2f}" if "memory" in r else " | "
        mfu = f"{r['mfu']:.0%}" if "mfu" in r else ""
        time_ms = f"{r['seconds'] * 1e3:,.1f} ({low:,.1f} to {high:,.1f})"
        ratio = f"{r['ratio']:.3f} ({ratio_low:.3f} to {ratio_high:.3f})"
        lines.append(f"| {name} | {time_ms} | {r['tokens_per_s']:,.0f} | {ratio} | {memory} | {mfu} |")
    return "\n".join(lines)


def table(result):
    """What bench_shape measured, in markdown: a table for each number of micro-batches, one of the passes."""
    tables = []
    for n_micro, records in result["steps"].items():
        tables.append(table_of("1 micro-batch" if n_micro == "1" else f"{n_micro} micro-batches", records))
    if result["passes"]:
        tables.append(table_of("without gradient", result["passes"]))
    return "\n\n".join(tables)


def main(cfg):
    ranks = Ranks(cfg.device)
    for part in cfg.part:
        result = bench_shape(part, cfg, ranks)
        print(f"{part}: {result['rows']} x {result['shape']['block_size']} tokens a micro-batch, "
              f"{result['parameters']:,} parameters, {result['rounds']} rounds; loading the tokens and "
              f"reference losses of a micro-batch takes {result['loading_seconds'] * 1e3:.3f} ms\n")
        print(table(result))
        write_result(cfg, part, ranks, result)


if __name__ == "__main__":
    run(main, Config, __doc__)
