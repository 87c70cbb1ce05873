"""
The paper's claims, each with what came out here and whether the interval agrees. By computation, not by eye.
"""
from dataclasses import dataclass

from engine.report import cell, table_lines, verdict
from paper.collect import ARMS, MEASURES

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
    return [Row(claim, "<br>".join(here), "<br>".join(verdicts))]


def value(claim, what, v, sign):
    """Row on whether a difference or a correlation v has this sign."""
    return Row(claim, f"{what} {cell(v, sign=True)}", verdict(v, sign))


def rows_of_categories(dynamics):
    """Rows on the four kinds of tokens of figure 3, by how their loss changes during CLM. The shares
    themselves are the text's as much as the method's; what is judged is their order."""
    share, less = dynamics["share"], dynamics["share_less_falling"]
    rows = [Row("The loss of a minority of the tokens falls during CLM (26%; fig. 3)",
                f"H->L {cell(share['H->L'], 'accuracy')}", verdict(share["H->L"], -1, than=0.5))]
    for category, sign, claim in (("L->L", 1, "more are low and stay so (51%)"),
                                  ("H->H", -1, "fewer are high and stay so (11%)"),
                                  ("L->H", -1, "fewer rise (12%)")):
        here = [f"{category} {cell(share[category], 'accuracy')}",
                f"less H->L {cell(less[category], 'accuracy', sign=True)}"]
        rows.append(Row(f"... {claim}", ", ".join(here), verdict(less[category], sign)))
    return rows


def rows_of_token_losses(dynamics):
    """Rows on the losses of selected and unselected tokens during training, figures 6 to 8."""
    rows = [
        value("SLM ends below CLM on the tokens it selects (fig. 6; here those it would select with the base "
              "as its model)", "SLM less CLM", dynamics["slm_minus_clm"], -1),
        value("... and its loss on the others rises (2.82 to 3.52; fig. 6)", "last less first checkpoint",
              dynamics["unselected_change"], 1),
    ]
    for arm in ("clm", "slm"):
        r = dynamics["correlation"][arm]
        rows += [
            value(f"Accuracy rises as the loss on selected tokens falls (fig. 7), {arm.upper()}",
                  "correlation", r["selected"], -1),
            value(f"... and less so with the loss on unselected tokens, {arm.upper()}",
                  "with unselected less with selected, Fisher's z", r["difference"], 1),
        ]
    change = dynamics["last_set_change"]
    return rows + [
        value("Tokens that SLM selects at the end have had their loss rise (fig. 8)",
              "last less first checkpoint", change["slm"], 1),
        value("... more than the tokens that CLM's last model would select (our control)",
              "the same, SLM less CLM", change["slm_minus_clm"], 1),
    ]


def claims(results):
    """The table of all claims that the runs can say something about, in Markdown."""
    rows, dynamics = [], results.get("dynamics")
    if dynamics:
        rows += rows_of_categories(dynamics)
    rows += difference(results, "SLM beats CLM at equal tokens (table 1; here keep 0.3, each at its own "
                       "learning rate)", "slm", "clm")
    rows += difference(results, "... and beats random tokens at the same ratio (our control)", "slm",
                       "random")
    if dynamics:
        rows += rows_of_token_losses(dynamics)
    rows += difference(results, "Keeping 60% beats keeping all (fig. 9; at one learning rate)", "keep_0.6",
                       "keep_1.0")
    rows += difference(results, "... and beats keeping 30%", "keep_0.6", "slm")
    for how in HOW:
        what = ARMS[f"self_{how}"].name.capitalize()
        rows += difference(results, f"{what}, beats CLM (tables 3, 4; at one learning rate)", f"self_{how}",
                           "keep_1.0")
    rows += difference(results, "A reference model of half the width beats CLM too (table 5; at one "
                       "learning rate)", "weak", "keep_1.0")
    headings = ["the paper's claim", "here, with 95% interval", "verdict"]
    return "\n".join(table_lines(headings, [[row.claim, row.here, row.verdict] for row in rows])) + "\n"
