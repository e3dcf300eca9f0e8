"""What training, merge and export may cost: figures against the limits of the settings and the noise of computing."""

import math
from collections.abc import Iterator, Mapping

from mathlete.export.formats.table import EXPORT_FORMATS
from mathlete.export.records.exports import Hop
from mathlete.export.records.tuning import TuningChange
from mathlete.export.settings import Export, Forgetting, MergeBase, Survival
from mathlete.gates import ACCEPT, Noise, Refused
from mathlete.metrics import FEWEST_SIGNS, SIGNIFICANT, binomial_p, format_change, to_points
from mathlete.models import Device

_FEWEST_BITS = 1.0
"""Threshold of LLM.int8 below which no fewer columns are in 8 bits, and a lower one would not be better."""


def find_kept_breaches(general: TuningChange, limits: Forgetting) -> Iterator[Refused]:
    """Yield what the tuning cost of the general problems beyond the limits; beyond chance."""
    accuracy, loss = general.accuracy_change, general.loss_change
    if -accuracy.value > limits.accuracy and accuracy.is_shown:
        yield _forgot(general, f"{limits.accuracy:.0%} of the accuracy", "accuracy", f"{-accuracy.value:.1%}")
    # A loss that is no number is a breach too, of one problem as of many.
    shown = not math.isfinite(loss.value) or loss.shows_loss(problems=general.problems)
    if not loss.value <= limits.loss and shown:
        yield _forgot(general, f"{limits.loss:g} nats a token of loss", "loss", f"{loss.value:.3f}")


def _forgot(general: TuningChange, most: str, flag: str, value: str) -> Refused:
    return Refused(
        f"tuning may cost at most {most} on {general.source}",
        value=value,
        cure=f"mix such problems into the rows (--source … {general.source}=1), train with a lower --tune.rate or "
        f"fewer --tune.epochs, set --forgetting.{flag}, or {ACCEPT}",
    )


def find_merge_breaches(
    kls: Mapping[str, float], *, dtype: str, limits: Survival, noise: float, base: MergeBase, is_random: bool = False
) -> Iterator[Refused]:
    """Yield the breach of a merge, if it is one.

    Args:
        kls: KL(trained || merged) by each type that it was stored in, nats a token.
        dtype: the best of these.
        limits: the settings.
        noise: KL of the trained model from itself in fp32.
        base: what was merged into.
        is_random: whether the adapter is one of a trial, which is always of its base.
    """
    most = limits.merge_limit(noise)
    if not kls[dtype] <= most:  # a KL that is no number is a breach too
        tried = ", ".join(f"{kl:.2e} in {name}" for name, kl in kls.items())
        cure = (
            "merge with --merge-base dequant --overwrite, which is what was trained on"
            if base == "original"
            else "name a --model whose weights 16 bits hold"
            if is_random
            else "see that adapter and base are of one training: delete both folders and run the command again"
        )
        yield Refused(
            f"KL(trained || merged) must be at most {most:g} nats a token",
            value=f"{kls[dtype]:.2e} stored in {dtype} (tried: {tried}; noise of computing {noise:.1e})",
            cure=f"{cure}, set --survival.kl-merged, or {ACCEPT}",
        )


def find_breaches(hop: Hop, *, limits: Survival, export: Export, noise: Noise | None, stored: str) -> Iterator[Refused]:
    """Yield what an export's hop cost beyond the limits of its bits; the merge has a gate of its own.

    Args:
        hop: the export, read by one engine.
        limits: the settings.
        export: how it was written, for a cure that is not in use already.
        noise: of the trained model; None where it was not measured.
        stored: the 16-bit type that it is written for.
    """
    if hop.name not in EXPORT_FORMATS:
        return
    if hop.kl is not None:
        yield from find_kl_breaches(
            hop.name, hop.kl, engine=hop.engine, limits=limits, export=export, noise=noise, stored=stored
        )
    least = limits.unchanged_limit(noise, bits=EXPORT_FORMATS[hop.name].bits)
    if hop.unchanged is not None and hop.unchanged < least and not _may_be_chance(hop, limits, noise):
        beside = f"; computing in {noise.dtype} alone leaves {1 - noise.changed_share:.1%}" if noise else ""
        if (more := hop.beyond_noise) is not None:
            beyond = format_change(to_points(more), problems=hop.answered, unit=" points")
            beside += f", {beyond} changed beyond that"
        yield Refused(
            f"{hop.name} must leave at least {least:.0%} of greedy answers unchanged",
            value=f"{hop.unchanged:.1%} of {hop.answered} {_name_types(hop.name, hop.engine, stored=stored)}{beside}",
            cure=f"{_other_formats(hop.name, export)}, set --survival.greedy, or {ACCEPT}",
        )


def _may_be_chance(hop: Hop, limits: Survival, noise: Noise | None) -> bool:
    """Return whether changed answers may be chance: among few, a few that changed are no sign of anything.

    They are none where there are more of them than by noise, and a test says so too: that of signs against the noise,
    or, of so few answers that this one says nothing, the binomial one against the limit.
    """
    more = hop.beyond_noise
    if more is None or hop.unchanged is None:
        return False
    if not (more.leaves_out_0 and more.value > 0):
        return True
    if hop.answered >= FEWEST_SIGNS:
        return not more.is_shown
    # The noise is known by as few answers: none changed of one is no sign that none would. So its share is the mean
    # of the neutral prior's posterior, which pulls it least (Kerman 2011, "Neutral noninformative and informative
    # conjugate beta and gamma prior distributions", Electronic Journal of Statistics 5, section 3).
    changed, answered = (noise.changed, noise.answered) if noise else (0, hop.answered)
    share = (changed + 1 / 3) / (answered + 2 / 3)
    most = limits.changed_limit(share, bits=EXPORT_FORMATS[hop.name].bits)
    p = binomial_p(round((1 - hop.unchanged) * hop.answered), n=hop.answered, share=most)
    return not more.is_shown and p >= SIGNIFICANT


def find_kl_breaches(
    name: str, kl: float, *, engine: str, limits: Survival, export: Export, noise: Noise | None, stored: str
) -> Iterator[Refused]:
    """Yield the breach of the KL of the export `name` in nats a token, if it is one; the rest as `find_breaches`."""
    bits = EXPORT_FORMATS[name].bits
    most = limits.export_limit(noise, bits=bits)
    if not kl <= most:  # a KL that is no number is a breach too
        beside = f"; computing in {noise.dtype} alone costs {noise.kl:.1e}" if noise else ""
        yield Refused(
            f"KL(trained || {name}) must be at most {most:.2g} nats a token",
            value=f"{kl:.2e} {_name_types(name, engine, stored=stored)}{beside}",
            cure=f"{_other_formats(name, export)}, set --survival.{'kl-4bit' if bits < 8 else 'kl-int8'}, or {ACCEPT}",
        )


def _name_types(name: str, engine: str, *, stored: str) -> str:
    """Return in words what an engine computed an export in here, and what it is stored in where that differs."""
    # llama.cpp multiplies blocks of integers, and its files have no type beside those of their format.
    computed = "types of its own" if engine == "llama.cpp" else Device.current().dtype
    differs = EXPORT_FORMATS[name].engine != "llama.cpp" and computed != stored
    return f"in {computed} by {engine}{f', stored in {stored}' if differs else ''}"


def _other_formats(name: str, export: Export) -> str:
    """Return what may cost less and is not in use yet; another format only helps in this one's place."""
    this = EXPORT_FORMATS[name]
    if this.has_threshold and not 0 < export.threshold <= _FEWEST_BITS:
        return f"use --export.threshold {_FEWEST_BITS:g} --overwrite, which keeps more columns in 16 bits"
    unused = [one for one in EXPORT_FORMATS.values() if one.name not in export.formats]
    plain = [one for one in unused if not one.is_calibrated and one.activation_bits >= this.activation_bits]
    finer = [one for one in plain if one.bits > this.bits and one.engine == this.engine]
    if this.bits < 8 and finer:
        return f"use --export.formats {finer[0].name} in place of {name}, which has more bits"
    # Activations cost several times what weights do (docs/quantization.md), so their bits come first.
    whole = [one.name for one in plain if one.bits >= 8 and one.activation_bits == 16 and one.engine == this.engine]
    if this.bits == 8 and this.activation_bits < 16 and whole:
        return f"use --export.formats {whole[0]} in place of {name}, whose activations stay in 16 bits"
    # Finer scales are next, and cost a quarter of a bit a weight.
    if this.bits == 8 and this.layout == "pack-quantized" and export.group is None:
        return "use --export.group 64 --overwrite, which gives each 64 weights of a row a scale"
    calibrated = [one for one in unused if one.is_calibrated and one.bits == this.bits]
    if this.layout == "pack-quantized" and not this.is_calibrated and calibrated:
        package = "" if calibrated[0].is_installed else f' (pip install "mathlete[{calibrated[0].extra}]")'
        return f"use --export.formats {calibrated[0].name} in place of {name}, rounded for the run's own rows{package}"
    if set(export.formats) - {name}:
        # Where all are refused each is told so: none may be left.
        return f"leave {name} out of --export.formats, if another passes"
    return "look at the layers in survival.json: one may lose what all lose"
