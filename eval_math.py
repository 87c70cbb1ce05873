"""
Step 4: few-shot accuracy on math problems: prompts, generation, answers, and what they are worth.

    python eval_math.py --ckpt out/slm/ckpt.pt --data data/demo               # the built-in problems
    python eval_math.py --ckpt out/slm/ckpt.pt --data data/mine --task gsm8k math_oai  # downloaded once
    python eval_math.py --ckpt out/slm/ckpt.pt --data data/mine --task gsm8k --samples 16 --likelihood
    python eval_math.py --ckpt out/slm/ckpt.pt --data data/mine --problems test.jsonl --shots_from train.jsonl
    python eval_math.py --ckpt out/slm/step_*.pt --data data/demo --out out/slm/eval   # a curve over training
    python eval_math.py --ckpt gpt2 --data data/mine --task gsm8k             # GPT-2's published weights
    torchrun --nproc_per_node 4 -- eval_math.py ...   # the -- keeps --n from being taken for torchrun's
    python eval_math.py --grade generations.jsonl --task gsm8k                # no model: grade what is there

Tasks (grading/tasks.py): demo (the problems of the corpus folder, or your own: .jsonl rows with `question`
and `answer`), gsm8k, math (5,000 problems), math_oai (the paper's 500 of them), svamp, asdiv, mawps, tabmwp,
mathqa, mmlu_stem, sat_math. The worked problems of the prompt, the shots, are in grading/prompts/; those of
`demo` are drawn for each problem from the curated side, never from the test file. Shots are dropped until
prompt and answer fit the model's context.

Prints correct / total and the 95% interval (Wilson's). OUT/CKPT-TASK-KEY.jsonl gets a row per problem
(prompt, generation, prediction, answer, correct), and OUT/summary.jsonl a row per checkpoint and task; KEY
stands for the settings. Rows are written batch by batch, and the same command goes on where it was
interrupted. A generation on disk ends with the text that stopped it; grading cuts that off.
"""
import os
import random
from dataclasses import dataclass, field, replace

import torch

from common import load_model
from corpora.tokenizers import END_OF_TEXT, load_tokenizer, prompt_ids, start_of, tokenizer_hash
from corpora.vocabulary import draw_only, tokenizer_must_fit
from engine.cli import BadInput, Progress, run
from engine.generation import common_prefix, generate, new_caches
from engine.ranks import Ranks
from extras.pretrained import weights_file, weights_hash
from grading.grade import is_thinking
from grading.likelihood import add_likelihoods
from grading.report import (AnswerFile, add_to_summary, grade_file, grade_row, results_folder, rows_file,
                            settings, summarize)
from grading.tasks import TASKS, demonstrations, load_problems, load_task


@dataclass
class Config:
    ckpt: list[str] = field(default_factory=list)  # checkpoints to evaluate
    task: list[str] = field(default_factory=list)  # what to evaluate on (none: demo)
    data: str = "data/demo"       # corpus folder, for its tokenizer (and the problems and shots of `demo`)
    data_dir: str = "data/tasks"  # folder of the public test files, TASK.jsonl; what is missing is downloaded
    problems: str = ""            # demo: .jsonl of test problems (default: DATA/eval.jsonl)
    shots_from: str = ""          # demo: .jsonl to take the shots from (default: DATA/curated.jsonl)
    shots: int = -1               # worked problems before each question (-1: as is usual for the task)
    separator: str = ""           # between them (default: a blank line; demo: <|endoftext|>, as in training)
    n: int = 0                    # evaluate the first n problems (0: all)
    max_new_tokens: int = 0       # longest answer, in tokens (0: 40 for demo, 160 to 320 for the others)
    samples: int = 0              # also sample so many answers a problem: majority vote and pass@k
    temperature: float = 0.7      # of the samples; accuracy itself is greedy
    likelihood: bool = False      # also the loss of the right solutions, and the likeliest of the options
    batch_size: int = 0           # problems generated together (0: by free memory; it changes the samples)
    seed: int = 0                 # of the draw of shots, and of sampling
    out: str = ""                 # folder for the results (default: `eval` beside the checkpoint)
    grade: str = ""               # .jsonl with `generation` and `answer`: add `prediction` and `correct`
    device: str = "auto"          # auto, cpu, cuda, cuda:1, mps

    def validate(self):
        if bool(self.ckpt) == bool(self.grade):
            yield "--ckpt names the checkpoints to evaluate, or --grade a file of generations"
        for name in self.task:
            if name not in TASKS:
                yield f"there is no task {name!r}; there are {', '.join(TASKS)}"
        if len(set(self.task)) < len(self.task):
            yield "--task names a task twice"
        if self.grade and len(self.task) != 1:
            yield "--grade takes one --task: it says what an answer looks like"
        if (self.problems or self.shots_from) and set(self.task) - {"demo"}:
            yield ("--problems and --shots_from are for the task demo; put the test file of another one into "
                   "--data_dir")
        smallest = {"n": 0, "max_new_tokens": 0, "samples": 0, "batch_size": 0, "shots": -1}
        for name, least in smallest.items():
            if getattr(self, name) < least:
                yield f"{name} must be at least {least}, not {getattr(self, name)}"
        if self.temperature <= 0:
            yield (f"temperature must be above 0, not {self.temperature}; leave out --samples for greedy "
                   f"answers alone")


# ---------------------------------------------------------------------------------------------------- prompts

def load_prompts(name, cfg):
    """(cfg with this task and its usual settings, its problems, the shots of each). Raises BadInput."""
    style = TASKS[name].style
    separator = cfg.separator or (END_OF_TEXT if name == "demo" else "\n\n")
    cfg = replace(cfg, task=[name], shots=style.shots if cfg.shots < 0 else cfg.shots,
                  max_new_tokens=cfg.max_new_tokens or style.max_new_tokens,
                  separator=separator.replace("\\n", "\n"))  # a shell passes \n on as two characters
    if name == "demo":
        path = cfg.problems or os.path.join(cfg.data, "eval.jsonl")
        if not cfg.problems and not os.path.exists(path):
            raise BadInput(f"there is no {path}: name your --problems and --shots_from, or a public --task")
        problems = load_problems(name, path)[:cfg.n or None]
        worked = []
        if cfg.shots:
            worked = load_problems(name, cfg.shots_from or os.path.join(cfg.data, "curated.jsonl"))
        return cfg, problems, draw_shots(problems, worked, cfg.shots, cfg.seed)
    shots = demonstrations(style)
    if cfg.shots > len(shots):
        raise BadInput(f"{cfg.shots} shots wanted, but grading/prompts/{style.name}.txt holds {len(shots)}")
    problems = load_task(name, cfg.data_dir)[:cfg.n or None]
    return cfg, problems, [shots[:cfg.shots]] * len(problems)


def draw_shots(problems, worked, n, seed):
    """For each problem n of the `worked` ones, as texts; none that is a test problem. Raises BadInput."""
    tests = {p["question"] for p in problems}
    texts = [w["question"] + w["solution"] for w in worked if w["question"] not in tests]
    if n > len(texts):
        raise BadInput(f"{n} shots wanted, but the worked problems (--shots_from) are {len(texts)} without "
                       f"the test items")
    return [random.Random(f"{seed}-{number}").sample(texts, n) for number in range(len(problems))]


def fit_prompt(question, shots, separator, enc, room):
    """(prompt, its token ids, shots used) with the most shots that fit into `room` tokens, or ("", [], 0)."""
    special = {END_OF_TEXT} if separator == END_OF_TEXT else set()  # else just text
    for n in range(len(shots), -1, -1):
        prompt = "".join(shot + separator for shot in shots[:n]) + question
        ids = prompt_ids(enc, prompt, special)
        if len(ids) <= room:
            return prompt, ids, n
    return "", [], 0


# ------------------------------------------------------------------------------------------------- generation

def free_batch_size(model, prompts, new_tokens):
    """How many problems may be generated together: as many as what each needs beside the shared prefix (keys
    and values of its own tokens, logits and probabilities of the next) fits into a third of the free
    memory."""
    if not prompts:
        return 1
    device = model.output_weight.device
    if device.type == "cuda":
        free, most = torch.cuda.mem_get_info(device)[0], 1024
    else:
        free, most = free_host_memory(), 256  # a processor gains nothing from more rows
    own_tokens = max(map(len, prompts)) - common_prefix(prompts) + new_tokens
    token_bytes = sum(cache.k_own.nbytes + cache.v_own.nbytes for cache in new_caches(model, 1, 1))
    next_token_bytes = 2 * model.config.vocab_size * 4  # its logits and probabilities in float32
    return max(1, min(most, int(free / 3 / (own_tokens * token_bytes + next_token_bytes))))


def free_host_memory(path="/proc/meminfo"):
    """Bytes of memory that can be had, what only caches files included, as Linux says; elsewhere 4 GB."""
    try:
        with open(path, encoding="ascii") as f:
            found = dict(line.split(":") for line in f)
        return int(found["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return 4 * 2**30


def answer_batch(model, enc, rows, prompts, cfg):
    """Write what the model answers to a few problems into their rows: the text of the greedy `generation`,
    with --samples a list `samples`, with --likelihood what `add_likelihoods` says. prompts: a list of
    token ids for each row."""
    stop_texts = TASKS[cfg.task[0]].style.stop
    longest = max(map(len, stop_texts))  # in tokens at most: they are ASCII, and a token is a byte or more

    def stop(new_tokens):
        tail = enc.decode(new_tokens[-longest:])
        if new_tokens[-1] == enc.eot_token:
            return True
        # A model that thinks aloud may name the question inside <think>, and goes on.
        return any(text in tail for text in stop_texts) and not is_thinking(enc.decode(new_tokens))

    def texts(temperature, generator):
        new_tokens = generate(model, prompts, cfg.max_new_tokens, stop, temperature, generator)
        return [enc.decode([t for t in tokens if t != enc.eot_token]) for tokens in new_tokens]

    for row, text in zip(rows, texts(0.0, None)):
        row["generation"] = text
    # Each batch has a seed of its own: with the same batches, what goes on later draws the same samples.
    generator = torch.Generator(model.output_weight.device)
    generator.manual_seed(1_000_003 * cfg.seed + rows[0]["index"])
    for _ in range(cfg.samples):
        for row, text in zip(rows, texts(cfg.temperature, generator)):
            row.setdefault("samples", []).append(text)
    if cfg.likelihood:
        add_likelihoods(model, enc, rows, prompts)


# ------------------------------------------------------------------------------------------------- evaluation

def evaluate(model, enc, problems, shots, cfg, ranks, path):
    """A graded row for each problem, which are also written to `path`; rows found there are not generated
    again. Of several processes each answers a share of the problems; the main one returns all rows, the
    others none."""
    rows, prompts = [], []
    draw_only(enc.n_vocab, model)
    room = model.config.block_size - cfg.max_new_tokens
    for index, (problem, its_shots) in enumerate(zip(problems, shots)):
        prompt, ids, n = fit_prompt(problem["question"], its_shots, cfg.separator, enc, room)
        rows.append({"index": index, **problem, "prompt": prompt, "shots": n, "generation": ""})
        prompts.append(ids)

    answers = AnswerFile(path, ranks)
    # A question too long for the context has no prompt. It is not asked, and its empty answer is wrong.
    waiting = [i for i, ids in enumerate(prompts) if ids and i not in answers.found]
    # Prompts of similar length together need little padding, and with the longest first, memory that does not
    # suffice shows at once.
    waiting.sort(key=lambda i: -len(prompts[i]))
    waiting = waiting[ranks.rank::ranks.world]  # this process's share
    with ranks.autocast():  # the cache has its type
        batch_size = cfg.batch_size or free_batch_size(model, [prompts[i] for i in waiting],
                                                       cfg.max_new_tokens)
    progress = Progress(f"{cfg.task[0]} answers", len(waiting), "problems")
    for at in range(0, len(waiting), batch_size):
        numbers = waiting[at:at + batch_size]
        batch = [rows[i] for i in numbers]
        try:
            with ranks.autocast():
                answer_batch(model, enc, batch, [prompts[i] for i in numbers], cfg)
        except torch.OutOfMemoryError:
            raise BadInput(f"{batch_size} problems at once do not fit into the device's memory: give a "
                           f"smaller --batch_size")
        answers.add(batch)
        progress.show(at + len(batch))
    progress.close()

    ranks.barrier()  # all processes have written their answers
    if not ranks.main:
        return []
    answered = answers.read()
    rows = [answered.get(i, row) for i, row in enumerate(rows)]
    for row in rows:  # those of an earlier, interrupted call too: all are graded by the same grader
        grade_row(row, row["answer"], cfg.task[0])
    answers.finish(rows)
    return rows


def texts_of(problems, shots, separator):
    """All texts that a task gives to the tokenizer, one by one: prompts with all their shots, solutions and
    options."""
    for problem, its_shots in zip(problems, shots):
        yield separator.join([*its_shots, problem["question"]])
        yield problem["solution"]
        yield from (f" {option}" for option in problem["options"])


def main(cfg):
    if cfg.grade:
        return grade_file(cfg.grade, cfg.task[0])
    ranks = Ranks(cfg.device)
    enc = load_tokenizer(cfg.data)
    tasks = [load_prompts(name, cfg) for name in cfg.task or ["demo"]]
    for path in cfg.ckpt:
        if not os.path.exists(weights_file(path)):  # said at once, and not after the checkpoints before it
            raise BadInput(f"there is no checkpoint {path}: train one, or give another")
    for path in cfg.ckpt:
        model, checkpoint = load_model(path, tokenizer_hash(enc), cfg.data, ranks.device)
        context = model.config.block_size
        for task_cfg, problems, shots in tasks:
            tokenizer_must_fit(model, path, enc, cfg.data, texts_of(problems, shots, task_cfg.separator))
            if task_cfg.max_new_tokens >= context:
                raise BadInput(f"max_new_tokens {task_cfg.max_new_tokens} for {task_cfg.task[0]} leaves no "
                               f"room in the context of {context} tokens of {path}: give a smaller "
                               f"--max_new_tokens")
        out = cfg.out or results_folder(path)
        os.makedirs(out, exist_ok=True)
        ckpt_sha256, accuracies = weights_hash(path), []
        for task_cfg, problems, shots in tasks:
            about = settings(path, ckpt_sha256, task_cfg)
            if start_of(enc):
                about["start"] = start_of(enc)  # two tokenizers that differ in it ask in different ways
            name = rows_file(about, problems, shots)
            rows = evaluate(model, enc, problems, shots, task_cfg, ranks, os.path.join(out, name))
            if not ranks.main:
                continue
            result, text = summarize(rows, task_cfg)
            print(f"{path}, {about['task']}: {text}")
            accuracies.append(result["accuracy"])
            about |= {"step": checkpoint.get("step"), "tokens": checkpoint.get("tokens"), "rows": name}
            add_to_summary(os.path.join(out, "summary.jsonl"), about | result)
        if len(accuracies) > 1:
            print(f"{path}: {sum(accuracies) / len(accuracies):.1%} on average over {len(accuracies)} tasks")


if __name__ == "__main__":
    run(main, Config, __doc__)
