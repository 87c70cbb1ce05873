"""
On-policy distillation: the student answers, a teacher judges each token of its answers, and the student
follows the teacher where that counts (FiRe-OPD, arXiv 2606.02684: filter the answers, reweight the tokens).

    python -m distillation.on_policy --student out/base/ckpt.pt --teacher out/ref/ckpt.pt --out out/fire
    python -m distillation.on_policy --student out/base/ckpt.pt --problems both.jsonl --out out/two \\
        --teacher add=out/add/best.pt double=out/double/best.pt     # each row of the file names its `teacher`

--loss is what a step does with the teacher's judgement:

    opd                all tokens of all answers count alike
    filter, reweight   one half of the method each; fire: both, the method
    exact_kl           the reverse KL divergence over the whole vocabulary, not only at the drawn token
    random_drop        control of the filter: as many answers dropped, any
    permuted_weights   control of the weights: the same ones, dealt out anew at random

Shapes: R answers of a step over all processes, r of this process or of one micro-batch, T targets of problem
and answer (all padded to the longest that may come), n of them that count, V vocabulary. `mask` (R, T) is
true at targets that were generated, the end-of-text token among them, and not at the problem's.
"""
import os
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from common import GRAD_CLIP, Optimisation, Run, learning_rate, not_negative, where_to_start
from corpora.tokenizers import load_tokenizer, tokenizer_hash
from data import Tokens
from distillation.rollouts import (Problems, accuracy, at_targets, draw, has_ended, is_right, log_probs_of,
                                   roll_out, seed_of, teachers_log_probs)
from engine.checkpoints import hashes_of, load_checkpoint, load_model, model_of, must_have_row
from engine.cli import BadInput, launch
from engine.files import file_hash
from engine.generation import draw_only
from engine.ranks import Ranks

LOSSES = ("fire", "opd", "filter", "reweight", "exact_kl", "random_drop", "permuted_weights")


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
    rollouts: int = 100  # answers in a step
    micro_rows: int = 0  # answers generated, and run forward, together (0: all of a process)
    max_new_tokens: int = 40        # longest answer
    drop: float = 0.2               # filter: the share of the answers to drop
    alpha: float = 1.0              # weights: how much more a token counts where the teacher is sure
    beta: float = 1.0               # weights (not AdamW's): how much more where the student is not
    steps: int = 200                # length of the run
    lr: float = 1e-3                # highest learning rate
    warmup_steps: int = 10          # linear warm-up
    weight_decay: float = 0.0       # AdamW's, on matrices only
    seed: int = 0                   # of the draw of problems and of the answers
    # evaluating: none of these changes the weights
    eval_every: int = 25            # steps between evaluations; each saves ckpt.pt too
    eval_rows: int = 128            # evaluate the losses on the first so many rows of val and of test
    eval_problems: int = 0          # evaluate the accuracy on the first so many problems (0: all)
    device: str = "auto"            # auto, cpu, cuda, cuda:1, mps

    # What common.Run asks for, and is no option here.
    batch_tokens = patience = snapshot_every = fsdp = 0

    def validate(self):
        if not self.student:
            yield "--student names the checkpoint to start from"
        if self.loss not in LOSSES:
            yield f"loss must be {', '.join(LOSSES[:-1])} or {LOSSES[-1]}, not {self.loss!r}"
        if not self.teacher:
            yield "--teacher names the checkpoint of the teacher"
        for name in ("rollouts", "max_new_tokens", "steps", "eval_every", "eval_rows"):
            if getattr(self, name) < 1:
                yield f"{name} must be at least 1, not {getattr(self, name)}"
                return
        yield from super().validate()
        yield from not_negative(self, "micro_rows", "alpha", "beta", "eval_problems")
        if not 0 <= self.drop < 1:
            yield f"drop must lie in [0, 1), not {self.drop}: at 1 no answer would be left"
        world = int(os.environ.get("WORLD_SIZE", 1))
        if self.rollouts % (world * max(self.micro_rows, 1)):
            yield (f"rollouts ({self.rollouts}) must be divisible by processes x micro_rows "
                   f"({world} x {max(self.micro_rows, 1)})")

    def may_differ(self):
        """When a run is resumed. micro_rows may not: it decides which answers share random numbers."""
        return {"resume", "out", "device"}


def mean_over(values, mask):
    """The mean of each answer's values over its tokens, (R, T) -> (R,)."""
    return (values * mask).sum(dim=1) / mask.sum(dim=1)


def keep_likely(teacher_logp, mask, drop):
    """Filter: which answers count, (R,) bool: those whose mean log-probability by the teacher, teacher_logp
    (R, T), is at or above the step's quantile `drop`. (The published code's, of one answer, drops none.)"""
    mean_logp = mean_over(teacher_logp, mask)  # (R,)
    return mean_logp >= torch.quantile(mean_logp, drop)


def token_weights(teacher_entropy, student_entropy, mask, alpha=1.0, beta=1.0):
    """Reweight: w_t = (1 + alpha (1 - H_T / max H_T)) (1 + beta H_S / max H_S), divided by its mean. All are
    (R, T); maxima and mean are those of the tokens in the mask."""
    H_T, H_S = teacher_entropy * mask, student_entropy * mask  # (R, T) each
    sure = 1 - H_T / H_T.max().clamp(min=1e-9)  # in [0, 1]
    unsure = H_S / H_S.max().clamp(min=1e-9)  # in [0, 1]
    weights = (1 + alpha * sure) * (1 + beta * unsure) * mask  # (R, T)
    return weights / weights.sum() * mask.sum()


def policy_loss(logp, advantage):
    """The policy gradient's loss, -sum_t A_t log p_S(y_t): logp (n,) with gradient, advantage (n,) without.
    With A_t = -(log p_S(y_t) - log p_T(y_t)) its gradient is in expectation that of `reverse_kl`."""
    return -(advantage * logp).sum()


def reverse_kl(student_log_probs, teacher_log_probs):
    """KL(p_S || p_T) = sum_v p_S(v) (log p_S(v) - log p_T(v)) of each token, (n, V) -> (n,)."""
    return (student_log_probs.exp() * (student_log_probs - teacher_log_probs)).sum(dim=-1)


def what_counts(loss, teacher_logp, teacher_entropy, student_entropy, mask, cfg, generator):
    """(the tokens that count, (R, T) bool; their weights, (R, T), of mean 1). generator: of the controls."""
    weights = mask.float()  # (R, T)
    if loss in ("fire", "filter", "permuted_weights"):
        mask = mask & keep_likely(teacher_logp, mask, cfg.drop).unsqueeze(1)  # (R, T)
    elif loss == "random_drop":
        draws = torch.rand(len(mask), generator=generator).to(mask.device)  # (R,)
        mask = mask & (draws >= torch.quantile(draws, cfg.drop)).unsqueeze(1)  # (R, T)
    if loss in ("fire", "reweight", "permuted_weights"):
        weights = token_weights(teacher_entropy, student_entropy, mask, cfg.alpha, cfg.beta)
    if loss == "permuted_weights":
        order = torch.randperm(int(mask.sum()), generator=generator).to(mask.device)
        weights[mask] = weights[mask][order]
    return mask, weights * mask


def entropy(log_probs):
    """(n, V) -> (n,)."""
    return -(log_probs.exp() * log_probs).sum(dim=-1)


@torch.no_grad()
def judge(student, teachers, teacher_of, ids, mask):
    """log p_S, log p_T, H_S, H_T and the reverse KL divergence of the tokens of answers, stacked, (r, 5, T).
    What is outside the mask is 0."""
    by_student = log_probs_of(student, ids, mask, student)  # (n, V)
    judged = ids.new_zeros(5, *mask.shape, dtype=torch.float32)  # (5, r, T)
    logp_S, logp_T, H_S, H_T, kl = judged  # views, (r, T) each
    logp_S[mask], H_S[mask] = at_targets(by_student, ids, mask), entropy(by_student)
    by_teacher = teachers_log_probs(teachers, teacher_of, ids, mask)  # (n, V)
    logp_T[mask], H_T[mask] = at_targets(by_teacher, ids, mask), entropy(by_teacher)
    kl[mask] = reverse_kl(by_student, by_teacher)
    return judged.transpose(0, 1)


def named(teacher):
    """--teacher as {name: path}, where one alone has no name. Raises BadInput."""
    if len(teacher) == 1:
        return {"": teacher[0]}
    paths = dict(text.split("=", 1) for text in teacher if "=" in text)
    if len(paths) < len(teacher):
        raise BadInput("several teachers are given as NAME=CKPT NAME=CKPT, each with a name of its own")
    return paths


def must_fit(model, path, enc, problems, cfg):
    """Raises BadInput where a model cannot read an answer to one of these problems."""
    longest = problems.longest + cfg.max_new_tokens
    if longest > model.config.block_size:
        raise BadInput(f"a problem and its answer, up to {longest} tokens, do not fit the context of {path}, "
                       f"{model.config.block_size}: lower --max_new_tokens, or leave out long problems")
    must_have_row(model, path, max(enc.eot_token, *map(max, problems.prompts)), enc.n_vocab, cfg.data)


def main(cfg):
    ranks = Ranks(cfg.device)
    enc = load_tokenizer(cfg.data)
    sha256 = tokenizer_hash(enc)
    teacher_paths = named(cfg.teacher)
    problems = Problems(cfg.problems or os.path.join(cfg.data, "curated.jsonl"), enc, list(teacher_paths))
    tests = Problems(cfg.test_problems or os.path.join(cfg.data, "eval.jsonl"), enc)
    path, resuming = where_to_start(cfg, cfg.student)
    checkpoint = load_checkpoint(path)
    block_size = checkpoint["model_config"]["block_size"]
    val, test = (Tokens(cfg.data, name, block_size) for name in ("val", "test"))
    student = model_of(checkpoint, path, sha256, cfg.data, val, test)
    teachers = [load_model(path, sha256, cfg.data, ranks.device)[0] for path in teacher_paths.values()]
    must_fit(student, cfg.student, enc, tests, cfg)
    for model, path in zip([student, *teachers], [cfg.student, *teacher_paths.values()]):
        must_fit(model, path, enc, problems, cfg)
    draw_only(enc.n_vocab, student, *teachers)

    cfg.micro_rows = cfg.micro_rows or cfg.rollouts // ranks.world  # answers run together
    made_from = hashes_of(cfg.student, val=val, test=test) | {
        "tokenizer_sha256": sha256, "problems_sha256": [problems.sha256, tests.sha256],
        "teachers_sha256": [file_hash(path) for path in teacher_paths.values()]}
    run = Run(cfg, ranks, (student, checkpoint if resuming else None), (val, test), made_from,
              measure=lambda: {"accuracy": accuracy(student, enc, tests, cfg, ranks)})
    model = DistributedDataParallel(student) if ranks.world > 1 else student
    T = problems.longest + cfg.max_new_tokens - 1  # targets of an answer at most
    r = cfg.rollouts // ranks.world  # answers of this process
    mine = slice(ranks.rank * r, (ranks.rank + 1) * r)  # which of all R they are
    parts = [slice(at, at + cfg.micro_rows) for at in range(0, r, cfg.micro_rows)]  # micro-batches of the r

    for step in run.steps():  # in between: evaluate, save, stop
        # 1. The student answers, and both judge the answers.
        drawn = draw(len(problems.prompts), cfg, step)[mine]  # (r,) problem numbers
        teacher_of = problems.teacher_of[drawn]  # (r,)
        answers, judged = [], []
        for number, part in enumerate(parts):
            prompts = [problems.prompts[i] for i in drawn[part]]
            seed = seed_of(cfg.seed, step, 1 + ranks.rank * len(parts) + number)
            with ranks.autocast():
                answers.append(roll_out(student, prompts, cfg, T, enc, seed))
                judged.append(judge(student, teachers, teacher_of[part], *answers[-1]))
        ids, mask = map(torch.cat, zip(*answers))  # (r, T + 1), (r, T)
        texts = [row[m].tolist() for row, m in zip(ids[:, 1:], mask)]  # the tokens of each answer
        right = [is_right(enc, tokens, problems.answers[i]) for tokens, i in zip(texts, drawn)]

        # 2. Over the answers of all processes: filter, reweight, and what each token is worth.
        right = ranks.gather(torch.tensor(right, dtype=torch.float32, device=ranks.device))  # (R,)
        all_mask = ranks.gather(mask.float()).bool()  # (R, T)
        logp_S, logp_T, H_S, H_T, kl = ranks.gather(torch.cat(judged)).unbind(dim=1)  # (R, T) each
        control = torch.Generator().manual_seed(seed_of(cfg.seed, step, 0, 1))
        kept, weights = what_counts(cfg.loss, logp_T, H_T, H_S, all_mask, cfg, control)  # (R, T) each
        advantage = -weights * (logp_S - logp_T)  # (R, T)

        # 3. Backward pass of each micro-batch, then the optimizer. Of a policy gradient only the gradient
        # means something: to see progress, watch reverse_kl in the log, and not the loss.
        loss, n_kept = torch.zeros((), device=ranks.device), kept.sum()
        for part in parts:
            count = kept[mine][part]  # (r, T) of this micro-batch
            chosen = ids[part], count
            A, w = (values[mine][part][count] for values in (advantage, weights))  # (n,) each
            with ranks.sync_gradients(model, now=part is parts[-1]):
                with ranks.autocast():
                    log_probs = log_probs_of(model, *chosen, student)  # (n, V), with gradient
                    if cfg.loss == "exact_kl":
                        with torch.no_grad():  # once more, rather than keep (n, V) of every micro-batch
                            by_teacher = teachers_log_probs(teachers, teacher_of[part], *chosen)
                        loss_sum = (w * reverse_kl(log_probs, by_teacher)).sum()
                    else:
                        loss_sum = policy_loss(at_targets(log_probs, *chosen), A)
                (loss_sum / n_kept * ranks.world).backward()  # the processes average gradients
            loss += (loss_sum / n_kept).detach()
        grad_norm = torch.nn.utils.clip_grad_norm_(student.parameters(), GRAD_CLIP).item()
        run.folder.must_be_finite(grad_norm, "gradient norm", step)
        for group in run.optimizer.param_groups:
            group["lr"] = learning_rate(step, cfg)
        run.optimizer.step()
        run.optimizer.zero_grad(set_to_none=True)

        run.tokens += int(all_mask.sum())
        ended = torch.tensor([float(has_ended(enc)(tokens)) for tokens in texts], device=ranks.device)  # (r,)
        line = {"kept": kept.any(dim=1).float().mean().item(),  # share of the answers
                "ended": ranks.gather(ended).mean().item(),  # share of them that came to an end
                "right": right.mean().item(), "length": all_mask.sum(dim=1).float().mean().item(),
                "grad_norm": grad_norm, "student_entropy": H_S[all_mask].mean().item(),
                "reverse_kl": kl[all_mask].mean().item(), "teacher_entropy": H_T[all_mask].mean().item()}
        run.log(step, loss, **line)

    if ranks.main and run.record:
        print(f"  {run.record['accuracy']:.1%} of the test problems right, {run.tokens:,} tokens generated")


if __name__ == "__main__":
    launch(main, Config, __doc__)
