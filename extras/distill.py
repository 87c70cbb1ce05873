"""
On-policy distillation: the student answers, a teacher judges each token of its answers, and the student
follows the teacher where that counts (FiRe-OPD, arXiv 2606.02684: filter the answers, reweight the tokens).

    python -m extras.distill --student out/student/ckpt.pt --teacher out/teacher/best.pt --out out/fire
    python -m extras.distill --student out/student/ckpt.pt --teacher add=out/add/best.pt dbl=out/dbl/best.pt\\
        --problems both.jsonl --out out/two                      # each row of the file names its `teacher`
    python -m extras.distill --student out/student/ckpt.pt --reward answer --samples 4 --out out/reward

--loss is what a step does with the teacher's judgement:

    opd                all tokens of all answers count alike; its exact form is exact_kl
    filter, reweight   one half of the method each
    fire               both: the method
    exact_kl           the reverse KL divergence over the whole vocabulary, not only at the drawn token
    fire_exact         the same, filtered and reweighted
    sft                the teacher answers, and the student learns its answers: not on-policy
    entropy_half       only the tokens where the student's entropy is at or above the median of the step
    first_k            only the first --first_k tokens of an answer
    random_drop        control of the filter: as many answers dropped, any
    permuted_weights   control of the weights: the same ones, dealt out anew at random

Other rewards than a teacher's judgement of each token: `answer`, 1 for a right final answer, and
`reference`, the mean log-probability that --teacher gives to the answer. Of either the mean over the
problem's own answers is taken off, so --samples must be 2 or more.

Shapes: R answers of a step over all processes, r of this process or of one micro-batch, T targets of problem
and answer (all padded to the longest that may come), n of them that count, V vocabulary. `mask` (R, T) is
true at targets that were generated, the end-of-text token among them, and not at the problem's.
"""
import os
import time
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from common import (Optimisation, RunFolder, adamw, held_out_loss, learning_rate, load_checkpoint, load_model,
                    model_of, not_negative, where_to_start)
from corpora.tokenizers import load_tokenizer, tokenizer_hash
from corpora.vocabulary import draw_only, must_have_rows, tokenizer_must_fit
from data import Tokens, hashes_of
from engine.cli import BadInput, Progress, StopSignal, run
from engine.ranks import Ranks, load_optimizer
from extras.pretrained import weights_hash
from extras.rollouts import (Problems, accuracy, at_targets, draw, is_right, log_probs_of, roll_out, seed_of,
                             teachers_log_probs)

EXACT = ("exact_kl", "fire_exact")
LOSSES = ("fire", "opd", "filter", "reweight", *EXACT, "sft", "entropy_half", "first_k", "random_drop",
          "permuted_weights")


@dataclass
class Config(Optimisation):
    student: str = ""               # checkpoint that the student starts from
    teacher: list[str] = field(default_factory=list)  # the teacher's checkpoint, or NAME=CKPT of several
    out: str = "out/distill"        # run folder
    resume: bool = False            # go on with the run in this folder, if there is one
    data: str = "data/demo"         # corpus folder, for its tokenizer, its held-out text and its problems
    problems: str = ""              # .jsonl of problems to answer (default: DATA/curated.jsonl)
    test_problems: str = ""         # .jsonl to measure the accuracy on (default: DATA/eval.jsonl)
    loss: str = "fire"              # what counts, see above
    reward: str = "teacher"         # teacher (its judgement of each token), answer, or reference
    samples: int = 1                # answers to each problem
    rollouts: int = 100             # answers in a step
    micro_rows: int = 0             # answers generated, and run forward, together (0: all of a process)
    max_new_tokens: int = 40        # longest answer
    drop: float = 0.2               # filter: the share of the answers to drop
    alpha: float = 1.0              # weights: how much more a token counts where the teacher is sure
    beta: float = 1.0               # weights (not AdamW's): how much more where the student is not
    first_k: int = 10               # of --loss first_k
    # optimisation, besides what common.Optimisation has
    steps: int = 200                # length of the run
    lr: float = 1e-3                # highest learning rate
    warmup_steps: int = 10          # linear warm-up
    weight_decay: float = 0.0       # AdamW's, on matrices only
    seed: int = 0                   # of the draw of problems and of the answers
    # evaluating and saving: none of these changes the weights
    eval_every: int = 25            # steps between evaluations
    eval_rows: int = 128            # evaluate the losses on the first so many rows of val and of test
    eval_problems: int = 0          # evaluate the accuracy on the first so many problems (0: all)
    save_every: int = 100           # steps between saves of ckpt.pt
    device: str = "auto"            # auto, cpu, cuda, cuda:1, mps

    @property
    def batch_tokens(self):
        """The most tokens that a step generates: RunFolder asks for it. Checkpoints have the true number."""
        return self.rollouts * self.max_new_tokens

    def validate(self):
        if not self.student:
            yield "--student names the checkpoint to start from"
        if self.loss not in LOSSES:
            yield f"loss must be {', '.join(LOSSES[:-1])} or {LOSSES[-1]}, not {self.loss!r}"
        if self.reward not in ("teacher", "answer", "reference"):
            yield f"reward must be teacher, answer or reference, not {self.reward!r}"
        if self.reward != "answer" and not self.teacher:
            yield "--teacher names the checkpoint of the teacher"
        if self.reward != "teacher" and self.loss != "opd":
            yield f"--reward {self.reward} says nothing about single tokens: give it --loss opd"
        if self.reward != "teacher" and self.samples < 2:
            yield f"--reward {self.reward} compares the answers to one problem: give --samples 2 or more"
        for name in ("samples", "rollouts", "max_new_tokens", "first_k", "steps", "eval_every", "save_every",
                     "eval_rows"):
            if getattr(self, name) < 1:
                yield f"{name} must be at least 1, not {getattr(self, name)}"
                return
        yield from super().validate()
        yield from not_negative(self, "micro_rows", "alpha", "beta", "eval_problems")
        if not 0 <= self.drop < 1:
            yield f"drop must lie in [0, 1), not {self.drop}: at 1 no answer would be left"
        world = int(os.environ.get("WORLD_SIZE", 1))
        if self.rollouts % (world * max(self.micro_rows, 1)) or self.rollouts % self.samples:
            yield (f"rollouts ({self.rollouts}) must be divisible by samples ({self.samples}) and by "
                   f"processes x micro_rows ({world} x {max(self.micro_rows, 1)})")

    def may_differ(self):
        """The options that may differ when a run is resumed (`micro_rows` may not: it says which answers are
        drawn together, from one stream of random numbers)."""
        return {"resume", "out", "eval_every", "save_every", "device"}


# ----------------------------------------------------------------------------------------------- the method

def mean_over(values, mask):
    """The mean of each answer's values over its tokens, (R, T) -> (R,)."""
    return (values * mask).sum(dim=1) / mask.sum(dim=1)


def keep_likely(teacher_logp, mask, drop):
    """Filter: which answers count, (R,) bool: those whose mean log-probability by the teacher is at or above
    the quantile `drop` of all answers of the step.

    teacher_logp: (R, T), of the targets; mask: (R, T). (The published code takes the quantile of one answer
    at a time, which drops none.)
    """
    mean_logp = mean_over(teacher_logp, mask)                                            # (R,)
    return mean_logp >= torch.quantile(mean_logp, drop)


def token_weights(teacher_entropy, student_entropy, mask, alpha=1.0, beta=1.0):
    """Reweight: w_t = (1 + alpha (1 - H_T / max H_T)) (1 + beta H_S / max H_S), divided by its mean: tokens
    where the teacher is sure, and the student is not, count more.

    teacher_entropy, student_entropy: H_T and H_S, (R, T), in nats. mask: (R, T), the tokens that count;
    maxima and mean are theirs. Returns (R, T), 0 outside the mask.
    """
    H_T, H_S = teacher_entropy * mask, student_entropy * mask                            # (R, T) each
    sure = 1 - H_T / H_T.max().clamp(min=1e-9)                                           # in [0, 1]
    unsure = H_S / H_S.max().clamp(min=1e-9)                                             # in [0, 1]
    weights = (1 + alpha * sure) * (1 + beta * unsure) * mask                            # (R, T)
    return weights / weights.sum() * mask.sum()


def policy_loss(logp, advantage):
    """The policy gradient's loss, -sum_t A_t log p_S(y_t). logp: log p_S(y_t) of n tokens, (n,), with
    gradient. advantage: A_t, (n,), without.

    On-policy distillation has A_t = -w_t (log p_S(y_t) - log p_T(y_t)). With w = 1 the expectation of the
    gradient over y_t is the gradient of KL(p_S || p_T) at this position, see `reverse_kl`.
    """
    return -(advantage * logp).sum()


def reverse_kl(student_log_probs, teacher_log_probs):
    """KL(p_S || p_T) = sum_v p_S(v) (log p_S(v) - log p_T(v)) of each token, (n, V) -> (n,)."""
    return (student_log_probs.exp() * (student_log_probs - teacher_log_probs)).sum(dim=-1)


def what_counts(loss, teacher_logp, teacher_entropy, student_entropy, mask, cfg, generator):
    """(the tokens that count, (R, T) bool; their weights, (R, T), of mean 1 over them), by --loss. All
    tensors are of the whole step; generator: of the controls' random numbers."""
    weights = mask.float()                                                               # (R, T)
    if loss in ("fire", "fire_exact", "filter", "permuted_weights"):
        mask = mask & keep_likely(teacher_logp, mask, cfg.drop).unsqueeze(1)             # (R, T)
    elif loss == "random_drop":
        draws = torch.rand(len(mask), generator=generator).to(mask.device)               # (R,)
        mask = mask & (draws >= torch.quantile(draws, cfg.drop)).unsqueeze(1)            # (R, T)
    elif loss == "entropy_half":
        mask = mask & (student_entropy >= student_entropy[mask].median())                # (R, T)
    elif loss == "first_k":
        mask = mask & (mask.cumsum(dim=1) <= cfg.first_k)                                # (R, T)
    if loss in ("fire", "fire_exact", "reweight", "permuted_weights"):
        weights = token_weights(teacher_entropy, student_entropy, mask, cfg.alpha, cfg.beta)
    if loss == "permuted_weights":
        order = torch.randperm(int(mask.sum()), generator=generator).to(mask.device)
        weights[mask] = weights[mask][order]
    return mask, weights * mask


def against_own_mean(reward, samples):
    """Each answer's reward less the mean reward of the answers to the same problem, (R,). These stand side by
    side."""
    groups = reward.view(-1, samples)                                                    # (problems, samples)
    return (groups - groups.mean(dim=1, keepdim=True)).flatten()


def entropy(log_probs):
    """In nats, (n, V) -> (n,)."""
    return -(log_probs.exp() * log_probs).sum(dim=-1)


@torch.no_grad()
def judge(student, teachers, teacher_of, ids, mask):
    """What a step wants to know of the tokens of answers: log p_S, log p_T, H_S, H_T and the reverse KL
    divergence, stacked, (r, 5, T). 0 outside the mask, and for what is a teacher's where there is none."""
    by_student = log_probs_of(student, ids, mask, student)                               # (n, V)
    judged = ids.new_zeros(5, *mask.shape, dtype=torch.float32)                          # (5, r, T)
    logp_S, logp_T, H_S, H_T, kl = judged                                                # views, (r, T) each
    logp_S[mask], H_S[mask] = at_targets(by_student, ids, mask), entropy(by_student)
    if teachers:
        by_teacher = teachers_log_probs(teachers, teacher_of, ids, mask)                 # (n, V)
        logp_T[mask], H_T[mask] = at_targets(by_teacher, ids, mask), entropy(by_teacher)
        kl[mask] = reverse_kl(by_student, by_teacher)
    return judged.transpose(0, 1)


# ------------------------------------------------------------------------------------------------- the loop

def named(teacher):
    """--teacher as (names, paths): one without a name, or NAME=CKPT of several. Raises BadInput."""
    if len(teacher) < 2:
        return ("",), teacher
    pairs = [text.partition("=") for text in teacher]
    names = tuple(name for name, equals, path in pairs if equals)
    if len(set(names)) < len(teacher):
        raise BadInput("several teachers are given as NAME=CKPT NAME=CKPT, each with a name of its own")
    return names, [path for _, _, path in pairs]


def load_student(cfg, tokenizer_sha256):
    """(the student as it starts or as it stood when the run stopped, with dropout off; that checkpoint or
    None)."""
    path, resuming = where_to_start(cfg, cfg.student)
    checkpoint = load_checkpoint(path)
    student = model_of(checkpoint, path, tokenizer_sha256, cfg.data, dropout=0.0)
    return student, checkpoint if resuming else None


def must_fit(model, path, longest, cfg):
    if longest + cfg.max_new_tokens > model.config.block_size:
        raise BadInput(f"a problem of {longest} tokens and an answer of {cfg.max_new_tokens} do not fit the "
                       f"context of {model.config.block_size} tokens of {path}: give a smaller "
                       f"--max_new_tokens, or leave out the longest problems")


def main(cfg):
    ranks = Ranks(cfg.device)
    enc = load_tokenizer(cfg.data)
    sha256, eot = tokenizer_hash(enc), enc.eot_token
    names, paths = named(cfg.teacher)
    problems = Problems(cfg.problems or os.path.join(cfg.data, "curated.jsonl"), enc, names)
    tests = Problems(cfg.test_problems or os.path.join(cfg.data, "eval.jsonl"), enc)
    student, checkpoint = load_student(cfg, sha256)
    student.to(ranks.device)
    teachers = [load_model(path, sha256, cfg.data, ranks.device)[0] for path in paths]
    must_fit(student, cfg.student, max(problems.longest, tests.longest), cfg)
    for teacher, path in zip(teachers, paths):
        must_fit(teacher, path, problems.longest, cfg)
    val, test = (Tokens(cfg.data, name, student.config.block_size) for name in ("val", "test"))
    must_have_rows(student, cfg.student, val, test)
    for model, path in zip([student, *teachers], [cfg.student, *paths]):
        tokenizer_must_fit(model, path, enc, cfg.data, problems.questions + tests.questions)
    draw_only(enc.n_vocab, student, *teachers)

    cfg.micro_rows = cfg.micro_rows or cfg.rollouts // ranks.world           # answers run together
    made_from = {"tokenizer_sha256": sha256, "student_sha256": weights_hash(cfg.student),
                 "teachers_sha256": [weights_hash(path) for path in paths],
                 "problems_sha256": [problems.sha256, tests.sha256]}
    held_out = hashes_of(val, val, test)
    made_from |= {key: value for key, value in held_out.items() if key.startswith(("val", "test"))}
    folder = RunFolder(cfg, made_from, ranks)
    if folder.finished:
        return
    optimizer = adamw(student, cfg, ranks.device)
    step, seconds, generated = 0, 0.0, 0
    if checkpoint:
        load_optimizer(optimizer, checkpoint["optimizer"])
        step, seconds, generated = (checkpoint[name] for name in ("step", "seconds", "tokens"))
    model = DistributedDataParallel(student) if ranks.world > 1 else student
    T = problems.longest + cfg.max_new_tokens - 1                            # targets of an answer at most
    r = cfg.rollouts // ranks.world                                          # answers of this process
    mine = slice(ranks.rank * r, (ranks.rank + 1) * r)                       # which of all answers they are
    parts = [slice(at, at + cfg.micro_rows) for at in range(0, r, cfg.micro_rows)]  # micro-batches of them

    folder.open_log(step)
    progress, stop, record = Progress(os.path.basename(cfg.out), cfg.steps, "steps", step), StopSignal(), None
    first_step = step
    while True:
        last, stopping = step == cfg.steps, ranks.any(stop.received)
        if stopping or last or (step % cfg.save_every == 0 and step > first_step):
            folder.save("ckpt.pt", student, val, step, optimizer=optimizer, seconds=seconds, tokens=generated)
        if stopping:
            ranks.barrier()
            raise KeyboardInterrupt
        if last or step % cfg.eval_every == 0:
            val_loss, _ = held_out_loss(student, val, ranks, cfg.eval_rows)
            folder.must_be_finite(val_loss, "val loss", step)
            test_loss, solution_loss = held_out_loss(student, test, ranks, cfg.eval_rows)
            record = {"kind": "eval", "step": step, "tokens": generated, "seconds": round(seconds, 2),
                      "val_loss": val_loss, "test_loss": test_loss, "solution_loss": solution_loss,
                      "accuracy": accuracy(student, enc, tests, cfg, ranks)}
            folder.log(record)
            progress.show(step, f"accuracy {record['accuracy']:.1%}")
        if last:
            break

        # 1. The student answers, or with --loss sft the teachers do; both judge the answers.
        start = time.time()
        drawn = draw(len(problems.prompts), cfg, step)[mine]                 # (r,) problem numbers
        teacher_of = problems.teacher_of[drawn]                              # (r,)
        authors, author_of = [student], np.zeros(r, dtype=int)
        if cfg.loss == "sft":
            authors, author_of = teachers, teacher_of
        answers, judged = [], []
        for number, part in enumerate(parts):
            prompts = [problems.prompts[i] for i in drawn[part]]
            seed = seed_of(cfg.seed, step, 1 + ranks.rank * len(parts) + number)
            with ranks.autocast():
                answers.append(roll_out(authors, author_of[part], prompts, cfg, T, eot, seed))
                judged.append(judge(student, teachers, teacher_of[part], *answers[-1]))
        ids, mask = map(torch.cat, zip(*answers))                            # (r, T + 1), (r, T)
        right = [is_right(enc, row[m].tolist(), problems.answers[i])
                 for row, m, i in zip(ids[:, 1:], mask, drawn)]

        # 2. Over the answers of all processes: filter, reweight, and what each token is worth.
        right = ranks.gather(torch.tensor(right, dtype=torch.float32, device=ranks.device))   # (R,)
        all_mask = ranks.gather(mask.float()).bool()                                          # (R, T)
        logp_S, logp_T, H_S, H_T, kl = ranks.gather(torch.cat(judged)).unbind(dim=1)          # (R, T) each
        control = torch.Generator().manual_seed(seed_of(cfg.seed, step, 0, 1))
        kept, weights = what_counts(cfg.loss, logp_T, H_T, H_S, all_mask, cfg, control)       # (R, T) each
        if cfg.loss == "sft":
            advantage = weights  # maximum likelihood is a policy gradient with A = 1
        elif cfg.reward == "teacher":
            advantage = -weights * (logp_S - logp_T)                                          # (R, T)
        else:
            reward = right if cfg.reward == "answer" else mean_over(logp_T, all_mask)         # (R,)
            advantage = weights * against_own_mean(reward, cfg.samples).unsqueeze(1)          # (R, T)

        # 3. Backward pass of each micro-batch, then the optimizer. Of a policy gradient only the gradient
        # means something: to see progress, watch reverse_kl in the log, and not the loss.
        loss, n_kept = torch.zeros((), device=ranks.device), kept.sum()
        for part in parts:
            rows = slice(mine.start + part.start, mine.start + part.stop)    # the same answers among all
            chosen = ids[part], kept[rows]                                   # (r, T + 1), (r, T)
            with ranks.sync_gradients(model, now=part is parts[-1]):
                with ranks.autocast():
                    log_probs = log_probs_of(model, *chosen, student)        # (n, V), with gradient
                    if cfg.loss in EXACT:
                        with torch.no_grad():  # once more, rather than keep (n, V) of every micro-batch
                            by_teacher = teachers_log_probs(teachers, teacher_of[part], *chosen)
                        loss_sum = (weights[rows][kept[rows]] * reverse_kl(log_probs, by_teacher)).sum()
                    else:
                        loss_sum = policy_loss(at_targets(log_probs, *chosen), advantage[rows][kept[rows]])
                (loss_sum / n_kept * ranks.world).backward()  # the processes average gradients
            loss += (loss_sum / n_kept).detach()
        grad_norm = torch.nn.utils.clip_grad_norm_(student.parameters(), cfg.grad_clip or float("inf"))
        loss = ranks.sum(loss)
        folder.must_be_finite(loss, "loss", step)
        folder.must_be_finite(grad_norm.item(), "gradient norm", step)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, cfg)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds += time.time() - start

        generated += int(all_mask.sum())
        ended = ((ids[:, 1:] == eot) & mask).any(dim=1).float()              # (r,)
        line = {"kind": "train", "step": step, "tokens": generated, "lr": learning_rate(step, cfg),
                "loss": loss, "grad_norm": grad_norm.item(),
                "kept": kept.any(dim=1).float().mean().item(),               # share of the answers
                "counting": (n_kept / all_mask.sum()).item(),                # share of their tokens
                "ended": ranks.gather(ended).mean().item(),                  # by end-of-text
                "right": right.mean().item(), "length": all_mask.sum(dim=1).float().mean().item(),
                "student_entropy": H_S[all_mask].mean().item()}
        if cfg.reward == "reference":
            line["reward"] = reward.mean().item()  # that of `answer` is right
        if teachers:
            line |= {"reverse_kl": kl[all_mask].mean().item(), "teacher_entropy": H_T[all_mask].mean().item()}
        folder.log(line)
        step += 1
        progress.show(step, f"accuracy {record['accuracy']:.1%}" if record else "")

    progress.close()
    folder.finish(student, record, record["val_loss"], step, seconds)
    if ranks.main:
        print(f"  {record['accuracy']:.1%} of the test problems right, {generated:,} tokens generated")


if __name__ == "__main__":
    run(main, Config, __doc__)
