"""The submission of a pushed version: made once, recognised on Kaggle by its description, and its score waited for."""

import math
from collections.abc import Callable

from mathlete.delivery.asking import Asking
from mathlete.delivery.kaggle_client import Kaggle, Submission
from mathlete.delivery.ledger import Ledger
from mathlete.errors import UserError
from mathlete.submission import Build, Hashes


def submit_version(
    build: Build,
    kaggle: Kaggle,
    *,
    hashes: Hashes,
    version: int,
    message: str,
    ledger: Ledger,
    asking: Asking,
    again: bool,
) -> int:
    """Submit a pushed version, unless it has a submission already; return the submission's number.

    Args:
        build: what was pushed.
        kaggle: the account.
        hashes: the build's.
        version: the notebook's, on Kaggle.
        message: the submission's description; the build's id and the version are written before it.
        ledger: where the number is written, the moment that it is known.
        asking: how Kaggle is asked.
        again: submit, though the version has a submission.

    Raises:
        UserError: Kaggle's refusal, no submission left today, or no answer that says whether it counted.
    """
    slug = build.config.competition.slug
    return submit_once(
        kaggle,
        lambda text: kaggle.submit(build.names, competition_slug=slug, version=version, message=text),
        slug=slug,
        what=f"version {version}",
        hashes=hashes,
        version=version,
        mark=f"[{hashes.id} v{version}]",
        message=message,
        ledger=ledger,
        asking=asking,
        again=again,
    )


def submit_once(
    kaggle: Kaggle,
    send: Callable[[str], int],
    *,
    slug: str,
    what: str,
    hashes: Hashes,
    version: int | None,
    mark: str,
    message: str,
    ledger: Ledger,
    asking: Asking,
    again: bool,
) -> int:
    """Submit by `send`, which is given the description, unless there is a submission with this mark already."""

    def list_marked() -> list[int]:
        return [one.number for one in kaggle.submissions(slug) if mark in one.description]

    noted = [event.number for event in ledger.of(hashes.id, "submission") if event.version == version]
    listed = asking.once(list_marked, rule="your submissions must be listed")
    known = {*noted, *listed}
    number = listed[0] if listed else next(reversed(noted), None)
    if number is not None and not again:
        if number not in noted:
            ledger.append("submission", hashes, version=version, number=number)
        asking.say(f"{what} has a submission, number {number}; another one only with --again")
        return number
    require_one_left(kaggle, slug=slug, asking=asking)
    number = asking.act(
        lambda: send(f"{mark} {message}"),
        lambda: next((one for one in list_marked() if one not in known), None),
        rule="Kaggle must accept the submission",
        # A second one can't be taken back, and costs the day: to repeat it is left to the user.
        repeats=False,
    )
    ledger.append("submission", hashes, version=version, number=number)
    return number


def require_one_left(kaggle: Kaggle, *, slug: str, asking: Asking) -> None:
    """Say how many submissions are left today.

    Raises:
        UserError: none is.
    """
    left, today = asking.once(lambda: kaggle.submissions_left(slug), rule="today's submissions must be readable")
    asking.say(f"submissions: {today} today, {left} left")
    # Kaggle answers with zeros as well where the account has no team yet.
    if today and not left:
        cure = "submit after midnight UTC, when Kaggle counts anew"
        raise UserError("a submission must be left today", value=f"{today} today, none left", cure=cure)


def wait_for_score(kaggle: Kaggle, number: int, *, asking: Asking) -> float:
    """Wait for the public score of a submission.

    Raises:
        UserError: it ended without one, or there is none within the limit.
    """
    said = set[str]()

    def look() -> Submission | None:
        seen = kaggle.submission(number)
        if seen.state not in ("PENDING", "COMPLETE", "ERROR") and seen.state not in said:
            said.add(seen.state)
            asking.say(
                f"Kaggle says {seen.state} of submission {number}, a state that is not known here; waiting goes on"
            )
        return seen if seen.state in ("COMPLETE", "ERROR") else None

    rule = f"submission {number} must get its score"
    ended = asking.until(look, limit_s=asking.waiting.run_max_s, rule=rule)
    try:
        score = float(ended.score) if ended.state == "COMPLETE" else None
    except ValueError:
        score = None
    if score is None or not math.isfinite(score):
        value = f"{ended.state} {ended.failure or ended.score}".strip()
        raise UserError(
            "a submission must end with a score", value=value, cure="look at it on Kaggle; one more: --again"
        )
    return score
