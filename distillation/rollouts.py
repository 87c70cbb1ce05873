"""
What distillation/on_policy.py does with problems: draws them, lets models answer, and grades the answers.
Shapes as there; V counts the ids that may be drawn, the same for all models (engine/generation.py).
"""
import numpy as np
import torch

from engine.cli import BadInput
from engine.files import file_hash
from engine.generation import generate, prompt_ids
from engine.text_files import object_rows
from grading.grade import extract_answer, is_equal
from grading.tasks import load_problems


class Problems:
    """A file of problems: `prompts` (token ids), `answers` (texts), `teacher_of` (numbers among `names`)."""

    def __init__(self, path, enc, names=()):
        problems = load_problems("demo", path)
        self.prompts = [prompt_ids(enc, p["question"]) for p in problems]
        self.answers = [p["answer"] for p in problems]
        self.longest = max(map(len, self.prompts))
        self.sha256 = file_hash(path)
        self.teacher_of = np.zeros(len(problems), dtype=int)
        if len(names) > 1:
            wanted = [row.get("teacher") for _, row in object_rows(path)]
            if unknown := [name for name in wanted if name not in names]:
                raise BadInput(f"{path}: the field `teacher` of a problem is {unknown[0]!r}, not one of "
                               f"those that --teacher names: {', '.join(names)}")
            self.teacher_of = np.array([names.index(name) for name in wanted])


def seed_of(*numbers):
    """A seed that is a function of these numbers, so that there is no random state to resume."""
    return int(np.random.default_rng(numbers).integers(2**63))


def draw(n_problems, cfg, step):
    """The problem of each answer of a step, (R,): none twice if there are enough."""
    rng, n = np.random.default_rng([cfg.seed, step]), cfg.rollouts
    return rng.permutation(n_problems)[:n] if n <= n_problems else rng.integers(n_problems, size=n)


def has_ended(enc):
    """A function: have an answer's token ids come to its end, the end-of-text token or the blank line that
    stands before another problem? Either belongs to the answer, and is learned. (So a solution that has a
    blank line of its own is cut there.)"""
    return lambda tokens: tokens[-1] == enc.eot_token or enc.decode(tokens[-2:]).endswith("\n\n")


def roll_out(student, prompts, cfg, T, enc, seed):
    """The student's answers, drawn at temperature 1: (ids (r, T + 1), mask (r, T))."""
    device = student.output_weight.device
    generator = torch.Generator(device).manual_seed(seed)
    ids = torch.full((len(prompts), T + 1), enc.eot_token, device=device)   # what pads is never looked at
    mask = torch.zeros(len(prompts), T, dtype=torch.bool, device=device)
    answers = generate(student, prompts, cfg.max_new_tokens, has_ended(enc), 1.0, generator)
    for i, (prompt, answer) in enumerate(zip(prompts, answers)):
        start, end = len(prompt), len(prompt) + len(answer)
        ids[i, :end] = torch.tensor(prompt + answer, device=device)
        mask[i, start - 1:end - 1] = True                                   # the targets are ids[:, 1:]
    return ids, mask


def log_probs_of(model, ids, mask, gpt):
    """Log-probabilities over the vocabulary at the n tokens of the mask, (r, T + 1) ids -> (n, V). model: the
    GPT `gpt`, or its parallel form, which knows the forward pass and not the output layer."""
    hidden = model(ids[:, :-1])[mask]                                       # (n, C): logits of these alone
    return gpt.logits(hidden)[:, :gpt.n_drawn].float().log_softmax(dim=-1)


def teachers_log_probs(teachers, teacher_of, ids, mask):
    """The same by each answer's own teacher. teacher_of: (r,) numbers."""
    teacher_of = torch.from_numpy(teacher_of).to(ids.device)
    of_token = teacher_of.unsqueeze(1).expand(mask.shape)[mask]             # (n,)
    log_probs = torch.empty(len(of_token), teachers[0].n_drawn, device=ids.device)
    for number in teacher_of.unique().tolist():
        rows, teacher = teacher_of == number, teachers[number]
        log_probs[of_token == number] = log_probs_of(teacher, ids[rows], mask[rows], teacher)
    return log_probs                                                        # (n, V)


def at_targets(log_probs, ids, mask):
    """The log-probability of each target, (n, V) -> (n,)."""
    return log_probs.gather(1, ids[:, 1:][mask].unsqueeze(1)).squeeze(1)


def is_right(enc, tokens, answer):
    """Whether the text of these tokens ends with the right answer."""
    text = enc.decode([t for t in tokens if t != enc.eot_token])
    return is_equal(extract_answer(text, "demo"), answer)


def accuracy(model, enc, problems, cfg, ranks):
    """The share of the first --eval_problems problems that the model answers rightly, greedily, no shots."""
    numbers = range(len(problems.prompts))[:cfg.eval_problems or None]
    mine, right = numbers[ranks.rank::ranks.world], 0
    for at in range(0, len(mine), 256):
        prompts = [problems.prompts[i] for i in mine[at:at + 256]]
        answers = generate(model, prompts, cfg.max_new_tokens, has_ended(enc))
        right += sum(is_right(enc, tokens, problems.answers[i]) for tokens, i in zip(answers, mine[at:]))
    return ranks.sum(torch.tensor(float(right), device=ranks.device)) / len(numbers)
