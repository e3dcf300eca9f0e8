"""Measuring the schemes: each is put into every linear layer of one model, and the distributions are compared."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from mathlete.corpus import open_source
from mathlete.export.distributions import kl_divergence, log_probabilities, top1_agreement
from mathlete.export.effect import rows_of_traces
from mathlete.export.lab.figures import LabFigures, SchemeCost
from mathlete.export.lab.parts import is_kept, round_inputs, round_tables
from mathlete.export.lab.quantizers import Scheme, requantize
from mathlete.models import ModelSource, load_model, load_prompt_format

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Linear


def measure_schemes(
    source: ModelSource, chosen: Sequence[Scheme], *, rows: str, count: int, seed: int, on_scheme: Callable[[str], None]
) -> LabFigures:
    """Measure what the schemes cost a model, one after the other.

    Args:
        source: a model whose weights are not quantised.
        chosen: what is tried.
        rows: source of traced problems, as of `python -m train math --source`: the text of the KL.
        count: problems of it.
        seed: of the pocket generator's problems.
        on_scheme: called with each scheme's name when it is done.

    Raises:
        UserError: the model or the rows can't be read, or the model is quantised already.
    """
    from torch.nn import Linear

    model = load_model(source, precision="dense", dtype="float32")
    traced = [one for one, *_ in open_source(rows, limit=count, seed=seed)]
    text = rows_of_traces(traced, load_prompt_format(source))
    layers = {
        name: module for name, module in model.named_modules() if isinstance(module, Linear) and "head" not in name
    }
    # Copies: every scheme starts from the original weights, not from the last one's.
    weights = {name: module.weight.detach().cpu().float().clone() for name, module in layers.items()}
    reference, blocks = log_probabilities(model, text), int(model.config.get_text_config().num_hidden_layers)
    costs = []
    for scheme in chosen:
        rounded = {name: not is_kept(name, scheme.part, blocks=blocks) for name in weights}
        error = _quantize_layers(layers, weights, scheme, rounded=rounded)
        with ExitStack() as undone:
            undone.enter_context(round_tables(model, scheme))
            undone.enter_context(round_inputs(layers, scheme.part))
            other = log_probabilities(model, text)
        costs.append(_cost(scheme, weights, rounded=rounded, error=error, reference=reference, other=other))
        on_scheme(scheme.name)
    total = sum(weight.numel() for weight in weights.values())
    return LabFigures(model=source.name, tokens=len(reference), layers=len(layers), weights=total, schemes=tuple(costs))


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


def _cost(
    scheme: Scheme,
    weights: "Mapping[str, Tensor]",
    *,
    rounded: Mapping[str, bool],
    error: float,
    reference: "Tensor",
    other: "Tensor",
) -> SchemeCost:
    total = sum(weight.numel() for weight in weights.values())
    bits_of = {name: scheme.bits_a_weight(*one.shape) if rounded[name] else 16 for name, one in weights.items()}
    bits = sum(bits_of[name] * one.numel() for name, one in weights.items()) / total
    return SchemeCost(
        scheme=scheme.name,
        bits=round(bits, 4),
        error=float(f"{error:.4g}"),
        kl=float(f"{kl_divergence(reference, other):.4g}"),
        top1=round(top1_agreement(reference, other), 4),
        mib=round(bits * total / 8 / 2**20, 4),
    )
