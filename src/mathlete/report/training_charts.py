"""Charts of a training run: its loss, its learning rate, and what each export keeps of it."""

from statistics import median
from typing import TYPE_CHECKING

from mathlete.report.chart import Chart, RunLabel, Series

if TYPE_CHECKING:
    from mathlete.report.training import TrainRun

_WORST = 12
"""Layers that are named."""


def training_curves(run: "TrainRun", place: RunLabel) -> list[Chart]:
    """Return the loss, with the held-out loss before and after as marks, and the learning rate."""
    if not run.curve:
        return []
    steps = [point["step"] for point in run.curve]
    heldout = run.effect.heldout.loss if run.effect else None
    # The held-out loss was measured before the first step and after the last.
    x = [0, *steps] if heldout and steps[0] > 0 else steps
    losses = [*[None] * (len(x) - len(steps)), *(point.get("loss") for point in run.curve)]
    marks = [
        Series(
            name="held out, before and after",
            colour="limit",
            marks=True,
            y=[heldout[0], *[None] * (len(x) - 2), heldout[1]],
        )
    ] if heldout and len(x) > 1 else []  # fmt: skip
    said = f" Held out: {heldout[0]:.3f} before, {heldout[1]:.3f} after." if heldout else ""
    colour = str(place.position)
    return [
        Chart(
            key=f"loss{place.tail}",
            title=f"Loss{place.title}",
            note=f"Loss on the rows' completions, nats a token.{said}",
            kind="lines",
            x=x,
            series=[Series(name="loss", colour=colour, y=losses), *marks],
            x_label="step",
        ),
        Chart(
            key=f"rate{place.tail}",
            title=f"Learning rate{place.title}",
            note="Warm-up, then a cosine down to 0.",
            kind="lines",
            x=steps,
            series=[Series(name="learning rate", colour=colour, y=[point.get("learning_rate") for point in run.curve])],
            x_label="step",
        ),
    ]


def layer_charts(run: "TrainRun", place: RunLabel) -> list[Chart]:
    """Return what is left of each layer's change by training, of the layers that keep least, a bar an export."""
    exports = {
        name: {layer.layer: layer.kept for layer in one.layers} for name, one in run.exports.items() if one.layers
    }
    least: dict[str, float] = {}
    for kept in exports.values():
        for layer, share in kept.items():
            least[layer] = min(share, least.get(layer, share))
    if len(least) < 2:
        return []
    worst = sorted(least, key=lambda layer: least[layer])[:_WORST]
    # What all names begin with says nothing, and on a phone would leave no room for what tells them apart.
    parts = [layer.split(".") for layer in worst]
    same = next((at for at, words in enumerate(zip(*parts, strict=False)) if len({*words}) > 1), 0)
    halves = "; ".join(
        f"{name}: half of {len(kept)} keep {median(kept.values()):.1%}" for name, kept in exports.items()
    )
    return [
        Chart(
            key=f"layers{place.tail}",
            title=f"What 8 bits keep of the training{place.title}",
            note=f"Of each linear layer's change by training, what the export keeps: the layers that keep least. "
            f"{halves} or more. Least is left to {worst[0]}: {least[worst[0]]:.1%}.",
            kind="rows",
            x=[".".join(words[same:]) for words in parts],
            series=[
                Series(name=name, colour=str(number), y=[kept.get(layer) for layer in worst])
                for number, (name, kept) in enumerate(exports.items())
            ],
            percent=True,
            most=max(1.0, round(max(max(kept.get(layer, 0) for layer in worst) for kept in exports.values()), 2)),
        )
    ]
