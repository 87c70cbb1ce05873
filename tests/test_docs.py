"""The README and the pages in docs/: their numbers are those of results/, their links and commands exist."""
import dataclasses
import glob
import importlib
import importlib.util
import json
import os
import re
import shlex
import statistics
import subprocess

import pytest

import plot
from bench import step
from engine.report import cell, paired_interval
from extras import against_reference, distill_table, steady
from extras import map as slm_map
from helpers import FIRST_SET_UP_ONLY
from paper import plot_paper

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PAGES = ["README.md", *sorted(glob.glob("docs/*.md", root_dir=ROOT))]
SHOWN = ("accuracy_0", "accuracy", "masked", "masked_solution", "masked_result")  # in the tables of docs/results.md
FOLDERS = ["bench", "corpora", "docs", "engine", "extras", "grading", "paper", "results", "runs", "tests"]


def text(*path):
    with open(os.path.join(ROOT, *path), encoding="utf-8") as f:
        return f.read()


def words(*path):
    """The text with every run of white space as one space, so that figures are found across line breaks."""
    return " ".join(text(*path).split())


# ------------------------------------------------------------------------------ figures are those of results/

def results_of(setting):
    return json.loads(text("results", setting, "results.json"))


def test_the_results_page_shows_the_committed_results():
    """Its tables are what plot.py, extras/map.py and extras/against_reference.py make of the files in results/, and so
    are the differences in its text."""
    page, page_words = text("docs", "results.md"), words("docs", "results.md")
    for setting in ("demo", "crawl", "crawl_three", "crawl_lower_three", "crawl_eight", "hard"):
        assert text("results", setting, "table.md") == plot.table(results_of(setting))
    for setting in ("demo", "crawl_eight", "hard"):
        tables, *cost = plot.table(results_of(setting), SHOWN).strip().split("\n\nCost (mean over seeds):\n\n")
        assert tables in page and (setting != "demo" or cost[0].strip() in page)
    eight = plot.pool([os.path.join(ROOT, "results", name) for name in ("crawl", "crawl_three")])
    assert {**eight, "pooled": ["results/crawl", "results/crawl_three"]} == results_of("crawl_eight")
    more = results_of("crawl_more")
    assert text("results", "crawl_more", "table.md") == plot.table(more)
    assert plot.table(more, SHOWN).split("\n\nSLM less the arm")[0] in page
    for arm in ("clm_mixed", "labels"):
        v = more["slm_minus"][arm]["accuracy_0"]
        assert f"{100 * v['low']:.1f} to {100 * v['high']:.1f}" in page_words, arm
    lower = results_of("crawl_lower")
    assert text("results", "crawl_lower", "table.md") == plot.table(lower)
    for arm in ("clm_long", "distill", "distill_tuned"):
        assert points(lower["slm_minus"][arm]["accuracy_0"]) in page_words, arm
    rows = results_of("map")
    assert slm_map.table(rows).strip() in page and text("results", "map", "table.md") == slm_map.table(rows)
    cells = [os.path.join(ROOT, "results", name)
             for name in ("keep", "demo", "crawl_eight", "wide", "hard", "school", "posts")]
    assert slm_map.collect(cells, ["demo", "demo 0.3", "crawl", "wide", "hard", "school", "posts"]) == rows
    for setting in ("demo", "hard", "useful"):
        assert against_reference.table(results_of(f"mechanism/{setting}")).strip() in page
    for setting, arms in (("demo", ("clm", "distill", "distill_tuned", "clm_tuned", "clm_mixed_tuned")),
                          ("crawl", ("clm", "distill")),
                          ("crawl_eight", ("clm", "distill", "documents", "ref", "clm_tuned", "distill_tuned"))):
        for arm in arms:
            assert points(results_of(setting)["slm_minus"][arm]["accuracy_0"]) in page_words, arm
    less = results_of("crawl_eight")["slm_minus"]
    for arm in ("clm", "distill", "documents", "ref"):  # what the page says of every control
        assert less[arm]["accuracy_0"]["low"] > 0 > less[arm]["masked_solution"]["high"]
        assert three_digits(less[arm]["masked_solution"]) in page_words


def points(v):
    """A difference in points: '5.8 (1.0 to 10.6)'."""
    return f"{100 * v['mean']:.1f} ({100 * v['low']:.1f} to {100 * v['high']:.1f})"


def final(results, arm, measure):
    """{seed: the last value of this measure}."""
    return {seed: run["final"][measure] for seed, run in results["arms"][arm]["seeds"].items()}


def paired(a, b):
    """The interval of a less b, both {seed: value}, over the seeds of b."""
    return paired_interval([(a[seed], b[seed]) for seed in sorted(b)])


def three_digits(v):
    return f"{v['mean']:.3f} ({v['low']:.3f} to {v['high']:.3f})"


def test_the_results_page_shows_what_is_selected():
    selection = json.loads(text("results", "demo", "results.json"))["arms"]["slm"]["selection"]
    page = words("docs", "results.md")

    def first_and_last(name):
        return [f"{selection[name][i]:.0%}" for i in (0, -1)]
    assert "{} and later {} are useful (*precision*)".format(*first_and_last("precision")) in page
    assert "it selects {} and later {} (*recall*".format(*first_and_last("recall")) in page
    assert "{} and later {} of the irrelevant text".format(*first_and_last("selected_irrelevant")) in page
    assert "selected most ({} and later {})".format(*first_and_last("selected_result")) in page
    assert "labelled wrong it selects {} and later {}".format(*first_and_last("selected_wrong")) in page
    noise = first_and_last("selected_noise")
    assert "{} of the noise is selected, in the last {}".format(*noise) in page
    loss = [f"{selection['unselected_loss'][i]:.1f}" for i in (0, -1)]
    assert "the loss on unselected tokens goes from {} to {}".format(*loss) in page


def test_the_real_text_page_shows_the_committed_results():
    real = json.loads(text("results", "real", "results.json"))
    page = text("docs", "real_text.md")
    names = {"ref": "reference model alone", "clm": "CLM", "slm": "SLM", "random": "random tokens",
             "clm_mixed": "CLM on noisy + curated", "clm_curated": "CLM on curated alone"}
    assert len(real["seeds"]) == 3 and set(real["arms"]) == set(names)

    def cell(v):
        return f"{v['mean']:.3f} ({v['low']:.3f} to {v['high']:.3f})" if v else ""
    for arm, name in names.items():
        less = real["slm_minus"].get(arm, {}).get("test_loss")
        row = f"| {name} | {cell(real['arms'][arm]['final']['test_loss'])} | {cell(less)}".rstrip() + " |"
        assert row in page
    in_words = " ".join(page.split())
    times = [saving["times"] for saving in real["token_saving"]["clm"]["test_loss"]]
    low, middle, high = (f"{t:.1f}" for t in sorted(times))
    assert f"{middle} times fewer tokens (median of the seeds; {low} to {high})" in in_words
    less = {arm: real["slm_minus"][arm]["test_loss"]["mean"] for arm in ("clm_mixed", "clm_curated")}
    assert f"gives {less['clm_mixed']:.3f} less loss than SLM" in in_words
    assert f"for as many tokens {less['clm_curated']:.3f} less" in in_words


def without_signs(v):
    """A difference whose interval excludes 0, as text that says which is the lower."""
    low, high = sorted((abs(v["low"]), abs(v["high"])))
    return f"{abs(v['mean']):.3f} ({low:.3f} to {high:.3f})"


def test_the_real_text_page_shows_the_problems_in_school_books():
    school, once = results_of("school"), json.loads(text("results", "school", "mixed_once.json"))
    assert text("results", "school", "table.md") == plot.table(school)
    shown = plot.table(school, ("masked", "masked_solution", "test_loss")).split("\n\nCost (mean over seeds):")[0]
    assert shown in text("docs", "real_text.md")
    page = words("docs", "real_text.md")

    for arm, v in school["slm_minus"].items():
        assert arm == "distill_tuned" or without_signs(v["masked"]) in page, arm
    assert f"fine-tuned SLM was {without_signs(once['slm_minus']['clm_mixed_tuned']['masked'])} *ahead*" in page
    for arm in ("clm", "clm_mixed_tuned"):
        assert without_signs(school["slm_minus"][arm]["masked"]) in words("README.md"), arm


def test_the_real_text_page_shows_a_newsgroup_among_twenty():
    posts = results_of("posts")
    assert text("results", "posts", "table.md") == plot.table(posts)
    shown = plot.table(posts, ("masked", "test_loss")).split("\n\nCost (mean over seeds):")[0]
    assert shown in text("docs", "real_text.md")
    page, readme = words("docs", "real_text.md"), words("README.md")
    for arm in ("ref", "clm", "clm_mixed", "documents", "documents_excess", "distill", "random", "clm_tuned",
                "clm_mixed_tuned", "distill_tuned"):
        assert without_signs(posts["slm_minus"][arm]["masked"]) in page, arm
    for arm in ("clm", "clm_mixed_tuned"):
        assert without_signs(posts["slm_minus"][arm]["masked"]) in readme, arm
    assert without_signs(slm_map.compare(posts, "the curated text too", "masked")["difference"]) in page

    def shares(arm):
        curves = [posts["arms"][arm]["selection"][f"selected_{label}"] for label in ("solution", "question")]
        known = [[share for share in curve if share is not None] for curve in curves]
        return "{:.0f}% and {:.0f}%".format(*(100 * sum(curve) / len(curve) for curve in known))
    ours = shares("slm").replace(" and ", " of their tokens and ")
    assert (f"SLM selects {ours} of the others', documents of lowest loss {shares('documents')}, those of highest "
            f"excess {shares('documents_excess')}.") in page


def test_the_evaluation_page_shows_the_committed_results():
    """Figures of `bash runs/gsm8k.sh` and `python -m bench.generation`, from the files they wrote."""
    [s] = [json.loads(line) for line in text("results", "gsm8k", "summary.jsonl").splitlines()]
    speed = json.loads(text("results", "speed", "generation.json"))
    page, k = words("docs", "evaluation.md"), s["samples"]
    interval = f"(95% interval {s['low']:.1%} to {s['high']:.1%})"
    for figure in (f"{s['correct']} of {s['total']:,} = {s['accuracy']:.1%} {interval}",
                   f'always answering "5" gets {s["same_guess"]:.1%}', f"{k} samples ({s['majority']:.1%})",
                   f"of the {k} is right for {s['pass_at_k'][str(k)]:.1%}",
                   f"right solutions, {s['solution_loss']:.3f},", f"**{speed['ratio']:.0f} times**",
                   f"{speed['questions_per_s']:.2f} questions a second",
                   f"against {speed['naive_questions_per_s']:.5f} when"):
        assert figure in page, figure
    assert f"{speed['ratio']:.0f} times as many questions a second" in words("docs", "speed.md")
    assert speed["same_tokens"] == 1


def test_the_speed_page_shows_the_comparison_with_transformers():
    page = text("docs", "speed.md")
    for size, r in json.loads(text("results", "speed", "against_transformers.json"))["batch_sizes"].items():
        ours, theirs = r["ours_questions_per_s"], r["transformers_questions_per_s"]
        assert f"| {size} | {ours:.3f} | {theirs:.3f} | {r['ratio']:.2f} | {r['same_tokens']:.0%} |" in page


def test_the_speed_page_shows_what_was_measured_on_a_gpu():
    page = text("docs", "speed.md")
    scoring = json.loads(text("results", "gpu", "scoring", "gpt2.json"))
    assert step.table(scoring).strip() in page and "H100" in scoring["device"]
    assert 1e9 / scoring["passes"]["score"]["tokens_per_s"] / 60 == pytest.approx(20, abs=0.5)
    r = json.loads(text("results", "gpu", "generation", "generation.json"))
    assert (f"{r['questions_per_s']:.0f} questions a second, 256 at a time, nanoGPT's way "
            f"{r['naive_questions_per_s']:.2f}, so {r['ratio']:.0f} times") in words("docs", "speed.md")
    assert f"{r['same_tokens']:.0%} of the new tokens are the same" in words("docs", "speed.md")


def test_the_results_page_shows_llamas_architecture():
    page, results, seed5 = text("docs", "results.md"), results_of("llama"), results_of("llama_seed5")
    assert plot.table(results, SHOWN).split("\n\nSLM less the arm")[0] in page
    for setting, found in (("llama", results), ("llama_seed5", seed5)):
        assert text("results", setting, "table.md") == plot.table(found)
    said, less = words("docs", "results.md"), results["slm_minus"]
    assert points(less["distill"]["accuracy_0"]) in said and points(less["clm"]["accuracy_0"]) in said
    assert three_digits(less["distill"]["masked_result"]) in said
    for arm in ("slm", "clm", "distill"):
        ends = [run["final"]["accuracy_0"] for run in results["arms"][arm]["seeds"].values()]
        assert ", ".join(f"{100 * end:.1f}" for end in ends) in said.replace("%", ""), arm
    ours, gpt2 = (final(found, "slm", "accuracy_0") for found in (results, results_of("crawl_more")))
    assert points(paired(ours, gpt2)).replace(" (", " points (") in said
    at_seed5 = [f"{100 * seed5['arms'][arm]['final']['accuracy_0']['mean']:.1f}"
                for arm in ("slm", "clm", "clm_mixed", "distill")]
    for page_words in (said, words("docs", "log.md")):
        assert "SLM then answers {}%, CLM {}, the mixture {}, distillation {}".format(*at_seed5) in page_words or (
            "SLM answers {}%, CLM {}, the mixture {}, distillation {}".format(*at_seed5) in page_words)


def test_the_results_page_shows_the_demo_at_another_keep():
    page, said = text("docs", "results.md"), words("docs", "results.md")
    keep, at_30, fast = map(results_of, ("keep", "keep_0.3", "keep_fast"))
    for setting, found in (("keep", keep), ("keep_0.3", at_30), ("keep_fast", fast)):
        assert text("results", setting, "table.md") == plot.table(found)
    assert plot.table(keep, SHOWN).strip().split("\n\nCost (mean over seeds):")[0] in page
    for arm in ("clm", "clm_tuned", "low_ref", "clm_mixed"):
        assert points(keep["slm_minus"][arm]["accuracy_0"]).split(" (")[1] in said, arm
    assert points(fast["slm_minus"]["clm"]["accuracy_0"]) in said
    assert final(keep, "slm", "accuracy_0") == final(fast, "slm", "accuracy_0")
    assert points(paired(final(keep, "slm", "accuracy_0"), final(at_30, "slm", "accuracy_0"))) in said
    for measure in ("masked", "masked_solution"):
        ours, theirs = final(keep, "slm", measure), final(at_30, "slm", measure)
        assert three_digits(paired(ours, theirs)) in said and all(ours[seed] < theirs[seed] for seed in ours)
    less = points(paired(final(at_30, "slm", "accuracy_0"), final(keep, "clm", "accuracy_0")))
    assert f"SLM at 0.3 less CLM is {less}" in said
    assert points(paired(final(keep, "low_ref", "accuracy_0"), final(keep, "clm", "accuracy_0"))) in said
    assert points(paired(final(keep, "clm", "accuracy_0"), final(fast, "clm", "accuracy_0"))) in said
    again = [100 * statistics.mean(final(results, "clm", "accuracy_0")[f"seed{seed}"] for seed in (6, 7, 8, 9))
             for results in (results_of("demo"), fast)]
    assert "had {:.1f}% on another processor, where it has {:.1f} here".format(*again) in said
    filtered, clm = (final(keep, arm, "masked") for arm in ("low_ref", "clm"))
    assert three_digits(paired(filtered, clm)) in said and all(filtered[seed] < clm[seed] for seed in clm)
    ours, theirs = (final(keep, arm, "accuracy_0") for arm in ("slm", "clm"))
    assert all(ours[seed] > theirs[seed] for seed in ours)
    spread = [100 * statistics.stdev(values.values()) for values in (ours, theirs)]
    assert "standard deviations of {:.1f} and {:.1f} points".format(*spread) in said
    for results, shares in ((keep, "{:.0f}% of the useful tokens, {:.0f}% of the irrelevant and {:.0f}% of the noise"),
                            (at_30, "at 0.3 it is {:.0f}, {:.0f} and {:.1f}%")):
        selection = results["arms"]["slm"]["selection"]
        names = ("recall", "selected_irrelevant", "selected_noise")
        assert shares.format(*(100 * selection[name][-1] for name in names)) in said


def test_the_pages_show_clm_at_a_quarter_of_its_rate():
    slow, said = results_of("crawl_slow"), words("docs", "results.md")
    assert text("results", "crawl_slow", "table.md") == plot.table(slow)
    accuracies = final(slow, "clm", "accuracy_0")
    assert list(accuracies) == ["seed0", "seed1", "seed2", "seed6"]
    assert ", ".join(f"{100 * value:.1f}" for value in accuracies.values()) + "%" in said
    assert three_digits(slow["slm_minus"]["clm"]["masked"]) in said
    less = points(slow["slm_minus"]["clm"]["accuracy_0"])
    assert f"{less} points ahead" in said and f"{less} at a quarter (four)" in words("README.md")


def test_the_results_page_shows_the_wider_models():
    page, said, wide = text("docs", "results.md"), words("docs", "results.md"), results_of("wide")
    assert plot.table(wide, SHOWN).split("\n\nSLM less the arm")[0] in page
    assert text("results", "wide", "table.md") == plot.table(wide)
    for arm in ("clm", "documents", "ref", "distill"):
        assert points(wide["slm_minus"][arm]["accuracy_0"]) in said, arm
    assert points(wide["slm_minus"]["clm"]["accuracy"]) in said
    assert points(wide["slm_minus"]["clm"]["accuracy_0"]) in words("README.md")
    for arm in ("slm", "clm"):
        accuracies = [run["final"]["accuracy_0"] for run in wide["arms"][arm]["seeds"].values()]
        assert ", ".join(f"{100 * accuracy:.1f}" for accuracy in accuracies) in said.replace("%", ""), arm
    small = results_of("crawl_lower")  # the same seeds and references, models of the usual size

    def lead(results, measure):
        theirs = final(results, "clm", measure)
        return {seed: ours - theirs[seed] for seed, ours in final(results, "slm", measure).items()}
    for page_words in (said, words("README.md")):
        assert points(paired(final(small, "slm", "accuracy_0"), final(small, "clm", "accuracy_0"))) in (
            page_words.replace(" points", ""))
    change = paired(lead(wide, "accuracy_0"), lead(small, "accuracy_0"))
    assert f"the change is {points(change)}" in said
    change = paired(lead(wide, "masked_result"), lead(small, "masked_result"))
    assert "({mean:.3f}, {low:.3f} to {high:.3f})".format(**change) in said
    gain = {arm: points(paired(final(wide, arm, "accuracy_0"), final(small, arm, "accuracy_0")))
            for arm in ("clm", "distill")}
    assert f"CLM gains {gain['clm']} points" in said
    assert f"gains nothing** ({gain['distill'].replace(' (', ', ')}" in said
    rates = json.loads(text("results", "wide", "rates.json"))
    chosen = {arm: min(losses, key=lambda lr: losses[lr]["val_loss"]) for arm, losses in rates["seed 5"].items()}
    assert chosen == {"slm": "5e-4", "clm": "1e-3", "distill": "1e-3"}
    for seed, most in (("seed 0", 0.002), ("seed 1", 0.002), ("seed 2", 0.002), ("seed 5", 0.006)):
        both = [rates[seed]["slm"][lr]["test_loss"] for lr in ("1e-3", "5e-4")]
        assert round(abs(both[0] - both[1]), 4) <= most
    row = [f"{100 * wide['arms'][arm]['final']['accuracy_0']['mean']:.1f}"
           for arm in ("slm", "clm", "distill", "documents", "ref")]
    assert "| " + " | ".join(row) + " |" in text("README.md")


def test_the_real_models_page_shows_the_losses_of_smollm2():
    page = text("docs", "real_models.md")
    for v in json.loads(text("results", "smollm2", "losses.json"))["loss"].values():
        less = v["after"] - v["before"]
        assert f"| {v['tokens']:,} | {v['before']:.3f} | {v['after']:.3f} | {less:+.3f} |" in page


# The tables of docs/speed.md are those of the code before 2026-11-24, in its format: results/speed/ is to be
# measured anew, and then bench/step.py makes the tables.
SHAPES = ("gpt2", "vocab", "demo")
STEPS = ("clm_nanogpt", "clm", "slm_naive_0.6", "slm_0.6", "slm_0.3", "slm_0.6_filtered", "slm_0.3_filtered")


def speed_table(result):
    lines = ["| | ms (quartiles) | tokens/s | time, ratio (quartiles) | peak memory, MB | ratio | MFU |",
             "|---|---|---|---|---|---|---|"]
    for name, r in result["steps"].items():
        low, high = (q * 1e3 for q in r["seconds_quartiles"])
        ratio_low, ratio_high = r["ratio_quartiles"]
        memory = f"{r['memory'] / 2**20:,.0f} | {r['memory_ratio']:.2f}" if "memory" in r else " | "
        mfu = f"{r['mfu']:.0%}" if "mfu" in r else ""
        time = f"{r['seconds'] * 1e3:,.1f} ({low:,.1f} to {high:,.1f})"
        ratio = f"{r['ratio']:.3f} ({ratio_low:.3f} to {ratio_high:.3f})"
        lines.append(f"| {name} | {time} | {r['tokens_per_s']:,.0f} | {ratio} | {memory} | {mfu} |")
    return "\n".join(lines)


def test_the_speed_page_shows_steps_of_one_and_of_eight_micro_batches():
    page = text("docs", "speed.md")
    for name in ("one_micro_batch", "eight_micro_batches"):
        assert step.table(json.loads(text("results", "speed", f"{name}.json"))).strip() in page, name


def test_the_speed_page_shows_the_committed_results():
    """The tables of `python -m bench.step`, and what --filter_backward does to the losses."""
    page = text("docs", "speed.md")
    for part in SHAPES:
        result = json.loads(text("results", "speed", f"{part}.json"))
        assert set(result["steps"]) == {*STEPS, "forward", "score"} and speed_table(result) in page, part
    arms = json.loads(text("results", "speed", "filter_backward.json"))
    for measure in ("test_loss", "solution_loss"):
        for arm in ("slm", "slm_filtered"):
            assert f"{arms[arm][measure]['mean']:.4f}" in page


def test_the_reading_group_shows_the_committed_results():
    """Its table of claims is what paper/plot_paper.py makes of results/paper/results.json, and so are the
    figures in its text."""
    results = json.loads(text("results", "paper", "results.json"))
    guide = text("docs", "reading_group.md")
    claims, table = plot_paper.claims(results), plot_paper.table(results)
    assert "beats random tokens" in claims and claims.count("\n") > 15
    assert claims in guide and text("results", "paper", "table.md") == claims + "\n" + table
    assert set(results["arms"]) == {*plot_paper.ARMS, *plot_paper.REFERENCES} - FIRST_SET_UP_ONLY
    assert results["dynamics"]["n_seeds"] == 3
    assert all(arm["masked"]["n"] == arm["accuracy_0"]["n"] == 3 for arm in results["arms"].values())
    first = text("results", "paper_first", "table.md")  # the arms of one section were run in the first set-up only
    before, later = guide.replace(claims, "").split("## What the paper leaves for later")
    later, after = later.split("## The text itself")
    for part, known in ((before, claims + table), (later, claims + table + first), (after, claims + table)):
        numbers = set(re.findall(r"\d+\.\d+%?", known))
        assert set(own_numbers(part)) <= numbers, set(own_numbers(part)) - numbers


def own_numbers(page):
    """The decimal numbers of the reading group's guide that are not the paper's or an exercise's."""
    theirs = re.compile(r"#|\*(The paper|Exercise|Question)")
    ours = "\n\n".join(p for p in page.split("\n\n") if not theirs.match(p))
    ours = re.sub(r"\]\([^)]*\)|```.*?```", "", ours, flags=re.S)
    # Differences of shares are points in the text: "10.4 points", "1.6 to 19.2 points".
    ours = re.sub(r"(\d+\.\d+)\s+to\s+(\d+\.\d+)\s+points", r"\1% to \2%", ours)
    ours = re.sub(r"(\d+\.\d+)\s+points", r"\1%", ours)
    return re.findall(r"(?<![\w./])\d+\.\d+%?(?![\w.]*M)", ours)


# ---------------------------------------------------------------------------- links, commands, names of files

def slug(heading):
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_links_and_pictures_lead_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text(page), flags=re.S))
    assert links
    for link in links:
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        path = os.path.normpath(os.path.join(os.path.dirname(page), path)) if path else page
        assert os.path.exists(os.path.join(ROOT, path)), f"{page}: {link}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text(path), flags=re.S), re.M)
            assert anchor in map(slug, headings), f"{page}: {link}"


COMMAND = re.compile(r"(?:^|\s)(?:python3?(?: -m)?|torchrun\s.*?|bash) "
                     r"([\w./-]+\.(?:py|sh)|[a-z]\w*(?:\.\w+)*)(\s.*)?$")


def commands(page):
    """[(module or script, rest of the command)] of each python, torchrun and bash command of a page."""
    joined = re.sub(r"\\\n\s*", " ", text(page))
    code = re.findall(r"```sh\n(.*?)```", joined, re.S)
    code += re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", joined, flags=re.S))
    found = []
    for line in "\n".join(code).splitlines():
        for part in re.split(r"&&|;|\|", line.split(" #")[0]):
            match = COMMAND.search(part)
            if match:
                found.append((match[1], match[2] or ""))
    return found


def file_of(name):
    """The file of ours that a script's name or a module's name means."""
    path = name if name.endswith((".py", ".sh")) else name.replace(".", "/") + ".py"
    return path if os.path.isfile(os.path.join(ROOT, path)) else None


@pytest.mark.parametrize("page", PAGES)
def test_commands_exist(page):
    """Every script and module that a page runs is there, and has the options that the page gives it."""
    for name, rest in commands(page):
        path = file_of(name)
        if path is None:
            ours = name.endswith((".py", ".sh")) or name.split(".")[0] in FOLDERS
            assert not ours and importlib.util.find_spec(name.split(".")[0]), f"{page}: {name}"
            continue
        module = importlib.import_module(path[:-3].replace("/", ".")) if path.endswith(".py") else None
        config = getattr(module, "Config", None)
        if config:
            options = {f.name for f in dataclasses.fields(config)}
            used = {word[2:].partition("=")[0] for word in shlex.split(rest) if re.match(r"--\w", word)}
            for option in used:
                there = option in options or option.removeprefix("no-") in options
                assert there, f"{page}: {name} has no --{option}"


def test_commands_are_found():
    """The instrument itself: commands are seen in code and prose, on several lines and after torchrun."""
    found = dict(commands("docs/your_data.md") + commands("docs/real_models.md"))
    scripts = {"prepare.py", "score.py", "train_ref.py", "train_slm.py", "runs/gpt2_math.sh"}
    assert scripts | {"extras.highlight", "extras.export"} <= set(found)
    assert "train_tokens" in found["train_ref.py"]
    assert file_of("extras.highlight") == "extras/highlight.py" and file_of("highlight.py") is None
    assert slug("The model of the demo, 8 x 192 tokens a step, one thread") == (
        "the-model-of-the-demo-8-x-192-tokens-a-step-one-thread")


@pytest.mark.parametrize("page", PAGES)
def test_no_page_names_a_file_that_is_gone(page):
    """Names of Python files, shell scripts and pages, and all that begins with one of our folders. The first
    column of the log's table of what moved is of names that are gone."""
    page_text = text(page)
    if page == "docs/log.md":
        page_text = re.sub(r"^\|[^|]*\|", "|", page_text, flags=re.M)
    names = re.findall(r"(?<![\w./-])[\w./-]+\.(?:py|sh|md)\b", re.sub(r"\]\([^)]*\)", "", page_text))
    names += re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]*)`", page_text)
    for name in names:
        if not re.match(r"\.|data/|out/|https?|results/gpu/", name):  # runs/gpu.sh writes results/gpu/
            assert os.path.exists(os.path.join(ROOT, name)), f"{page}: {name}"


@pytest.mark.parametrize("page", PAGES)
def test_pages_use_todays_words(page):
    page_text = text(page)
    if page == "docs/log.md":  # but for the entry that says what they replace
        page_text = re.sub(r"^## 2026-11-24.*?(?=^## )", "", page_text, flags=re.M | re.S)
    gone = r"target loss|\bdev loss|\bkept tokens|tokens kept|--rank_rows|--pad_vocab"
    assert not re.search(gone, page_text)


def test_the_log_shows_how_steady_the_instrument_is():
    log = text("docs", "log.md")
    results, table = json.loads(text("results", "steady", "results.json")), text("results", "steady", "table.md")
    assert steady.table(results) == table and table.strip() in log
    results = json.loads(text("results", "steady", "two_stages.json"))  # of the recipe before
    for c in results["cells"]:
        name = {"second": "two stages", "tuned": "fine-tuning"}[c["stage"]]
        assert f"| {c['arm']} | {c['lr']:g} | {name} | 3 | " in log
    tuned = {c["arm"]: c["seeds"] for c in results["cells"] if c["stage"] == "tuned"}
    for arm, seed, accuracy in (("clm", 1, 46), ("clm_mixed", 2, 83), ("slm", 0, 63), ("slm_warm", 1, 67)):
        worst = min(tuned[arm], key=lambda s: tuned[arm][s]["accuracy_2"])
        assert worst == f"seed{seed}" and round(100 * tuned[arm][worst]["accuracy_2"]) == accuracy
        others = [100 * r["accuracy_2"] for s, r in tuned[arm].items() if s != worst]
        assert 94 <= min(others) and max(others) < 99.5


def test_the_readme_shows_the_methods_code_as_it_is():
    """The dozen lines of the README stand in train_slm.py, and the size of the diff that it names is the diff's."""
    readme, script = text("README.md"), text("train_slm.py")
    block = readme.split("In `train_slm.py` it reads\n\n```python\n")[1].split("```")[0]
    assert block.strip() in script
    paths = [os.path.join(ROOT, name) for name in ("train_ref.py", "train_slm.py")]
    diff = subprocess.run(["diff", *paths], capture_output=True, text=True).stdout
    changed = [line for line in diff.splitlines() if line[:1] in "<>"]
    assert f"{len(changed)} changed lines in all" in readme


def test_the_readme_is_a_door():
    readme = text("README.md")
    assert readme.count("\n") <= 250 and len(readme) <= 17_000


def test_the_readmes_results_are_the_committed_ones():
    """Its table, and the differences in its text, from results/keep, results/crawl_eight, results/hard and others."""
    crawl, demo, hard, readme = (*map(results_of, ("crawl_eight", "keep", "hard")), words("README.md"))

    def row(results, ending=""):
        cells = []
        for name in ("slm", "clm", "distill", "documents", "ref", "clm_mixed"):
            arm = results["arms"].get(name + ending)
            shown = arm and len(arm["seeds"]) > 2
            cells.append(f"{100 * arm['final']['accuracy_0']['mean']:.1f}" if shown else "")
        return " ".join(f"| {' | '.join(cells)} |".split())
    for results, ending in ((crawl, ""), (crawl, "_tuned"), (demo, ""), (demo, "_tuned"), (hard, "")):
        assert row(results, ending) in readme, (results["seeds"], ending)
    for results, arms in ((crawl, ("clm", "distill", "distill_tuned")), (demo, ("clm", "low_ref", "clm_tuned")),
                          (results_of("demo"), ("clm", "distill"))):  # the last at keep 0.3
        for arm in arms:
            assert points(results["slm_minus"][arm]["accuracy_0"]) in readme, arm
    assert points(results_of("crawl")["slm_minus"]["distill"]["accuracy_0"]) in readme  # of the first five seeds
    llama = results_of("llama")["arms"]
    ends = [100 * llama[arm]["final"]["accuracy_0"]["mean"] for arm in ("slm", "clm", "distill")]
    assert "Llama's architecture: SLM {:.1f}%, CLM {:.1f}, distillation {:.1f}.".format(*ends) in readme
    at_seed5 = results_of("llama_seed5")["arms"]["slm"]["final"]["accuracy_0"]["mean"]
    assert f"On seed 5, whose start failed, SLM has {100 * at_seed5:.1f}." in readme
    less = hard["slm_minus"]["clm"]
    assert points(less["accuracy_0"]) in readme
    assert "{mean:.3f} higher ({low:.3f} to {high:.3f})".format(**less["masked"]) in readme
    assert "calibrated " + three_digits(less["calibrated"]) in readme
    for arm in ("slm", "clm", "distill"):
        assert f"{100 * crawl['arms'][arm]['final']['accuracy_0']['mean']:.1f}%" in readme, arm
    more, lower = (results_of(name)["arms"] for name in ("crawl_more", "crawl_lower"))
    again = [100 * arm["final"]["accuracy_0"]["mean"]
             for arm in (more["slm"], lower["clm_long"], more["clm_mixed"], more["labels"])]
    assert more["clm_long"]["final"]["accuracy_0"]["mean"] < lower["clm_long"]["final"]["accuracy_0"]["mean"]
    assert ("SLM {:.1f}%; CLM with SLM's whole budget {:.1f} at the better of two rates; the mixture {:.1f}; all useful "
            "tokens, by true label, {:.1f}.".format(*again)) in readme


def test_the_pages_show_clm_at_half_its_rate_on_six_seeds():
    """SLM less CLM at 1e-2, both on one processor: seeds 0 to 2, and 6 to 8."""
    runs = [[results_of(name)["arms"][arm]["seeds"] for name, arm in pair] for pair in (
        (("crawl_more", "slm"), ("crawl_lower", "clm")), (("crawl_three", "slm"), ("crawl_lower_three", "clm")))]
    less = {m: paired_interval([(slm[seed]["final"][m], run["final"][m]) for slm, clm in runs
                                for seed, run in clm.items()]) for m in ("accuracy_0", "masked_solution")}
    assert less["accuracy_0"]["n"] == 6
    for page in ("README.md", "docs/results.md"):
        assert points(less["accuracy_0"]) in words(page)
    page = words("docs", "results.md")
    assert three_digits(less["masked_solution"]) in page
    ends = [f"{100 * run['final']['accuracy_0']:.1f}" for run in runs[1][1].values()]
    assert f"answers {', '.join(ends)}% in seeds 6 to 8" in page


@pytest.mark.parametrize("runs", ["distill", "distill_controls"])
def test_the_distillation_page_shows_the_committed_results(runs):
    results = results_of(runs)
    assert distill_table.table(results).strip() in text("docs", "distillation.md")
    assert text("results", runs, "table.md") == distill_table.table(results)
    if runs == "distill_controls":
        page = words("docs", "distillation.md")
        for teacher, of_seed in results["pair"]["teachers"].items():
            assert f"{100 * sum(of_seed.values()) / len(of_seed):.1f}%" in page, teacher
