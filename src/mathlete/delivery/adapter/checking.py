"""The checks before an adapter's zip is handed in, and what handing it in would do."""

from pathlib import Path

from mathlete.delivery.ledger import Ledger
from mathlete.delivery.preflight import Preflight
from mathlete.rehearsal import Thresholds
from mathlete.rehearsal.adapter import check_adapter_rehearsal
from mathlete.submission.adapter import AdapterBuild


def check_adapter_before_push(build: AdapterBuild, *, folder: Path, thresholds: Thresholds) -> Preflight:
    """Check an adapter's zip and its rehearsal.

    Args:
        build: what would be handed in.
        folder: where its rehearsal's report is.
        thresholds: what the rehearsal must have shown.

    Raises:
        UserError: the zip is gone.
    """
    rehearsal = check_adapter_rehearsal(build, folder=folder, thresholds=thresholds)
    return Preflight(checks=(*build.check(), rehearsal), hashes=build.hashes(), clock=None)


def plan_adapter(build: AdapterBuild, *, folder: Path) -> list[str]:
    """Return what handing it in would do, a line each; nothing is sent, Kaggle is not asked."""
    hashes = build.hashes()
    size, numbers = build.zip.stat().st_size / 2**20, [one.number for one in Ledger(folder).of(hashes.id, "submission")]
    had = f"; it has submission {', '.join(map(str, numbers))} already" if numbers else ""
    return [
        f"zip       {build.zip}: {size:.1f} MiB, {hashes.weights[:16]}{had}",
        f"submit    it is uploaded when it is submitted to {build.competition.slug}: python -m submit submit --yes",
    ]
