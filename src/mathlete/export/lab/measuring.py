"""Measuring the schemes: each is put into every linear layer of one model, and the distributions are compared."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from mathlete.corpus import open_source
from mathlete.export.distributions import kl_divergence, log_probabilities, top1_agreement
from mathlete.export.effect import rows_of_traces
from mathlete.export.lab.figures import LabFigures, SchemeCost
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
    reference = log_probabilities(model, text)
    costs = []
    for scheme in chosen:
        error = _quantize_layers(layers, weights, scheme)
        costs.append(_cost(scheme, weights, error=error, reference=reference, other=log_probabilities(model, text)))
        on_scheme(scheme.name)
    total = sum(weight.numel() for weight in weights.values())
    return LabFigures(model=source.name, tokens=len(reference), layers=len(layers), weights=total, schemes=tuple(costs))


def _quantize_layers(layers: "Mapping[str, Linear]", weights: "Mapping[str, Tensor]", scheme: Scheme) -> float:
    """Put what the scheme makes of the weights into the layers; return the relative error of all of them."""
    lost = whole = 0.0
    for name, weight in weights.items():
        rounded = requantize(weight, scheme)
        layers[name].weight.data.copy_(rounded)
        lost += float((weight - rounded).double().square().sum())
        whole += float(weight.double().square().sum())
    return float((lost / whole) ** 0.5)


def _cost(
    scheme: Scheme, weights: "Mapping[str, Tensor]", *, error: float, reference: "Tensor", other: "Tensor"
) -> SchemeCost:
    total = sum(weight.numel() for weight in weights.values())
    bits = sum(scheme.bits_a_weight(*weight.shape) * weight.numel() for weight in weights.values()) / total
    return SchemeCost(
        scheme=scheme.name,
        bits=round(bits, 4),
        error=float(f"{error:.4g}"),
        kl=float(f"{kl_divergence(reference, other):.4g}"),
        top1=round(top1_agreement(reference, other), 4),
        mib=round(bits * total / 8 / 2**20, 4),
    )
