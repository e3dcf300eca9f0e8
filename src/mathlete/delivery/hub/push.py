"""The push of a run's model to the hub: what is sent, checked; then sent once, and written down in the run's folder."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mathlete.delivery.asking import Asking
from mathlete.delivery.hub.client import Hub, Repository
from mathlete.delivery.hub.models import RunModel, choose_model
from mathlete.delivery.uploads import Uploads, send_once
from mathlete.errors import UserError

_WEIGHTS = (".safetensors", ".safetensors.index.json", ".gguf")
"""How files end that must not stay beside newer weights: what reads a repository may take them for the model's."""
_NAME = r"[A-Za-z0-9](?!.*(?:--|\.\.))[\w.-]{0,95}(?<![.-])"
"""A name of the hub, of an account or a repository (huggingface_hub, `validate_repo_id`)."""


@dataclass(frozen=True, kw_only=True)
class HubUpload(RunModel):
    """What a push sends: a folder of a run, and the repository that gets it."""

    repo: str
    """OWNER/NAME, or NAME alone: of the account whose token it is."""
    public: bool = False
    overwrite: bool = False
    """Whether other weights that the repository has may be deleted."""

    def describe(self) -> Iterator[str]:
        """Yield what would be sent, a line each."""
        owner = "" if "/" in self.repo else "YOUR ACCOUNT/"
        yield from self.describe_for(f"repository  {owner}{self.repo}, {'public' if self.public else 'private'}")


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """What came of a push."""

    repo: str
    url: str
    commits: int
    """On the repository's main branch."""
    sent: bool
    """False where the hub had it already."""


def choose_upload(
    run: Path,
    *,
    part: str | None = None,
    repo: str | None = None,
    public: bool = False,
    overwrite: bool = False,
    accept_refused: str = "",
) -> HubUpload:
    """Return what a push of a run would send; the hub is not asked.

    Args:
        run: a training run's folder.
        part: its folder with the model; None: its export, else its merged model, else its adapter.
        repo: OWNER/NAME or NAME; None: the run's own name.
        public: whether anybody may see it.
        overwrite: whether weights in the repository that the push does not bring may be deleted.
        accept_refused: why a model may be sent that its gates refused; empty: it may not.

    Raises:
        UserError: no such folder or model, one that is unfinished, changed or refused, or a name that the hub does not
            take.
    """
    name = run.resolve().name if repo is None else repo
    if not re.fullmatch(rf"(?:{_NAME}/)?{_NAME}", name):
        rule = "a repository must be NAME or OWNER/NAME, each of at most 96 letters, digits and single . _ -"
        raise UserError(rule, value=name, cure="choose one with --repo")
    model = choose_model(run, part=part, accept_refused=accept_refused)
    return HubUpload(run=run, part=model.part, repo=name, public=public, overwrite=overwrite, outcome=model.outcome)


def push_to_hub(upload: HubUpload, hub: Hub, *, asking: Asking) -> Pushed:
    """Send what the hub has not got yet; return where it is.

    Raises:
        UserError: the hub's refusal, or a repository that more people see than the push is for.
    """
    rule = "the hub must let you in"
    repo = upload.repo if "/" in upload.repo else f"{asking.once(lambda: hub.account, rule=rule)}/{upload.repo}"
    uploads, name = Uploads(upload.run), f"hub:{repo}"
    there = asking.once(lambda: hub.find(repo), rule=f"{repo} must be readable")
    _require_audience(upload, repo, there)
    if there is None:
        asking.once(lambda: hub.create(repo, private=not upload.public), rule=f"{repo} must be made")
    elif there.private and upload.public:
        asking.say(f"{repo} is private and stays so: its settings on the hub make it public")
    last = uploads.last(name)
    # One that was deleted and made anew has fewer commits than the push counted.
    had = there is not None and last is not None and last.version is not None and there.commits >= last.version
    if had and uploads.has_sent(name, upload.hash):
        asking.say(f"unchanged, not sent: {hub.page(repo)} has these very files since a push of this run")
        return Pushed(repo=repo, url=hub.page(repo), commits=there.commits if there else 0, sent=False)
    others = [] if there is None else _find_others(upload, repo, hub, asking=asking)
    accepted = f"; refused by its gates, accepted: {upload.outcome.reason}" if upload.outcome.breaches else ""
    message = f"{upload.part} of {upload.run.resolve().name} ({upload.hash[:12]}){accepted}"

    def count() -> int:
        repository = hub.find(repo)
        return repository.commits if repository else 0

    def commit() -> int:
        hub.commit(repo, upload.folder, upload.files, delete=others, message=message)
        return count()

    sent = send_once(name, upload.hash, uploads=uploads, asking=asking, newest=count, upload=commit)
    asking.say(f"{hub.page(repo)}: {'private' if (there.private if there else not upload.public) else 'public'}")
    return Pushed(repo=repo, url=hub.page(repo), commits=sent.version or 0, sent=True)


def _require_audience(upload: HubUpload, repo: str, there: Repository | None) -> None:
    if there is not None and not there.private and not upload.public:
        rule = "a push is for yourself alone unless --public says otherwise"
        cure = "add --public, choose another --repo, or make it private in its settings on the hub"
        raise UserError(rule, value=f"{repo}, which is public", cure=cure)


def _find_others(upload: HubUpload, repo: str, hub: Hub, *, asking: Asking) -> list[str]:
    """Return the repository's weights that the push does not replace, and so deletes.

    Raises:
        UserError: there are some, and nobody said that they may go.
    """
    names = asking.once(lambda: hub.list_files(repo), rule=f"{repo} must be readable")
    others = [name for name in names if name.endswith(_WEIGHTS) and Path(name) not in upload.files]
    # They may be all that somebody has of another model.
    if others and not upload.overwrite:
        rule = "a push deletes no weights that it does not replace unless --overwrite says so"
        cure = "add --overwrite to delete them in the same commit, or choose another --repo"
        raise UserError(rule, value=f"{', '.join(others)} in {repo}", cure=cure)
    for name in others:
        asking.say(f"goes from {repo} with this push: {name}")
    return others
