"""What a person reads at the end of a run."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mathlete.metrics import percent, plus_minus, with_interval

if TYPE_CHECKING:
    from rich.table import Table


def score_table(found: Mapping[str, Any]) -> "Table":
    """The scores of a run, whole, by group and by subset."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    k = found["k"]
    table = Table(
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        title=f"{found['suite']} · {found['model']} ({found['precision']}) · {found['problems']} problems",
    )
    # Narrow enough for 80 columns: rich cuts what is wider.
    for name in ("", "n", "pass@1 ± se", f"maj@{k} [95%]", f"pass@{k}", "none", "unk."):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    groups = {name: row for name, row in found["groups"].items() if name and len(found["groups"]) > 1}
    subsets = {name: row for name, row in found["subsets"].items() if name not in groups and len(found["subsets"]) > 1}
    for part in ({"all": found}, groups, subsets):
        for name, row in part.items():
            table.add_row(name, *_cells(row, k))
        table.add_section()
    return table


def _cells(row: Mapping[str, Any], k: int) -> list[str]:
    return [
        str(row["problems"]),
        plus_minus(row["pass_at_1"], row["pass_at_1_se"]),
        with_interval(row["maj_at_k"], row["maj_at_k_interval"]),
        percent(row["pass_at"].get(str(k))),
        str(row["unanswered"]),
        str(row["unknown"]),
    ]


def in_words(found: Mapping[str, Any]) -> str:
    """What the scores rest on, in a sentence: it says so where they are about nothing.

    >>> in_words({"right": 0, "samples": 20, "unanswered": 18, "capped": 18, "unknown": 0, "problems": 10,
    ...     "policy": {"sampling": {"max_tokens": 256}}})
    '0 of 20 samples right; 18 ended without an answer; 18 were cut at 256 tokens. This score says nothing but that \
the model cannot do these problems under this cap.'
    """
    parts = [f"{found['right']} of {found['samples']} samples right"]
    if found["unanswered"]:
        parts.append(f"{found['unanswered']} ended without an answer")
    if found["capped"]:
        parts.append(f"{found['capped']} were cut at {found['policy']['sampling']['max_tokens']} tokens")
    if found["unknown"]:
        parts.append(f"{found['unknown']} could not be judged (counted as not right)")
    if stopped := found.get("ended", {}).get("rule"):
        parts.append(f"{stopped} problems stopped early, so pass@1 is over the samples that were in")
    if found.get("fallbacks"):
        parts.append(f"{found['fallbacks']} of {found['problems']} problems have no answer at all")
    words = "; ".join(parts) + "."
    if not found["right"]:
        words += " This score says nothing but that the model cannot do these problems under this cap."
    elif found["problems"] < 30:
        words += f" {found['problems']} problems are few: read the interval, not the score."
    return words
