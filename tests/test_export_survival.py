"""What merge and 8-bit export cost: the measures, the records of the figures, and the limits."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

from mathlete.export import (
    EXPORT_FORMATS,
    Export,
    Forgetting,
    GateTrial,
    MergeBase,
    Survival,
    TunedModel,
    distributions,
)
from mathlete.export.distributions import kl_divergence, row_losses
from mathlete.export.greedy import compare_greedy
from mathlete.export.limits import find_breaches, find_kept_breaches, find_merge_breaches
from mathlete.export.merge import compare_bases, describe_bases
from mathlete.export.records import EffectFigures, Hop, MergeFigures, SurvivalFigures, TuningChange
from mathlete.gates import SURVIVAL, Noise
from mathlete.models import Device, find_model
from mathlete.problems import Problem
from mathlete.report import survival_table
from mathlete.report.html import tables
from mathlete.report.training import read_train_run
from mathlete.runs import write_json
from mathlete.tune import Recipe


@pytest.mark.parametrize("seed", range(20))
def test_kl_is_never_negative_and_zero_only_for_the_same(seed: int) -> None:
    torch.manual_seed(seed)
    one = torch.log_softmax(torch.randn(50, 300), dim=-1)
    other = torch.log_softmax(one + 1e-6 * torch.randn(50, 300), dim=-1)
    assert kl_divergence(one, one) == 0
    assert 0 < kl_divergence(one, other) < 1e-9


def test_kl_is_the_same_however_little_is_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (torch.log_softmax(torch.randn(50, 300), dim=-1) for _ in range(2))
    whole = kl_divergence(one, other)
    for numbers in (1, 300, 1000):
        monkeypatch.setattr(distributions, "_PART", numbers)
        assert kl_divergence(one, other) == pytest.approx(whole, rel=1e-12)


HOP: dict[str, Any] = {
    "hop": "int8",
    "engine": "transformers",
    "kl": 5e-4,
    "top1": 0.999,
    "problems": 200,
    "answered": 200,
    "unchanged": 0.995,
    "right": 149,
    "change": [-0.005, -0.02, 0.01],
    "bytes": 2**20,
    "seconds": 2.0,
}


NOISE = Noise(again=0.0, batch=1e-13, dtype="bfloat16", kl=1.1e-3, answered=200, changed=20)
SURE = {"beyond_noise": [0.1, 0.05, 0.15]}
DTYPE = Device.current().dtype
HERE = f"{DTYPE} by transformers{'' if DTYPE == 'float16' else ', stored in float16'}"


def breaches(hop: dict[str, Any], *, noise: Noise | None = None, export: Export | None = None) -> list[str]:
    """What the gates say of a hop, each in the words of its error."""
    given: dict[str, Any] = {"limits": Survival(), "export": export or Export(), "noise": noise, "stored": "float16"}
    some = find_breaches(Hop.from_json(hop), **given)
    return [str(breach) for breach in some]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"kl": 2e-3}, rf"KL\(trained \|\| int8\) must be at most 0.001 nats a token, got 2.00e-03 in {HERE}"),
        ({"kl": math.nan}, r"KL\(trained \|\| int8\) must be .*, got nan"),
        (
            {"unchanged": 0.985},
            f"int8 must leave at least 99% of .* unchanged, got 98.5% of 200 in {HERE}",
        ),
        ({"unchanged": 0.985, **SURE}, "int8 must leave at least 99%"),
        ({"hop": "w8a16", "kl": 2e-3}, f".* got 2.00e-03 in {HERE}"),
        ({"hop": "q8_0", "kl": 2e-3}, rf".* got 2.00e-03 in {DTYPE} by transformers\.\n"),
        (
            {"hop": "q8_0", "engine": "llama.cpp", "kl": None, "unchanged": 0.9},
            r"q8_0 must leave .* in types of its own by llama.cpp\.\n",
        ),
    ],
)
def test_a_breach_names_the_hop_its_type_and_figure_and_the_cure(changed: dict[str, Any], message: str) -> None:
    assert breaches(HOP) == []
    (breach,) = breaches({**HOP, **changed})
    assert re.match(message, breach), breach


@pytest.mark.parametrize(
    ("changed", "noise", "refused"),
    [
        ({"kl": 1.0e-2}, None, True),
        ({"kl": 1.0e-2}, NOISE, False),  # ten times what 16 bits cost
        ({"kl": 1.2e-2}, NOISE, True),
        ({"hop": "q4_0", "kl": 4e-2, "unchanged": 0.94, **SURE}, None, False),  # 4 bits have limits of their own
        ({"hop": "q4_0", "kl": 6e-2}, None, True),
        ({"hop": "q4_0", "unchanged": 0.92, **SURE}, None, True),
        ({"unchanged": 0.7}, None, True),
        ({"unchanged": 0.7, **SURE}, NOISE, False),  # the root of ten times what 16 bits change: 31.6%
        ({"unchanged": 0.65, **SURE}, NOISE, True),
        ({"unchanged": 0.65, "beyond_noise": [0.1, -0.02, 0.3]}, NOISE, False),  # may be chance
        ({"unchanged": 38 / 40, "answered": 40, "beyond_noise": [0.05, 0.0, 0.125]}, None, False),
    ],
)
def test_a_limit_is_the_larger_of_an_absolute_one_and_a_multiple_of_the_noise(
    changed: dict[str, Any], noise: Noise | None, refused: bool
) -> None:
    assert bool(breaches({**HOP, **changed}, noise=noise)) == refused


@pytest.mark.parametrize(
    ("name", "export", "cure"),
    [
        ("int8", Export(), "use --export.threshold 1"),
        ("int8", Export(threshold=0.0), "use --export.threshold 1"),  # no column in 16 bits
        ("int8", Export(threshold=1.0), "use --export.formats w8a16 in place of int8, whose activations"),
        ("int8", Export(formats=("int8", "w8a16"), threshold=1.0), "leave int8 out of --export.formats"),
        ("w8a8", Export(formats=("w8a8", "w8a16", "w8a16-gptq")), "leave w8a8 out of --export.formats"),
        ("w8a16", Export(formats=("w8a16",)), "use --export.group 64 --overwrite"),
        ("w8a16", Export(formats=("w8a16",), group=64), "use --export.formats w8a16-gptq in place of w8a16, rounded"),
        ("w8a16-gptq", Export(formats=("w8a16-gptq",), group=64), "look at the layers in survival.json"),
        ("q8_0", Export(formats=("q8_0",)), "use --export.formats f16 in place of q8_0, whose activations"),
        (
            "q4_0",
            Export(formats=("q4_0",)),
            "use --export.formats q8_0 in place of q4_0, which has more bits, set --surv",
        ),
        ("q4_0", Export(formats=("q4_0", "q8_0", "f16")), "leave q4_0 out of --export.formats"),
        ("w4a16", Export(formats=("w4a16",)), "use --export.formats w8a16 in place of w4a16, which has more bits"),
    ],
)
def test_a_cure_is_not_in_use_already(name: str, export: Export, cure: str) -> None:
    (breach,) = breaches({**HOP, "hop": name, "kl": 1.0}, export=export)
    assert f"Fix: {cure}" in breach
    assert "or accept it with --accept-refused REASON" in breach


@pytest.mark.parametrize(
    ("kls", "noise", "base", "message"),
    [
        ({"float16": 9e-6}, 0.0, "dequant", ""),
        (
            {"float16": 2e-5, "bfloat16": 4e-4},
            0.0,
            "dequant",
            "2.00e-05 stored in float16 (tried: 2.00e-05 in float16, 4.00e-04",
        ),
        ({"float16": 2e-5}, 1e-5, "dequant", ""),  # a device that computes fp32 no better
        ({"float16": 2e-2}, 0.0, "original", "merge with --merge-base dequant --overwrite, which"),
        ({"float16": 2e-2}, 0.0, "dequant", "see that adapter and base are of one training"),
        ({"float16": math.nan, "bfloat16": math.inf}, 0.0, "dequant", "got nan stored in float16"),
    ],
)
def test_a_merge_is_judged_by_its_best_type(kls: dict[str, float], noise: float, base: MergeBase, message: str) -> None:
    breached = [*find_merge_breaches(kls, dtype="float16", limits=Survival(), noise=noise, base=base)]
    assert [message in str(breach) for breach in breached] == ([True] if message else [])


def test_a_merge_that_a_trial_refuses_is_not_blamed_on_folders_that_are_not_there() -> None:
    given: Any = {"dtype": "float16", "limits": Survival(kl_merged=1e-12), "noise": 0.0, "base": "dequant"}
    (breach,) = find_merge_breaches({"float16": 1e-6}, is_random=True, **given)
    assert "Fix: name a --model whose weights 16 bits hold, set --survival.kl-merged, or accept" in str(breach)


@pytest.mark.parametrize(
    ("name", "kl", "noise", "foretold"),
    [
        ("int8", 1.5e-2, 1.6e-3, "passes"),
        ("int8", 2.22e-2, 1.4e-3, "open"),  # SmolLM2-135M's
        ("w8a8", 4.6e-2, 1.5e-3, "refused"),  # SmolLM2-135M's
        ("int8", 2e-1, 1.6e-3, "refused"),
        ("int8", 1.4e-3, 2.8e-5, "open"),  # of the absolute limit too
        ("int8", 3e-3, 2.8e-5, "refused"),
        ("int8", math.nan, 1.6e-3, "refused"),
        ("w4a16", 9e-2, 1.6e-3, "open"),
        ("w4a16", 8.1e-1, 1.5e-3, "refused"),
        ("merged", 1.0, 1.6e-3, "passes"),  # has a gate of its own
    ],
)
def test_a_trial_ends_a_run_only_where_an_export_costs_twice_its_limit(
    name: str, kl: float, noise: float, foretold: str
) -> None:
    tuned = TunedModel(source=find_model("pocket"), data=Path(), adapter=Path())
    limits, export = Survival(), Export()
    trial = GateTrial(tuned=tuned, recipe=Recipe(), limits=limits, formats=export, names=())
    random = Noise(again=0.0, batch=0.0, dtype="bfloat16", kl=noise, answered=0, changed=0)
    said = trial.foretell({name: kl}, noise=random, stored="float16")
    assert (said.open == (name,), len(said.breaches)) == (foretold == "open", int(foretold == "refused"))
    if foretold == "open":
        assert f"above its limit as yet: {name}; cost and limit are measured anew after the training" in said.describe()
        flags = {"int8": "--export.threshold 1", "w4a16": "--export.formats w8a16"}
        assert f"To be sure: use {flags[name]}" in said.describe()
        assert "--accept-refused" not in said.describe()


def test_models_that_answer_nothing_are_shown_and_are_no_breach() -> None:
    silent = {**HOP, "answered": 0, "unchanged": None}
    assert breaches(silent) == []
    table = survival_table([Hop.from_json(silent)], tokens=9)
    assert "none answered" in [cell for column in table.columns for cell in column.cells]


GENERAL: dict[str, Any] = {
    "source": "gsm8k",
    "problems": 50,
    "loss": [0.5, 0.5],
    "loss_change": [0.0, -0.1, 0.1],
    "accuracy": [0.8, 0.8],
    "accuracy_change": [0.0, -0.02, 0.02],
}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"accuracy_change": [-0.12, -0.2, -0.04]}, "at most 5% of the accuracy on gsm8k, got 12.0%.*gsm8k=1"),
        ({"accuracy_change": [-0.12, -0.3, 0.01]}, ""),  # may be chance
        ({"accuracy_change": [-0.04, -0.05, -0.03]}, ""),  # shown, but small
        ({"loss_change": [0.3, 0.1, 0.5]}, "at most 0.1 nats a token of loss on gsm8k, got 0.300"),
        ({"loss_change": [0.3, -0.1, 0.7]}, ""),
        ({"loss_change": [math.nan, math.nan, math.nan]}, "nats a token of loss on gsm8k, got nan"),
    ],
)
def test_forgetting_is_a_breach_where_it_is_large_and_no_chance(changed: dict[str, Any], message: str) -> None:
    change = TuningChange.from_json({**GENERAL, **changed})
    breached = [*find_kept_breaches(change, Forgetting())]
    assert [re.search(f"(?s){message}", str(breach)) is not None for breach in breached] == ([True] if message else [])


HELDOUT = {key: value for key, value in GENERAL.items() if key != "source"}
LAYERS = [
    {"layer": "q", "signal": 0.2, "noise": 0.1, "kept": 1.0},
    {"layer": "v", "signal": 0.1, "noise": 0.1, "kept": 0.9},
]
OUTCOME = {"breaches": ["int8 is far off"], "accept_refused": "a first look"}
MERGED = {"base": "dequant", "dtype": "float16", "parameters": 9, "kl_merged": 1e-6, "kl_tokens": 7}
BASES = {
    "bases": {"dequant": {"kl": 1e-6, "loss": 0.2}, "original": {"kl": 1e-2, "loss": 0.3}},
    "loss_difference": [0.1, 0.0, 0.2],
    "proposed": "dequant",
}


@pytest.mark.parametrize(
    ("record", "value"),
    [
        (Hop, HOP),
        (Hop, {**HOP, "kl": None, "top1": None, "unchanged": None}),
        (TuningChange, GENERAL),
        (EffectFigures, {"hops": [HOP, HOP], "heldout": HELDOUT, "general": GENERAL}),
        (EffectFigures, {"hops": [], "heldout": HELDOUT}),
        (EffectFigures, {"hops": [], "heldout": HELDOUT, "noise": NOISE.to_json(), **OUTCOME}),
        (Hop, {**HOP, **SURE}),
        (Hop, {**HOP, "change": [-0.005, -0.02, 0.01, 1.0]}),
        (MergeFigures, {**BASES, **MERGED}),
        (MergeFigures, MERGED),
        (MergeFigures, {**MERGED, "noise": 1e-13, "limit": 1e-5, **OUTCOME}),
    ],
)
def test_a_record_is_read_as_it_was_written(record: Any, value: dict[str, Any]) -> None:
    # Key by key: a manifest's bytes follow their order.
    assert json.dumps(record.from_json(value).to_json()) == json.dumps(value)


def test_survival_figures_begin_with_the_exports_own() -> None:
    merged, served = {**HOP, "hop": "merged", "kl": 1e-6}, {**HOP, "hop": "q8_0", "engine": "llama.cpp", "kl": None}
    own = {**HOP, "hop": "q8_0", "right": 148}
    value = {"kl_tokens": 7, "hops": [merged, own, served], "layers": LAYERS}
    value = {**value, "limits": {"kl": 0.011, "unchanged": 0.7}, "noise": NOISE.to_json(), **OUTCOME}
    figures = SurvivalFigures.from_json(value)
    written = figures.to_json()
    assert list(written) == ["kl_merged", "kl_q8_0", "kl_tokens", "top1", "greedy_problems", "greedy_answered",
                             "greedy_unchanged", "greedy_right", "bytes", "limits", "noise", "breaches",
                             "accept_refused", "hops", "layers"]  # fmt: skip
    assert (written["kl_q8_0"], written["greedy_right"]) == (5e-4, 148)
    assert {key: written[key] for key in value} == value
    assert figures.weakest_layer is not None
    assert (figures.weakest_layer.layer, figures.weakest_layer.signal_to_noise) == ("v", 1.0)


def rows_of(*lengths: int) -> datasets.Dataset:
    return datasets.Dataset.from_list([{"input_ids": [*range(length)], "prompt_tokens": 2} for length in lengths])


def test_a_rows_loss_is_that_of_its_own_completion() -> None:
    rows, vocabulary = rows_of(5, 4, 7), 10
    torch.manual_seed(0)
    logprobs = torch.log_softmax(torch.randn(3 + 2 + 5, vocabulary), dim=-1)
    losses, at = row_losses(logprobs, rows), 0
    for loss, row in zip(losses, rows, strict=True):
        targets = row["input_ids"][2:]
        expected = -sum(float(logprobs[at + place, token]) for place, token in enumerate(targets)) / len(targets)
        assert loss == pytest.approx(expected)
        at += len(targets)


@pytest.mark.parametrize(
    ("shift", "proposed"),
    [(0.0, "dequant"), (0.2, "dequant"), (-0.2, "original")],  # as good: the nearer one
)
def test_the_base_of_lower_loss_is_proposed_else_the_nearer(shift: float, proposed: str) -> None:
    rows = rows_of(*[6] * 30)
    torch.manual_seed(0)
    targets = torch.tensor([token for row in rows for token in row["input_ids"][2:]])
    logits = torch.randn(len(targets), 10)
    moved = logits + 1e-3 * torch.randn_like(logits)
    moved[torch.arange(len(targets)), targets] -= shift
    both = {"dequant": torch.log_softmax(logits, -1), "original": torch.log_softmax(moved, -1)}
    comparison = compare_bases(both, reference=both["dequant"], rows=rows)  # type: ignore[arg-type]
    assert comparison.proposed == proposed
    assert comparison.bases["dequant"].kl == 0 < comparison.bases["original"].kl
    words = describe_bases(comparison, chosen="dequant", most=1.0)
    assert words.endswith(": --merge-base original --overwrite") == (proposed == "original")
    # What the merge's own gate will refuse is proposed with the one way that ends.
    words = describe_bases(comparison, chosen="dequant", most=1e-9)
    assert ("--merge-base original --overwrite --accept-refused REASON" in words) == (proposed == "original")
    assert ("the reason accepts what the exports cost too" in words) == (proposed == "original")


def test_one_row_proposes_no_base_by_its_loss() -> None:
    rows, likely = rows_of(6), torch.tensor([[0.0] * 9 + [1.0]] * 4)
    dequant, original = (torch.log_softmax(logits, -1) for logits in (0.9 * likely, likely))
    comparison = compare_bases({"dequant": dequant, "original": original}, reference=dequant, rows=rows)
    assert comparison.bases["original"].loss != comparison.bases["dequant"].loss
    words = describe_bases(comparison, chosen="dequant", most=1.0, rows=1)
    assert words.endswith(", too few to tell: no difference shown, dequant is nearer to the trained model")


def test_greedy_answers_are_compared_as_answers_not_as_text() -> None:
    problems = [Problem(id=name, statement="?", gold="1/2") for name in "abcd"]
    before = {"a": r"\frac12", "b": "0.5", "c": None, "d": None}
    after = {"a": "0.5", "b": "0.7", "c": "1/2", "d": None}
    compared = compare_greedy(problems, before=before, after=after)
    assert (compared.problems, compared.answered, compared.unchanged) == (4, 3, 1)
    assert (compared.right_before, compared.right_after) == (2, 2)
    assert compared.share == pytest.approx(1 / 3)
    assert compared.change.value == 0
    assert compared.change.lo < 0 < compared.change.hi


def test_the_report_has_the_limits_of_each_export_though_one_never_ended(tmp_path: Path) -> None:
    for name, least in (("int8", 0.7), ("w8a16", 0.8)):
        hops = [{**HOP, "hop": "merged"}] * (name == "int8") + [{**HOP, "hop": name}]
        value = {"kl_tokens": 7, "hops": hops, "layers": [], "limits": {"kl": 0.011, "unchanged": least}}
        folder = tmp_path / EXPORT_FORMATS[name].folder
        folder.mkdir()
        write_json(folder / SURVIVAL, value)
    run = replace(read_train_run(tmp_path), merge=MergeFigures.from_json({**MERGED, "noise": 1e-13, "limit": 1e-5}))
    page = tables.survival_table(run)
    assert page is not None
    assert [row[-2:] for row in page.rows] == [["1e-05 in fp32", ""], ["1e-02", "70%"], ["1e-02", "80%"]]
