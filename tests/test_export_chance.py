"""What the gates excuse as chance, what they never do, and what is said where too few problems tell."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from mathlete.export import Forgetting
from mathlete.export.effect import describe_effect
from mathlete.export.limits import find_kept_breaches
from mathlete.export.merge import compare_bases, describe_bases
from mathlete.export.records import EffectFigures, Hop, TuningChange
from mathlete.export.records.intervals import change_to_json
from mathlete.metrics import paired_change
from mathlete.report.hops import hop_cells
from tests.test_export_survival import GENERAL, HOP, NOISE, breaches, rows_of


@pytest.mark.parametrize(
    ("odd", "proposed", "verdict"),
    [
        ([], "dequant", "dequant is nearer to the trained model"),
        (["original"], "dequant", "dequant is nearer to the trained model"),
        (["dequant"], "original", "original is nearer to the trained model: --merge-base original --overwrite"),
        (["dequant", "original"], "dequant", "KL of dequant is no number, so neither is better"),
    ],
)
@pytest.mark.parametrize("places", [1, 80])
def test_a_base_that_is_no_number_is_never_proposed(odd: list[str], proposed: str, verdict: str, places: int) -> None:
    rows, likely = rows_of(*[6] * 20), torch.tensor([[0.0] * 9 + [1.0]] * 80)
    both: Any = {"dequant": torch.log_softmax(likely, -1), "original": torch.log_softmax(likely + 0, -1)}
    for name in odd:
        both[name][:places] = math.nan
    comparison = compare_bases(both, reference=torch.log_softmax(likely, -1), rows=rows)
    assert comparison.proposed == proposed
    assert describe_bases(comparison, chosen="dequant", most=1e-5).endswith(verdict)
    assert "--accept-refused" not in describe_bases(comparison, chosen="original", most=1e-5)


def test_a_base_of_lower_loss_and_no_kl_is_not_proposed() -> None:
    """A token that it never gives costs no loss where no row has it."""
    rows, likely = rows_of(*[6] * 20), torch.tensor([[0.0] * 9 + [1.0]] * 80)
    worse, better = torch.log_softmax(likely, -1), torch.log_softmax(likely[:, :9], -1)
    better = torch.cat([better, torch.full((80, 1), -math.inf)], dim=1)
    comparison = compare_bases({"dequant": worse, "original": better}, reference=worse, rows=rows)
    assert comparison.loss_difference.value < 0
    assert comparison.proposed == "dequant"
    assert describe_bases(comparison, chosen="dequant", most=1e-5).endswith("dequant is nearer to the trained model")


@pytest.mark.parametrize(
    ("name", "noisy", "fewest"),
    [
        ("w8a16", 0.0, {1: None, 2: None, 3: 3, 5: 3, 6: 6, 20: 6, 100: 6, 200: 6}),
        ("w4a16", 0.0, {1: None, 2: None, 3: 3, 5: 3, 6: 6, 20: 6, 100: 8, 200: 15}),
        ("w8a16", 0.1, {10: 7, 20: 8, 100: 32}),
    ],
)
@pytest.mark.parametrize("kl", [None, 1e-6])
def test_so_many_changed_answers_are_no_chance(
    name: str, noisy: float, fewest: dict[int, int | None], kl: float | None
) -> None:
    """Answers are the only gate of an engine that gives no distributions: it must refuse one that reads garbage."""
    for answered, least in fewest.items():
        changed = round(noisy * answered)
        noise = replace(NOISE, kl=0.0, answered=answered, changed=changed)
        by_noise = [1.0] * changed + [0.0] * (answered - changed)
        for count in range(answered + 1) if answered < 9 else (least or 0, (least or 0) - 1, answered):
            by_model = [1.0] * count + [0.0] * (answered - count)
            hop = {**HOP, "hop": name, "engine": "vllm", "kl": kl, "answered": answered}
            beyond = change_to_json(paired_change(by_noise, by_model))
            hop |= {"unchanged": 1 - count / answered, "beyond_noise": beyond}
            refused = least is not None and count >= least
            assert bool(breaches(hop, noise=noise)) == refused, (answered, count)


@pytest.mark.parametrize(
    ("problems", "lost", "forgot"),
    [(1, 1, []), (2, 2, []), (3, 3, ["loss"]), (5, 5, ["loss"]), (6, 6, ["accuracy", "loss"]), (20, 4, ["loss"]),
     (20, 6, ["accuracy", "loss"]), (200, 0, [])],
)  # fmt: skip
def test_forgetting_few_problems_is_judged_by_their_losses(problems: int, lost: int, forgot: list[str]) -> None:
    """A loss is a mean over hundreds of tokens, a right answer one coin: 5 lost ones have a p of 1/16, 6 of 1/32."""
    same, fell = [1.0] * problems, [0.0] * lost + [1.0] * (problems - lost)
    rose = [1.0 + 8 * (1 - one) for one in fell]
    change = TuningChange(
        source="gsm8k",
        problems=problems,
        loss=(1.0, sum(rose) / problems),
        loss_change=paired_change(same, rose),
        accuracy=(1.0, sum(fell) / problems),
        accuracy_change=paired_change(same, fell),
    )
    breached = [str(one) for one in find_kept_breaches(change, Forgetting())]
    assert [name for name in ("accuracy", "loss") if any(f"--forgetting.{name}" in one for one in breached)] == forgot
    words = describe_effect(EffectFigures(hops=(), heldout=replace(change, source=None), general=change))
    assert ("can't show a loss of accuracy, 6 can; --forgetting.problems takes more" in words) == (problems < 6)


@pytest.mark.parametrize("odd", [math.nan, math.inf])
@pytest.mark.parametrize("problems", [1, 20])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_a_loss_that_is_no_number_is_forgetting(odd: float, problems: int) -> None:
    loss = paired_change([1.0] * problems, [1.0] * (problems - 1) + [odd])
    change = replace(TuningChange.from_json(GENERAL), problems=problems, loss_change=loss)
    assert len([*find_kept_breaches(change, Forgetting())]) == 1


def test_an_export_that_changes_nothing_has_an_interval_and_one_answer_has_none() -> None:
    ends = [
        hop_cells(Hop.from_json({**HOP, "problems": problems, "change": [0.0, 0.0, 0.0]}))[6] for problems in (200, 1)
    ]
    assert ends == ["+0.0 [+0.0, +0.0]", "+0.0, too few to tell"]
