"""What training, merge and export may cost: figures against the limits of the settings."""

from mathlete.errors import UserError
from mathlete.export.records.exports import Hop
from mathlete.export.records.tuning import TuningChange
from mathlete.export.settings import Forgetting, Survival


def require_kept(general: TuningChange, limits: Forgetting) -> None:
    """Check what the tuning cost of the general problems; a cost counts where its 95% interval leaves out 0.

    Raises:
        UserError: accuracy fell, or the loss rose, by more than it may.
    """
    accuracy, loss = general.accuracy_change, general.loss_change
    if -accuracy.value > limits.accuracy and accuracy.hi < 0:
        raise _forgot(general, f"{limits.accuracy:.0%} of the accuracy", "accuracy", f"{-accuracy.value:.1%}")
    # Both negated: a loss that is no number is a breach too.
    if not loss.value <= limits.loss and not loss.lo <= 0:
        raise _forgot(general, f"{limits.loss:g} nats a token of loss", "loss", f"{loss.value:.3f}")


def _forgot(general: TuningChange, most: str, flag: str, value: str) -> UserError:
    return UserError(
        f"tuning may cost at most {most} on {general.source}",
        value=value,
        cure=f"mix such problems into the rows (--source … {general.source}=1), train with a lower --tune.rate or "
        f"fewer --tune.epochs, or accept it with --forgetting.{flag}",
    )


def require_survival(hop: Hop, limits: Survival) -> None:
    """Check a hop's figures against their limits.

    Raises:
        UserError: the first that is out of its limit.
    """
    if hop.kl is not None:
        require_kl(hop.name, hop.kl, limits)
    # The limit on answers is that of 8 bits; the merge has a KL limit of its own, a tenth of theirs.
    if hop.name != "merged" and hop.unchanged is not None and hop.unchanged < limits.greedy:
        raise UserError(
            f"{hop.name} must leave at least {limits.greedy:.0%} of greedy answers unchanged",
            value=f"{hop.unchanged:.1%} of {hop.answered} by {hop.engine}",
            cure="train with a lower --tune.rate, or accept the loss with --survival.greedy",
        )


def require_kl(hop: str, kl: float, limits: Survival) -> None:
    """Raise UserError where a hop's KL is above its limit: the merge's, or that of 8 bits."""
    limit, flag = (limits.kl_merged, "kl-merged") if hop == "merged" else (limits.kl_int8, "kl-int8")
    if not kl <= limit:  # a KL that is no number is a breach too
        raise UserError(
            f"KL(trained || {hop}) must be at most {limit:g} nats a token",
            value=f"{kl:.2e}",
            cure="merge with --merge-base dequant, train with a lower --tune.rate, "
            f"or accept the loss with --survival.{flag}",
        )
