"""
The paper's claims, each with what came out here and whether the interval agrees. By computation, not by eye.
"""
from dataclasses import dataclass

from engine.report import cell, table_lines, verdict
from paper.collect import ARMS, MEASURES, RATIOS

HOW = ("low_ref", "low_entropy", "intersection", "union")  # of the self-reference


@dataclass
class Row:
    claim: str      # of the paper
    here: str       # what came out, with its interval
    verdict: str


def difference(results, claim, arm, control):
    """[Row] on whether an arm is better than one of its controls, by each measure; [] where one of them was
    not run."""
    assert control in ARMS[arm].controls, (arm, control)
    minus = results["arms"].get(arm, {"minus": {}})["minus"].get(control)
    if minus is None:
        return []
    here = [f"{m.short} {cell(minus[key], key, sign=True)}" for key, m in MEASURES.items()]
    verdicts = [f"{m.short}: {verdict(minus[key], m.better)}" for key, m in MEASURES.items()]
    return [Row(claim, "; ".join(here), "; ".join(verdicts))]


def value(claim, what, v, sign):
    """Row on whether a difference or a correlation v has this sign."""
    return Row(claim, f"{what} {cell(v, sign=True)}", verdict(v, sign))


def rows_of_categories(dynamics):
    """Rows on the four kinds of tokens of figure 3, by how their loss changes during CLM."""
    share = dynamics["share"]
    rows = [Row("The loss of a minority of the tokens falls during CLM (26%; fig. 3)",
                f"H->L {cell(share['H->L'], 'accuracy')}", verdict(share["H->L"], -1, than=0.5))]
    for category, paper, claim in (("L->L", 0.51, "that of 51% is low and stays so"),
                                   ("H->H", 0.11, "that of 11% is high and stays so"),
                                   ("L->H", 0.12, "that of 12% rises")):
        rows.append(Row(f"... {claim} (fig. 3)", f"{category} {cell(share[category], 'accuracy')}",
                        verdict_on_share(share[category], paper)))
    return rows


def verdict_on_share(v, paper):
    """Does an interval exclude the paper's share? It never agrees: it holds many other shares too."""
    judged = verdict(v, 1, than=paper)
    return judged if judged in ("not measured", "cannot tell") else "disagrees"


def rows_of_token_losses(dynamics):
    """Rows on the losses of selected and unselected tokens during training, figures 6 to 8."""
    rows = [
        value("SLM ends below CLM on the tokens it selects (fig. 6; here those selected before the first "
              "step)", "SLM less CLM", dynamics["slm_minus_clm"], -1),
        value("... and its loss on the others rises (2.82 to 3.52; fig. 6)", "last less first checkpoint",
              dynamics["unselected_change"], 1),
    ]
    for arm in ("clm", "slm"):
        r = dynamics["correlation"][arm]
        rows += [
            value(f"Accuracy rises as the loss on selected tokens falls (fig. 7), {arm.upper()}",
                  "correlation", r["selected"], -1),
            value(f"... and less so with the loss on unselected tokens, {arm.upper()}",
                  "correlation with unselected less selected", r["difference"], 1),
        ]
    change = dynamics["last_set_change"]
    return rows + [
        value("Tokens that SLM selects at the end have had their loss rise (fig. 8)",
              "last less first checkpoint", change["slm"], 1),
        value("... and not only because they are chosen for a high loss at the end: more than those that CLM "
              "would select", "the same, SLM less CLM", change["slm_minus_clm"], 1),
    ]


def row_of_best_ratio(best):
    """Row on the ratio that is best. best: {measure: the best arm, its rival, and their difference}."""
    here, verdicts = [], []
    for key, found in best.items():
        measure, less = MEASURES[key], cell(found["less"], key, sign=True)
        here.append(f"{measure.short}: best {RATIOS[found['arm']]}, less {RATIOS[found['rival']]}: {less}")
        judged = "cannot tell"
        if verdict(found["less"], measure.better) == "agrees":  # the best is clearly better than its rival
            judged = "agrees" if found["arm"] == "keep_0.6" else "disagrees"
        verdicts.append(f"{measure.short}: {judged}")
    return Row("Keeping about 60% is best (fig. 9; the best of seven, chosen on the seeds it is judged by)",
               "; ".join(here), "; ".join(verdicts))


def claims(results):
    """The table of all claims that the runs can say something about, in Markdown."""
    rows, dynamics = [], results.get("dynamics")
    if dynamics:
        rows += rows_of_categories(dynamics)
    rows += difference(results, "SLM beats CLM at equal tokens (table 1; here keep 0.3)", "slm", "clm")
    rows += difference(results, "... and beats random tokens at the same ratio (our control)", "slm",
                       "random")
    if dynamics:
        rows += rows_of_token_losses(dynamics)
    if "best" in results:
        rows.append(row_of_best_ratio(results["best"]))
    for how in HOW:
        what = ARMS[f"self_{how}"].name.capitalize()
        rows += difference(results, f"{what}, beats CLM (tables 3, 4)", f"self_{how}", "clm")
    rows += difference(results, "A small reference model helps a larger model (table 5): against CLM",
                       "weak", "clm")
    headings = ["the paper's claim", "here, with 95% interval", "verdict"]
    return "\n".join(table_lines(headings, [[row.claim, row.here, row.verdict] for row in rows])) + "\n"
