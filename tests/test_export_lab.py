"""Quantisation lab: laws of the schemes, the command, and the numbers of docs/quantization.md made anew."""

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mathlete.export.formats import EXPORT_FORMATS
from mathlete.export.formats.compressed import make_scheme
from mathlete.export.formats.weights import WriteOptions
from mathlete.export.lab import Scheme, find_schemes, list_part_schemes, list_schemes
from mathlete.export.lab.figures import LabFigures
from mathlete.export.lab.quantizers import requantize, round_to_fp8
from tests.conftest import CommandLine, dear

ALL = list(list_schemes())
MATRICES = st.builds(
    lambda seed, rows, columns, scale: (
        torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * scale
    ),
    st.integers(0, 2**32),
    st.integers(1, 5),
    st.sampled_from([3, 64, 128]),
    st.sampled_from([1e-3, 1.0, 50.0]),
)


def error(weight: torch.Tensor, scheme: Scheme) -> float:
    return float((requantize(weight, scheme) - weight).norm() / weight.norm())


def of(name: str) -> Scheme:
    return next(scheme for scheme in ALL if scheme.name == name)


def test_every_scheme_has_a_name_of_its_own() -> None:
    assert len({scheme.name for scheme in ALL}) == len(ALL) == 53


@pytest.mark.parametrize("word", [*EXPORT_FORMATS, "gptq", "awq", "export/"])
def test_every_export_is_a_scheme_of_the_lab(word: str) -> None:
    assert any(scheme.name == f"export/{word}" or word not in EXPORT_FORMATS for scheme in find_schemes(word))


@pytest.mark.parametrize("strategy", ["channel", "token"])
def test_fp8_rounds_as_compressed_tensors_does(strategy: str) -> None:
    from compressed_tensors.quantization import fake_quantize
    from compressed_tensors.quantization.utils import calculate_qparams

    kinds = make_scheme("float-quantized", bits=8, group=None)
    how = kinds.weights if strategy == "channel" else kinds.input_activations
    values = torch.randn(5, 64, generator=torch.Generator().manual_seed(0)) * 3
    scale, zero = calculate_qparams(values.amin(1, keepdim=True), values.amax(1, keepdim=True), how)
    assert torch.allclose(round_to_fp8(values), fake_quantize(values, scale, zero, how), rtol=1e-5)


@pytest.mark.parametrize("scheme", ALL, ids=lambda scheme: scheme.name)
def test_zero_stays_zero_and_what_is_on_a_level_stays(scheme: Scheme) -> None:
    weight = torch.zeros(2, 64)
    assert torch.equal(requantize(weight, scheme), weight)
    if scheme.calibration != "minmax" or scheme.kind not in ("symmetric", "affine"):
        return
    least = -(2 ** (scheme.bits - 1)) + 1
    levels = torch.arange(least, -least + 1).float()
    exact = levels[torch.arange(512) % len(levels)].reshape(1, -1)
    if scheme.per != "group" and scheme.kind == "symmetric":
        assert torch.allclose(requantize(exact, scheme), exact, atol=1e-4)


@given(MATRICES)
def test_no_weight_moves_by_more_than_half_a_step(weight: torch.Tensor) -> None:
    for bits in (8, 4):
        quantized = requantize(weight, of(f"int{bits}/symmetric/channel/minmax"))
        step = weight.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
        assert ((quantized - weight).abs() <= step * 0.5001 + 1e-12).all()
        quantized = requantize(weight, of(f"int{bits}/affine/channel/minmax"))
        step = (weight.amax(1, keepdim=True).clamp(min=0) - weight.amin(1, keepdim=True).clamp(max=0)) / (2**bits - 1)
        # A range's end may fall half a step beside its level, for the zero point is whole.
        assert ((quantized - weight).abs() <= step * 1.0001 + 1e-12).all()


@dear(15)
@given(MATRICES)
def test_the_squared_error_is_never_worse_than_min_max(weight: torch.Tensor) -> None:
    for kind in ("symmetric", "affine"):
        for per in ("tensor", "channel", "group"):
            names = [f"int4/{kind}/{per}/{calibration}" for calibration in ("mse", "minmax")]
            best, plain = (error(weight, of(name)) for name in names)
            assert best <= plain * (1 + 1e-5)


def test_one_large_weight_spoils_a_tensor_and_only_its_own_row_or_group() -> None:
    weight = torch.randn(8, 128, generator=torch.Generator().manual_seed(0))
    weight[0, 0] = 100.0
    rest = weight[1:]
    for per, worst in (("tensor", 1.0), ("channel", 0.2), ("group", 0.2)):
        quantized = requantize(weight, of(f"int4/symmetric/{per}/minmax"))[1:]
        loss = float((quantized - rest).norm() / rest.norm())
        assert loss <= worst
        assert (loss > 0.9) == (per == "tensor")


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("int8/symmetric/channel/minmax", 8 + 16 / 128),
        ("int4/affine/group/mse", 4 + 20 / 64),
        ("fp8/channel", 8 + 16 / 128),
        ("nf4", 4.5),
        ("nf4-double", 4 + 8 / 64 + 32 / 64 / 256),
    ],
)
def test_bits_a_weight_count_scales_and_zero_points(name: str, bits: float) -> None:
    assert of(name).bits_a_weight(256, 128) == pytest.approx(bits)


def test_a_small_lab_measures_writes_and_shows_its_schemes(workdir: Path, train: CommandLine) -> None:
    words = ("quantize-lab", "pocket", "--only", "channel/minmax", "--rows", 1, "--run", "lab")
    result = train(*words, "--json").result
    costs = {row["scheme"]: row for row in result["schemes"]}
    assert costs.keys() == {f"int{bits}/{kind}/channel/minmax" for bits in (4, 8) for kind in ("symmetric", "affine")}
    for kind in ("symmetric", "affine"):
        few, many = (costs[f"int{bits}/{kind}/channel/minmax"] for bits in (4, 8))
        assert few["bits"] < many["bits"]
        assert few["mib"] < many["mib"]
        assert 0 < many["error"] < few["error"] < 0.2
        assert 0 < many["kl"] < few["kl"]
    assert LabFigures.read(Path("lab")).to_json() == json.loads(Path("lab/lab.json").read_text())
    with Path("lab/lab.csv").open(newline="") as file:
        table = {row["scheme"]: float(row["kl"]) for row in csv.DictReader(file)}
    assert table == {name: row["kl"] for name, row in costs.items()}
    again = train(*words)
    assert "nothing changed, skipped" in again.stdout
    # 8 bits stand before 4, and of these the lesser loss first.
    shown = [line.split()[0] for line in again.stdout.splitlines() if line.split()[:1] and line.split()[0] in costs]
    assert shown == sorted(costs, key=lambda name: (-round(costs[name]["bits"]), costs[name]["kl"]))


def test_an_export_costs_what_its_formula_does(workdir: Path, train: CommandLine) -> None:
    lab = train("quantize-lab", "pocket", "--only", "fp8", "--rows", 1, "--run", "lab", "--json").result
    costs = {row["scheme"]: row for row in lab["schemes"]}
    export, weights = costs["export/fp8"], costs["fp8/channel"]
    assert export["error"] == pytest.approx(weights["error"], rel=0.01)
    assert export["bits"] == pytest.approx(weights["bits"], abs=0.01)
    assert export["kl"] > weights["kl"] > 0  # activations are rounded too
    assert (lab["not_run"], Path("lab/.exports").exists()) == ({}, False)


def test_an_export_without_its_package_is_not_run_and_says_what_brings_it(
    workdir: Path, train: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mathlete.export.formats.table.find_spec", lambda _: None)
    words = ("quantize-lab", "pocket", "--only", "w8a16-gptq", "--rows", 1, "--run", "lab")
    lab = train(*words, "--json").result
    assert lab["schemes"] == []
    assert "needs llmcompressor" in lab["not_run"]["export/w8a16-gptq"]
    shown = train(*words).stdout
    assert "nothing changed, skipped" in shown
    assert re.search(r"export/w8a16-gptq +not run", shown)
    assert 'pip install "mathlete[gptq]"' in " ".join(shown.split())


def test_calibrated_exports_look_at_problems_that_no_figure_is_of(
    workdir: Path, train: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[list[int]] = []
    plain = EXPORT_FORMATS["w4a16"].write

    def write(folder: Path, merged: Path, options: WriteOptions) -> None:
        assert options.calibration is not None
        drawn.extend(options.calibration.draw())
        plain(folder, merged, options)

    entry = replace(EXPORT_FORMATS["w4a16-gptq"], write=write, package=None)
    monkeypatch.setitem(EXPORT_FORMATS, entry.name, entry)
    assert train("pocket-problems", "own.jsonl", "--families", "easy", "--count", 3).code == 0
    words = ("quantize-lab", "pocket", "--only", "w4a16-gptq", "--source", "own.jsonl", "--json")
    lab = train(*words, "--rows", 2, "--run", "lab").result
    assert [row["scheme"] for row in lab["schemes"]] == ["export/w4a16-gptq"]
    assert len(drawn) == 1
    none_left = train(*words, "--rows", 3, "--run", "none").result["not_run"]
    assert "fewer --rows" in none_left["export/w4a16-gptq"]


@pytest.mark.slow
def test_the_parts_lab_says_which_part_of_a_model_costs_its_8_bits(workdir: Path, train: CommandLine) -> None:
    words = ("quantize-lab", "pocket", "--parts", "--only", "int8", "--rows", 1, "--run", "lab")
    costs = {row["scheme"].removeprefix("int8/symmetric/"): row for row in train(*words, "--json").result["schemes"]}
    assert [f"int8/symmetric/{name}" for name in costs] == [
        one.name for one in list_part_schemes() if one.kind != "fp8"
    ]
    plain = costs["channel/minmax"]
    for name, cost in costs.items():
        word = name.partition(" ")[2]
        if word.startswith("but"):  # fewer weights are rounded
            assert 8.1 < cost["bits"] < 16
            assert cost["error"] < plain["error"]
        elif word:  # the same weights, and more besides
            assert (cost["bits"], cost["error"]) == (plain["bits"], plain["error"])
            assert cost["kl"] != plain["kl"]
    assert costs["channel/minmax and activations"]["kl"] > plain["kl"] > costs["channel/minmax but mlp"]["kl"]
    assert costs["channel/minmax but ends"]["bits"] == pytest.approx(
        plain["bits"] + 2 * (costs["channel/minmax but first"]["bits"] - plain["bits"]), abs=1e-3
    )


@pytest.mark.slow
@pytest.mark.parametrize("only", ["nf4", "fp8", "export/"])
def test_the_docs_numbers_are_what_the_command_gives(only: str, root: Path, workdir: Path, train: CommandLine) -> None:
    torch.set_num_threads(1)
    lab = train("quantize-lab", "pocket", "--only", only, "--json").result
    text = (root / "docs" / "quantization.md").read_text(encoding="utf-8")
    assert f"{lab['layers']} layers, KL over {lab['tokens']:,} tokens" in text
    for row in lab["schemes"]:
        bits, loss, divergence, top1 = re.findall(
            rf"\| `{row['scheme']}` \| (\S+) \| (\S+) \| (\S+) \| (\S+)% \|", text
        )[0]
        far = 5 if row["scheme"].endswith(("gptq", "awq")) else 1  # another CPU rounds otherwise, thousands of times
        assert float(bits) == pytest.approx(row["bits"], abs=0.006)
        assert (None if loss == "–" else float(loss)) == pytest.approx(row["error"], rel=0.02 * far)
        assert float(divergence) == pytest.approx(row["kl"], rel=0.1 * far)
        assert float(top1) == pytest.approx(100 * row["top1"], abs=0.2)
    assert {file.name for file in Path("runs/lab-pocket").iterdir()} >= {"lab.json", "lab.csv", "lab.png"}
    done = train("quantize-lab", "pocket", "--only", only)
    assert done.code == 0
    assert "nothing changed, skipped" in done.stdout


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["--only", "int9"], "--only must be part of a scheme's name"),
        (["--rows", "0"], "--rows must be at least 1"),
        (["--source", "no.jsonl"], "no.jsonl"),
    ],
)
def test_bad_settings_are_exit_2(words: list[str], rule: str, workdir: Path, train: CommandLine) -> None:
    assert rule in train("quantize-lab", "pocket", *words).refusal
