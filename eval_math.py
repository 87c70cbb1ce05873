"""
Step 4: few-shot accuracy on math problems: prompts, generation, answers, and what they are worth.

    python eval_math.py --ckpt out/slm/ckpt.pt --data data/demo               # the built-in problems
    python eval_math.py --ckpt out/slm/ckpt.pt --data data/mine --task gsm8k math_oai  # downloaded once
    python eval_math.py --ckpt out/slm/step_*.pt --data data/demo --out out/slm/eval   # a curve over training
    python eval_math.py --ckpt out/slm/ckpt.pt --data data/demo --tool calculator      # it need not calculate
    torchrun --nproc_per_node 4 -- eval_math.py ...   # the -- keeps --n from being taken for torchrun's
    python eval_math.py --grade generations.jsonl --task gsm8k                # no model: grade what is there

Tasks (grading/tasks.py): demo (the problems of the corpus folder, or your own: .jsonl rows with `question`
and `answer`), gsm8k, gsm_hard, math, math_oai (500 of them), svamp, asdiv, mawps, tabmwp, mathqa, mmlu_stem,
sat_math. The worked problems of the prompt, the shots, are in grading/prompts/; those of `demo` are drawn for
each problem from the curated side. Shots are dropped until prompt and answer fit the model's context.

Prints correct / total and the 95% interval (Wilson's). OUT/CKPT-TASK-KEY.jsonl gets a row per problem, and
OUT/summary.jsonl one per checkpoint and task; KEY stands for the settings. After an interruption the same
command begins its task again. A generation ends with the text that stopped it; grading cuts that off.
"""
import os
import random
from dataclasses import dataclass, field, replace

import torch

from corpora.tokenizers import load_tokenizer, tokenizer_hash
from engine.checkpoints import load_model, must_have_row
from engine.cli import BadInput, Progress, launch
from engine.files import file_hash, read_jsonl, write_jsonl
from engine.generation import draw_only, generate, prompt_ids
from engine.ranks import Ranks
from grading.grade import is_thinking
from grading.likelihood import add_likelihoods
from grading.results import (add_to_summary, grade_file, grade_row, results_folder, rows_file, settings,
                             summarize)
from grading.tasks import TASKS, demonstrations, load_problems, load_task
from grading.tools import reply_of


@dataclass
class Config:
    ckpt: list[str] = field(default_factory=list)  # checkpoints to evaluate
    task: list[str] = field(default_factory=list)  # what to evaluate on (none: demo)
    data: str = "data/demo"       # corpus folder, for its tokenizer (and the problems and shots of `demo`)
    data_dir: str = "data/tasks"  # folder of the public test files, TASK.jsonl; what is missing is downloaded
    problems: str = ""            # demo: .jsonl of test problems (default: DATA/eval.jsonl)
    shots_from: str = ""          # demo: .jsonl to take the shots from (default: DATA/curated.jsonl)
    shots: int = -1               # worked problems before each question (-1: as is usual for the task)
    n: int = 0                    # evaluate the first n problems (0: all)
    max_new_tokens: int = 0       # longest answer, in tokens (0: 40 for demo, 160 to 320 for the others)
    samples: int = 0              # also sample so many answers a problem: majority vote and pass@k
    temperature: float = 0.7      # of the samples; accuracy itself is greedy
    tool: str = ""                # calculator: results behind =; python: programs are run (grading/tools.py)
    rounds: int = 4               # python: the most programs of an answer that are run
    tool_seconds: float = 5.0     # python: the time of a program
    likelihood: bool = False      # also the loss of the right solutions, and the likeliest of the options
    batch_size: int = 64          # problems generated together; another one draws other samples
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
            yield "--problems and --shots_from are for the task demo; other test files belong in --data_dir"
        least = {"n": 0, "max_new_tokens": 0, "samples": 0, "batch_size": 1, "shots": -1}
        for name, number in least.items():
            if getattr(self, name) < number:
                yield f"{name} must be at least {number}, not {getattr(self, name)}"
        if self.tool not in ("", "calculator", "python"):
            yield f"tool must be calculator or python, not {self.tool!r}"
        if self.rounds < 1 or self.tool_seconds <= 0:
            yield f"rounds must be at least 1, and tool_seconds above 0: {self.rounds}, {self.tool_seconds}"
        if self.temperature <= 0:
            yield f"temperature must be above 0, not {self.temperature}; without --samples answers are greedy"


def load_prompts(name, cfg):
    """(cfg with this task and its usual settings, its problems, the shots of each). Raises BadInput."""
    style = TASKS[name].style
    cfg = replace(cfg, task=[name], shots=style.shots if cfg.shots < 0 else cfg.shots,
                  max_new_tokens=cfg.max_new_tokens or style.max_new_tokens)
    if name == "demo":
        path = cfg.problems or os.path.join(cfg.data, "eval.jsonl")
        if not cfg.problems and not os.path.exists(path):
            raise BadInput(f"there is no {path}: name your --problems and --shots_from, or a public --task")
        problems = load_problems(name, path)[:cfg.n or None]
        tests, texts = {p["question"] for p in problems}, []
        if cfg.shots:
            worked = load_problems(name, cfg.shots_from or os.path.join(cfg.data, "curated.jsonl"))
            texts = [w["question"] + w["solution"] for w in worked if w["question"] not in tests]
        if cfg.shots > len(texts):
            raise BadInput(f"{cfg.shots} shots wanted, --shots_from has {len(texts)} besides the problems")
        return cfg, problems, [random.Random(f"{cfg.seed}-{number}").sample(texts, cfg.shots)
                               for number in range(len(problems))]
    shots = demonstrations(style)
    if cfg.shots > len(shots):
        raise BadInput(f"{cfg.shots} shots wanted, but grading/prompts/{style.name}.txt holds {len(shots)}")
    problems = load_task(name, cfg.data_dir)[:cfg.n or None]
    return cfg, problems, [shots[:cfg.shots]] * len(problems)


def fit_prompt(question, shots, enc, room):
    """(prompt, its token ids, shots used) with the most shots that fit into `room` tokens, or ("", [], 0).
    Between worked problems stands a blank line."""
    for n in range(len(shots), -1, -1):
        prompt = "".join(f"{shot}\n\n" for shot in shots[:n]) + question
        ids = prompt_ids(enc, prompt)
        if len(ids) <= room:
            return prompt, ids, n
    return "", [], 0


def ask(model, path, enc, cfg, problems, shots):
    """(a row for each problem, the token ids of its prompt: none, and no answer, where it is too long)."""
    room = model.config.block_size - cfg.max_new_tokens
    if room < 1:
        raise BadInput(f"max_new_tokens {cfg.max_new_tokens} for {cfg.task[0]} leaves no room in the context "
                       f"of {model.config.block_size} tokens of {path}: give a smaller --max_new_tokens")
    rows, prompts, to_read = [], [], [[enc.eot_token]]
    for index, (problem, its_shots) in enumerate(zip(problems, shots)):
        prompt, ids, n = fit_prompt(problem["question"], its_shots, enc, room)
        rows.append({"index": index, **problem, "prompt": prompt, "shots": n, "generation": ""})
        prompts.append(ids)
        if cfg.likelihood:
            to_read.append(enc.encode_ordinary(problem["solution"]))
            to_read += [enc.encode_ordinary(f" {option}") for option in problem["options"]]
    if cfg.tool:
        to_read.append([enc.n_vocab - 1])  # what a tool says can have any id
    highest = max(max(ids, default=0) for ids in to_read + prompts)
    must_have_row(model, path, highest, enc.n_vocab, cfg.data)
    return rows, prompts


def answer_batch(model, enc, rows, prompts, cfg):
    """Write what the model answers to a few problems into their rows: a greedy `generation`, `samples`."""
    stop_texts = TASKS[cfg.task[0]].style.stop
    longest = max(map(len, stop_texts))  # in tokens at most: they are ASCII, and a token is a byte or more

    def stop(new_tokens):
        if new_tokens[-1] == enc.eot_token:
            return True
        tail = enc.decode(new_tokens[-longest:])
        # A model that thinks aloud may name the question inside <think>, and goes on.
        return any(text in tail for text in stop_texts) and not is_thinking(enc.decode(new_tokens))

    reply = reply_of(cfg.tool, enc, cfg.rounds, cfg.tool_seconds)

    def texts(temperature, generator):
        new_tokens = generate(model, prompts, cfg.max_new_tokens, stop, temperature, generator, reply)
        return [enc.decode([t for t in tokens if t != enc.eot_token]) for tokens in new_tokens]

    for row, text in zip(rows, texts(0.0, None)):
        row["generation"] = text
    # Each batch has a seed of its own: its samples do not depend on the batches and tasks before it.
    seed = 1_000_003 * cfg.seed + rows[0]["index"]
    generator = torch.Generator(model.output_weight.device).manual_seed(seed)
    for _ in range(cfg.samples):
        for row, text in zip(rows, texts(cfg.temperature, generator)):
            row.setdefault("samples", []).append(text)
    if cfg.likelihood:
        add_likelihoods(model, enc, rows, prompts)


def answer(model, enc, rows, prompts, cfg, ranks):
    """Write into the rows what the model answers. Each of several processes answers a share."""
    # Prompts of similar length need little padding; with the longest first, too little memory shows at once.
    asked = sorted((i for i, ids in enumerate(prompts) if ids), key=lambda i: -len(prompts[i]))
    mine = asked[ranks.rank::ranks.world]
    progress = Progress(f"{cfg.task[0]} answers", len(mine), "problems")
    for at in range(0, len(mine), cfg.batch_size):
        numbers = mine[at:at + cfg.batch_size]
        try:
            with ranks.autocast():
                answer_batch(model, enc, [rows[i] for i in numbers], [prompts[i] for i in numbers], cfg)
        except torch.OutOfMemoryError:
            raise BadInput(f"{cfg.batch_size} problems at once do not fit into the device's memory: give a "
                           f"smaller --batch_size")
        progress.show(at + len(numbers))
    progress.close()
    if ranks.world > 1:
        shares = [None] * ranks.world
        torch.distributed.all_gather_object(shares, [rows[i] for i in mine])
        for row in sum(shares, []):
            rows[row["index"]] = row


def main(cfg):
    if cfg.grade:
        return grade_file(cfg.grade, cfg.task[0])
    ranks = Ranks(cfg.device)
    enc = load_tokenizer(cfg.data)
    tasks = [load_prompts(name, cfg) for name in cfg.task or ["demo"]]
    for path in cfg.ckpt:
        if not os.path.exists(path):  # said before the first is evaluated
            raise BadInput(f"there is no checkpoint {path}: train one, or give another")
    for path in cfg.ckpt:
        model, checkpoint = load_model(path, tokenizer_hash(enc), cfg.data, ranks.device)
        draw_only(enc.n_vocab, model)
        asked = [ask(model, path, enc, *task) for task in tasks]  # whatever is wrong is said at once
        out = cfg.out or results_folder(path)
        os.makedirs(out, exist_ok=True)
        ckpt_sha256, accuracies = file_hash(path), []
        for (task_cfg, problems, shots), (rows, prompts) in zip(tasks, asked):
            about = settings(path, ckpt_sha256, task_cfg)
            if enc.start:
                about["start"] = enc.start  # two tokenizers that differ in it ask in different ways
            name = rows_file(about, problems, shots)
            answers = os.path.join(out, name)
            if ranks.any(os.path.exists(answers)):  # all come to the same, and have looked before one writes
                rows = read_jsonl(answers)
            else:
                answer(model, enc, rows, prompts, task_cfg, ranks)
            if not ranks.main:
                continue
            for row in rows:  # the grader of an earlier call may have been an older one
                grade_row(row, row["answer"], task_cfg.task[0])
            write_jsonl(answers, rows)
            result, text = summarize(rows, task_cfg)
            print(f"{path}, {about['task']}: {text}")
            accuracies.append(result["accuracy"])
            about |= {"step": checkpoint.get("step"), "tokens": checkpoint.get("tokens"), "rows": name}
            add_to_summary(os.path.join(out, "summary.jsonl"), about | result)
        if len(accuracies) > 1:
            print(f"{path}: {sum(accuracies) / len(accuracies):.1%} on average over {len(accuracies)} tasks")


if __name__ == "__main__":
    launch(main, Config, __doc__)
