"""Measuring the schemes: each is put into every linear layer of one model, and the distributions are compared."""

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mathlete.corpus import open_source
from mathlete.export.distributions import kl_divergence, log_probabilities, top1_agreement
from mathlete.export.effect import rows_of_traces
from mathlete.export.lab.exports import Exporting, ExportScheme, find_lacking, measure_bits, measure_error
from mathlete.export.lab.figures import LabFigures, SchemeCost
from mathlete.export.lab.parts import is_kept, round_inputs, round_tables
from mathlete.export.lab.quantizers import Scheme, requantize
from mathlete.export.settings import Export
from mathlete.models import ModelSource, load_model, load_prompt_format

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor
    from torch.nn import Linear, Module
    from transformers import PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class _Original:
    """The model before anything is rounded."""

    weights: "Mapping[str, Tensor]"
    """{linear layer but the output's: its weights}, copies: every scheme starts from them, not from the last one's."""
    text: "Dataset"
    reference: "Tensor"
    """Its log-probabilities on the text, (tokens, vocabulary)."""

    @property
    def count(self) -> int:
        """Weights of the layers."""
        return sum(weight.numel() for weight in self.weights.values())

    def cost(self, name: str, other: "Tensor", *, bits: float, error: float | None) -> SchemeCost:
        """Return what a scheme costs, by the log-probabilities that it left."""
        return SchemeCost(
            scheme=name,
            bits=round(bits, 4),
            error=None if error is None else float(f"{error:.4g}"),
            kl=float(f"{kl_divergence(self.reference, other):.4g}"),
            top1=round(top1_agreement(self.reference, other), 4),
            mib=round(bits * self.count / 8 / 2**20, 4),
        )


def measure_schemes(
    source: ModelSource,
    chosen: Sequence[Scheme | ExportScheme],
    *,
    rows: str,
    count: int,
    seed: int,
    scratch: Path,
    on_scheme: Callable[[str], None],
    watch: Callable[[str], None] = lambda _: None,
) -> LabFigures:
    """Measure what the schemes cost a model, one after the other.

    Args:
        source: a model whose weights are not quantised.
        chosen: what is tried.
        rows: source of traced problems, as of `python -m train math --source`: the text of the KL.
        count: problems of it; calibrated exports look at those that follow.
        seed: of the pocket generator's problems, and of the rows that calibrated exports look at.
        scratch: a folder for the exports, which is deleted afterwards.
        on_scheme: called with each scheme's name when it is done.
        watch: told how far a calibrated export is.

    Raises:
        UserError: the model or the rows can't be read, or the model is quantised already.
    """
    prompts, lacking = load_prompt_format(source), find_lacking(chosen, source)
    exports = [one for one in chosen if isinstance(one, ExportScheme) and one.name not in lacking]
    calibration = Export().calibrate(scratch / "rows", seed=seed)
    more = calibration.count if any(scheme.made.is_calibrated for scheme in exports) else 0
    traced = [one for one, *_ in open_source(rows, limit=count + more, seed=seed)]
    text, others = rows_of_traces(traced[:count], prompts), rows_of_traces(traced[count:], prompts)
    if more and not len(others):
        why = f"no problem is left to calibrate on: name a --source of more than {len(text)}, or fewer --rows"
        lacking |= {scheme.name: why for scheme in exports if scheme.made.is_calibrated}
        exports = [scheme for scheme in exports if scheme.name not in lacking]
    exporting = Exporting(scratch=scratch, calibration=calibration, watch=watch)
    try:
        if exports:
            exporting.save(source, rows=others)
        model = load_model(source, precision="dense", dtype="float32")
        original, costs = _measure_original(model, text), list[SchemeCost]()
        for cost in _measure_formulas(model, [one for one in chosen if isinstance(one, Scheme)], original):
            costs.append(cost)
            on_scheme(cost.scheme)
        del model  # its memory is the exports'
        for scheme in exports:
            costs.append(_measure_export(scheme, exporting, original))
            on_scheme(scheme.name)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return LabFigures(
        model=source.name,
        tokens=len(original.reference),
        layers=len(original.weights),
        weights=original.count,
        schemes=tuple(costs),
        not_run=lacking,
    )


def _find_layers(model: "Module") -> "dict[str, Linear]":
    from torch.nn import Linear

    return {name: module for name, module in model.named_modules() if isinstance(module, Linear) and "head" not in name}


def _measure_original(model: "PreTrainedModel", text: "Dataset") -> _Original:
    weights = {name: module.weight.detach().cpu().float().clone() for name, module in _find_layers(model).items()}
    return _Original(weights=weights, text=text, reference=log_probabilities(model, text))


def _measure_formulas(model: "PreTrainedModel", chosen: Sequence[Scheme], original: _Original) -> Iterator[SchemeCost]:
    """Yield what each scheme costs; the model's layers hold the last one's weights afterwards."""
    layers, blocks = _find_layers(model), int(model.config.get_text_config().num_hidden_layers)
    for scheme in chosen:
        rounded = {name: not is_kept(name, scheme.part, blocks=blocks) for name in layers}
        error = _quantize_layers(layers, original.weights, scheme, rounded=rounded)
        with ExitStack() as undone:
            undone.enter_context(round_tables(model, scheme))
            undone.enter_context(round_inputs(layers, scheme))
            other = log_probabilities(model, original.text)
        bits = sum(
            one.numel() * (scheme.bits_a_weight(*one.shape) if rounded[name] else 16)
            for name, one in original.weights.items()
        )
        yield original.cost(scheme.name, other, bits=bits / original.count, error=error)


def _measure_export(scheme: ExportScheme, exporting: Exporting, original: _Original) -> SchemeCost:
    """Write a format, read it back as a run does, and return what it costs."""
    folder, made = exporting.write(scheme.made), scheme.made
    other = log_probabilities(made.load(folder), original.text)
    bits, error = measure_bits(folder, made, original.weights), measure_error(folder, made, original.weights)
    shutil.rmtree(folder)
    return original.cost(scheme.name, other, bits=bits, error=error)


def _quantize_layers(
    layers: "Mapping[str, Linear]", weights: "Mapping[str, Tensor]", scheme: Scheme, *, rounded: Mapping[str, bool]
) -> float:
    """Put what the scheme makes of the weights into the layers; return the relative error of all of them."""
    lost = whole = 0.0
    for name, weight in weights.items():
        put = requantize(weight, scheme) if rounded[name] else weight
        layers[name].weight.data.copy_(put)
        lost += float((weight - put).double().square().sum())
        whole += float(weight.double().square().sum())
    return float((lost / whole) ** 0.5)
