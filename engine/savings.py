"""
How many times fewer tokens one run needs for the final figure of another, read off the curves of both. What
is only a lower bound is marked, and of the seeds there is a median: a mean would need all values.
"""
import numpy as np

from engine.report import MEASURES, seeds_text


def tokens_to_reach(tokens, values, goal, higher_is_better=False):
    """Tokens at which a curve gets past `goal` and stays there (linear between points), or None if it does
    not.

    'Stays' because curves are noisy at the full learning rate: a passing dip does not count.
    """
    sign = 1 if higher_is_better else -1
    lead = sign * (np.asarray(values) - goal)
    behind = np.flatnonzero(lead < 0)
    if behind.size == 0:
        return float(tokens[0])
    i = behind[-1]
    if i == len(lead) - 1:
        return None
    return float(tokens[i] + (tokens[i + 1] - tokens[i]) * -lead[i] / (lead[i + 1] - lead[i]))


def token_saving(slm, control, measure):
    """How many times fewer tokens SLM needs for the final figure of a control; both as read_run gives them.

    Returns {"times": None where SLM does not get there, "censored"}, or None where the measure was not taken
    along both runs. The goal is the control's figure at the end of its learning-rate decay, read off curves
    at the full rate: a conservative reading. The first evaluation after the start is the first point that
    counts. A run that is past the goal there may have passed it at any time before, so that SLM's saving is
    then censored, a lower bound.
    """
    goal = control["final"].get(measure)
    curves = [r["curves"].get(measure, ((), ())) for r in (slm, control)]
    if goal is None or any(len(values) < 2 for _, values in curves):
        return None
    firsts = [next(t for t in tokens if t > 0) for tokens, _ in curves]
    slm_at, control_at = (tokens_to_reach(*curve, goal, MEASURES[measure].better > 0) for curve in curves)
    if slm_at is None:
        return {"times": None, "censored": False}
    return {"times": max(control_at, firsts[1]) / max(slm_at, firsts[0]), "censored": slm_at <= firsts[0]}


def saving_text(savings):
    """The savings of the seeds as text: '2.3x (1.6 to 3.3)', the median and the range. A seed that does not
    get there counts as the lowest; '&ge;' marks what is a lower bound."""
    savings = [s for s in savings if s]
    if not savings:
        return ""
    reached = sorted((s["times"], s["censored"]) for s in savings if s["times"] is not None)
    n, n_missed = len(savings), len(savings) - len(reached)
    if not reached:
        return "not reached"
    if 2 * n_missed >= n:
        return f"reached in {len(reached)} of {seeds_text(n)}"
    middle = [reached[i - n_missed] for i in ((n - 1) // 2, n // 2)]  # the one or two in the middle
    median = (middle[0][0] + middle[1][0]) / 2
    # A censored value may be anything above what it says, so that the median may be too.
    at_least = "&ge; " if any(censored for times, censored in reached if times <= middle[1][0]) else ""
    if n == 1:
        return f"{at_least}{median:.1f}x"
    lowest = "not reached" if n_missed else f"{reached[0][0]:.1f}"
    highest = f"{'&ge; ' if reached[-1][1] else ''}{reached[-1][0]:.1f}"
    return f"{at_least}{median:.1f}x ({lowest} to {highest})"
