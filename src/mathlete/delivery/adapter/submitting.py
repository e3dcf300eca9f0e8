"""The submission of an adapter's zip: uploaded and submitted in one, once, and recognised by its description."""

from mathlete.delivery.asking import Asking
from mathlete.delivery.kaggle_client import Kaggle
from mathlete.delivery.ledger import Ledger
from mathlete.delivery.submitting import submit_once
from mathlete.errors import UserError
from mathlete.submission import Hashes
from mathlete.submission.adapter import AdapterBuild


def submit_adapter(
    build: AdapterBuild, kaggle: Kaggle, *, hashes: Hashes, message: str, ledger: Ledger, asking: Asking, again: bool
) -> int:
    """Upload an adapter's zip as a submission, unless this very zip has one already; return the submission's number.

    Args:
        build: the zip.
        kaggle: the account.
        hashes: of the zip as it was checked.
        message: the submission's description; the build's id is written before it.
        ledger: where the number is written, the moment that it is known.
        asking: how Kaggle is asked.
        again: submit, though the zip has a submission.

    Raises:
        UserError: the zip has changed, Kaggle's refusal, no submission left today, or no answer that says whether it
            counted.
    """
    slug = build.competition.slug

    def send(text: str) -> int:
        if build.hashes() != hashes:
            rule, cure = "what is uploaded must be what was checked", "rehearse it again"
            raise UserError(rule, value=f"{build.zip} has changed", cure=cure)
        return kaggle.submit_file(build.zip, competition_slug=slug, message=text)

    return submit_once(
        kaggle,
        send,
        slug=slug,
        what=f"{build.zip}",
        hashes=hashes,
        version=None,
        mark=f"[{hashes.id}]",
        message=message,
        ledger=ledger,
        asking=asking,
        again=again,
    )
