"""The gates of a training run: what a merge and an export may cost, what they did cost, and refused means refused.

A gate compares a figure with the larger of an absolute limit and a multiple of the noise of computing. What breaks a
limit is `Refused`: it stays where it is to be looked at, and `require_passed` keeps every command from using it, unless
a person says why it may be used. That reason is the model's from there on: in manifests, model card and ledger.

A verdict lies in the folder of the step that came to it, and holds for what its run made of the same weights: that of
the trial before training, of forgetting and of the merge for adapter, merged model and exports, an export's for itself.
A merge judges the adapter only where it went into what that was trained on.

>>> from tempfile import TemporaryDirectory
>>> from mathlete.runs import write_json
>>> outcome = GateOutcome(breaches=("KL(trained || int8) must be at most 0.001, got 0.02",))
>>> with TemporaryDirectory() as name:
...     write_json(Path(name) / SURVIVAL, outcome.to_json())
...     try:
...         require_passed(Path(name))
...     except Refused as error:
...         print(error.rule)
...     require_passed(Path(name), reason="a first look").reason
a model must have passed the gates of its run
'a first look'
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from mathlete.errors import UserError
from mathlete.files import read_text
from mathlete.folders import STARTED
from mathlete.hashes import sha256_file
from mathlete.runs import MANIFEST, is_unfinished, read_json, write_atomically, write_json
from mathlete.text import quote, quote_markdown

SURVIVAL = "survival.json"
"""File in an export's folder: what every hop to it cost, and what the gates said."""
CARD = "README.md"
"""A model's card, which the hub and Kaggle show."""
ACCEPT, REBUILD = (f"{verb} it with --accept-refused REASON" for verb in ("accept", "build"))
"""How to accept what a gate refused, and what is built already."""
PARTS = ("export", "merged", "adapter")
"""Folders of a run that hold a model, the most finished first; export-FORMAT are others."""
_BEST = ("w8a16-gptq", "w8a16", "fp8", "w8a8", "w4a16-gptq", "w4a16-awq", "w4a16")
"""Formats of other exports, those first that a build would take on most machines."""
_ASIDE = "set_aside"
"""Key of an unfinished export's mark: its run is finished without it."""
_WEIGHTS, _MADE = "*.safetensors", "weights"
"""Files of a model's weights, and the key of their hashes in the mark of a step that was refused."""
_WAY = ("adapter", "effect", "merged")
"""Folders of the steps whose gates judge what the run trained, in their order."""
_COMMANDS = {"eval": "python -m eval", "import": "python -m eval import", "answer": "python -m submit answer"}
"""{step of a run that is no training's: the command that makes it}."""


class Refused(UserError):
    """A gate's refusal: what was made is there to be looked at, but no step and no command goes on with it."""


@dataclass(frozen=True, kw_only=True)
class Noise:
    """The trained model beside itself; KLs in nats a token, from its distributions in fp32.

    >>> noise = Noise(again=0.0, batch=2e-13, dtype="bfloat16", kl=1.1e-3, answered=40, changed=3)
    >>> Noise.from_json(noise.to_json()) == noise, noise.changed_share
    (True, 0.075)
    """

    again: float
    """Computed a second time."""
    batch: float
    """Computed in a batch of another shape."""
    dtype: str
    """A 16-bit type that models are served in, by torch's name."""
    kl: float
    """Computed in that type."""
    answered: int
    """Held-out problems that it answers in that type or in this machine's own; 0 where none were drawn."""
    changed: int
    """Of those, the greedy answers that differ."""

    @property
    def exact(self) -> float:
        """The noise of fp32: what a merge is measured in."""
        return max(self.again, self.batch)

    @property
    def changed_share(self) -> float:
        """The changed greedy answers as a share of the answered problems; 0 where there are none."""
        return self.changed / self.answered if self.answered else 0.0

    def describe(self) -> str:
        """Describe it in a line."""
        answers = f", {self.changed} of {self.answered} greedy answers changed" if self.answered else ""
        return f"noise: KL {self.exact:.1e} computed again and in another batch, {self.kl:.1e} in {self.dtype}{answers}"

    def to_json(self) -> dict[str, object]:
        """Return the noise as `effect.json` and `survival.json` hold it."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Noise":
        """Read what `to_json` gives."""
        return cls(**value)


@dataclass(frozen=True, kw_only=True)
class GateOutcome:
    """Broken limits, each in a sentence; none where all were kept.

    >>> GateOutcome(breaches=("int8 is far off",)).refused, GateOutcome(breaches=()).to_json()
    (True, {})
    """

    breaches: tuple[str, ...] = ()
    reason: str = ""
    """Why they are accepted, in the user's words; empty where they are not."""

    @property
    def refused(self) -> bool:
        """Whether a limit was broken and nobody accepted that."""
        return bool(self.breaches) and not self.reason

    @classmethod
    def join(cls, outcomes: "Sequence[GateOutcome]") -> "GateOutcome":
        """Join the outcomes of several gates: all breaches, each once, and all reasons."""
        breaches = dict.fromkeys(breach for outcome in outcomes for breach in outcome.breaches)
        reasons = dict.fromkeys(outcome.reason for outcome in outcomes if outcome.breaches and outcome.reason)
        return cls(breaches=tuple(breaches), reason="; ".join(reasons))

    @classmethod
    def of_step(cls, folder: Path) -> "GateOutcome":
        """Read what the gates said in a step's own folder; one that no step made has no gates."""
        own, taken = cls.of_gates(folder), cls.from_json(_as_record(_read_record(folder).get("settings")))
        if not is_unfinished(folder):
            return cls.join([own, taken])
        # A breach says more than that the step never ended, but only its end makes a reason hold.
        breaches = own.breaches or (f"{folder} was begun and never finished: it has no {MANIFEST}",)
        return cls(breaches=(*breaches, *taken.breaches))

    @classmethod
    def of_gates(cls, folder: Path) -> "GateOutcome":
        """Read what broke a step's own gates, whether it ended or not."""
        record, survival = _read_record(folder), folder / SURVIVAL
        figures = _as_record(record.get("figures"))
        said = [record, figures, _as_record(figures.get("trial")), read_json(survival) if survival.is_file() else {}]
        return cls.join([*map(cls.from_json, said)])

    def describe(self) -> list[str]:
        """Describe what was accepted, a line for each broken limit."""
        return [f"accepted, because {self.reason}: {breach}" for breach in self.breaches]

    def note_in_card(self, folder: Path) -> None:
        """Add broken limits and reason to a model's card, where no step of a run wrote them there."""
        if not self.breaches or (folder / MANIFEST).is_file():
            return
        card = folder / CARD
        text = read_text(card) if card.is_file() else ""
        words = map(quote_markdown, (*self.breaches, f"accepted: {self.reason}"))
        lines = ["## Refused by its gates", *(f"- {word}" for word in words)]
        if (note := "\n".join(lines)) not in text:
            write_atomically(card, f"{text}\n{note}\n".lstrip())

    def to_json(self) -> dict[str, object]:
        """Return what a manifest or `survival.json` holds of it: nothing where no limit was broken."""
        return {"breaches": [*self.breaches], "accept_refused": self.reason} if self.breaches else {}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "GateOutcome":
        """Read what `to_json` gives, among other keys."""
        return cls(breaches=tuple(value.get("breaches", ())), reason=str(value.get("accept_refused", "")))


@dataclass(frozen=True, kw_only=True)
class Gates:
    """The limits of an export, as they were with the noise that was measured, and the outcome."""

    noise: Noise | None
    """None where it was not measured."""
    kl: float
    """Largest KL(trained || export), nats a token."""
    unchanged: float
    """Least share of unchanged greedy answers, 0 to 1."""
    outcome: GateOutcome

    def describe(self) -> str:
        """Describe the limits in a line.

        >>> Gates(noise=None, kl=1e-3, unchanged=0.99, outcome=GateOutcome()).describe()
        'an export may cost a KL of 1.0e-03 and change 1% of the greedy answers, chance excused'
        """
        noise = f"; {self.noise.describe()}" if self.noise else ""
        changed = f"change {1 - self.unchanged:.0%} of the greedy answers, chance excused"
        return f"an export may cost a KL of {self.kl:.1e} and {changed}{noise}"

    def to_json(self) -> dict[str, object]:
        """Return these keys of `survival.json`."""
        noise = {} if self.noise is None else {"noise": self.noise.to_json()}
        return {"limits": {"kl": self.kl, "unchanged": self.unchanged}, **noise, **self.outcome.to_json()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Gates":
        """Read what `to_json` gives, among other keys."""
        noise = Noise.from_json(value["noise"]) if "noise" in value else None
        return cls(noise=noise, **value["limits"], outcome=GateOutcome.from_json(value))


def judge_breaches(breaches: Sequence[Refused], *, reason: str, folder: Path) -> GateOutcome:
    """Return the outcome of the gates; where they refuse, the mark of the step in this folder says what broke them.

    Raises:
        Refused: the breaches, where nobody said why they are accepted.
    """
    outcome, mark = outcome_of(breaches, reason=reason), folder / STARTED
    if outcome.refused:
        if mark.is_file():  # what tries the step again begins with one of its own
            # The weights may be deleted, to free the disk: what they were is noted.
            made = {file.name: sha256_file(file) for file in folder.glob(_WEIGHTS)}
            write_json(mark, {**read_json(mark), **outcome.to_json(), **({_MADE: made} if made else {})})
        raise join_refused(breaches)
    return outcome


def join_refused(errors: Sequence[Refused]) -> Refused:
    """Return one refusal that says what each of these does, one or more, in their order.

    >>> one, two = (Refused(f"{name} must be small", value=2, cure=f"mend {name}, or {ACCEPT}") for name in "ab")
    >>> print(join_refused([one, two]))
    a must be small, got 2; b must be small, got 2.
      Fix: mend a; mend b, or accept it with --accept-refused REASON
    """
    if len(errors) == 1:
        return errors[0]
    first, *others = errors
    value = "; ".join([str(first.value), *(f"{one.rule}, got {one.value}" for one in others)])
    cures = dict.fromkeys(one.cure.removesuffix(f", or {ACCEPT}") for one in errors)
    return Refused(first.rule, value=value, cure=f"{'; '.join(cures)}, or {ACCEPT}")


def outcome_of(breaches: Sequence[Refused], *, reason: str) -> GateOutcome:
    """Return the outcome of the gates, accepted or not."""
    sentences = tuple(f"{breach.rule}, got {breach.value}" for breach in breaches)
    return GateOutcome(breaches=sentences, reason=_tidy(reason) if breaches else "")


def require_passed(folder: Path, *, reason: str = "", accept: str = ACCEPT) -> GateOutcome:
    """Check that the gates let a model pass, or that someone accepts that they did not; return the outcome.

    Of a model that a training run made, no gate of that run on the way to it may have refused.

    Args:
        folder: the model's, or that of an evaluation or of answers, which must only be finished.
        reason: why it may be used all the same; empty: it may not.
        accept: how the user can say so.

    Raises:
        Refused: a limit was broken, or a step that was begun never ended, and there is no reason.
    """
    outcomes, reason = [GateOutcome.of_step(step) for step in _list_judges(folder)], _tidy(reason)
    if refused := [outcome for outcome in outcomes if outcome.refused]:
        if not reason:
            raise _explain_refused(folder, GateOutcome.join(refused), accept=accept)
        outcomes = [replace(outcome, reason=reason) if outcome.refused else outcome for outcome in outcomes]
    return GateOutcome.join(outcomes)


def require_run(folder: Path, *, reason: str = "") -> GateOutcome:
    """Check that recorded samples are a finished run's and that the gates let its model pass; return the outcome.

    Args:
        folder: the run's.
        reason: why it may be used all the same; empty: it may not.

    Raises:
        Refused: it must not be used, and there is no reason.
    """
    results = _read_object(folder / "results.json")
    # Another program may have written a file of that name, with anything in it.
    words, model = results.get("breaches"), results.get("model")
    ours = isinstance(words, list) and all(isinstance(one, str) for one in words)
    said = GateOutcome.from_json(results) if ours else GateOutcome()
    outcomes = [require_passed(folder, reason=reason), said]
    # What was accepted when the samples were drawn need not be said again.
    if not said.breaches and isinstance(model, str) and model and _is_folder(model):
        outcomes.append(require_passed(Path(model), reason=reason))
    return GateOutcome.join(outcomes)


def is_part(name: str) -> bool:
    """Return whether a run's folder of this name holds a model."""
    return name in PARTS or name.startswith("export-")


def set_aside(export: Path) -> None:
    """Note in the mark of an unfinished export that its run is finished without it: nobody asks for it any longer."""
    if is_unfinished(export):
        write_json(export / STARTED, {**_read_record(export), _ASIDE: True})


def is_set_aside(export: Path) -> bool:
    """Return whether an export is unfinished and its run is finished without it."""
    return is_unfinished(export) and _ASIDE in _read_record(export)


def find_run_export(run: Path) -> Path | None:
    """Return the export that a run stands for: `export`, else the best other one; None where it has none.

    One that the run is finished without is none; one that was refused or never ended is: no other takes its place.
    """

    def rank(folder: Path) -> tuple[int, str]:
        name = folder.name.removeprefix("export-")
        return (_BEST.index(name) if name in _BEST else len(_BEST), name)

    others = [folder for folder in sorted(run.glob("export-*"), key=rank) if (folder / MANIFEST).is_file()]
    own = run / PARTS[0]
    return next(iter([*([own] if any(own.glob("*")) and not is_set_aside(own) else []), *others]), None)


def _explain_refused(folder: Path, outcome: GateOutcome, *, accept: str) -> Refused:
    command = _COMMANDS.get(str(_read_record(folder).get("step")))
    rule, cure = "a model must have passed the gates of its run", "run its training command to the end"
    if command and is_unfinished(folder):
        rule, cure = "a run must be finished before it is used", f"let its command, `{command}`, go on to the end"
    elif is_set_aside(folder) and (made := find_run_export(folder.parent)):
        cure = f"use {made}, which the run was finished with"
    return Refused(rule, value="; ".join(outcome.breaches), cure=f"{cure}, or {accept}")


def _list_judges(folder: Path) -> list[Path]:
    """List the folders whose gates judge what is in this one: its own, and those on the way to it in its run."""
    place = folder.resolve()
    if not is_part(place.name):
        return [folder]
    run = folder.parent if folder.parent.resolve() == place.parent else place.parent
    return [folder, *(run / name for name in _WAY if name != place.name and _is_judge(run / name, place))]


def _is_judge(step: Path, made: Path) -> bool:
    """Return whether a step of its run judges what was made there: not where it has begun anew with other weights."""
    ours, theirs = _list_inputs(made), _list_inputs(step)
    if any(ours[name] != theirs[name] for name in ours.keys() & theirs.keys()):
        return False
    if step.name != "merged":
        return step.name != "adapter" or not is_unfinished(step)
    if made.name == "adapter":
        # Only where a merge into what it was trained on cost too much may it be of another training.
        into = _as_record(_read_record(step).get("settings")).get("base")
        return into != "original" and bool(GateOutcome.of_gates(step).breaches)
    return _has_weights(step, _as_record(ours.get(step.name)))


def _has_weights(step: Path, hashes: Mapping[str, object]) -> bool:
    """Return whether a step made the weights of these hashes. One that was killed noted none, so its files are read."""
    weights = {name: value for name, value in hashes.items() if fnmatch(name, _WEIGHTS)}
    record = _read_record(step)
    made = _as_record(record.get("outputs")) or _as_record(record.get(_MADE))
    # A mark from before they were noted says only that its weights were refused.
    gone = weights if GateOutcome.of_gates(step).breaches else {}
    made = made or {**gone, **{name: sha256_file(step / name) for name in weights if (step / name).is_file()}}
    return all(made.get(name) == value for name, value in weights.items())


def _list_inputs(folder: Path) -> dict[str, object]:
    """Return the hashes of what a step was made of, and of the adapter that it made: an input of all others."""
    record = _read_record(folder)
    made = _as_record(record.get("outputs")) if folder.name == "adapter" else {}
    return {**_as_record(record.get("inputs")), **{name: {name: digest} for name, digest in made.items()}}


def _read_record(folder: Path) -> Mapping[str, object]:
    """Read a step's manifest, or its mark where there is none; {} where another program wrote it."""
    return _read_object(next((folder / name for name in (MANIFEST, STARTED) if (folder / name).is_file()), None))


def _read_object(file: Path | None) -> Mapping[str, object]:
    """Read a JSON object; {} where there is none, or no such."""
    try:
        return read_json(file) if file and file.is_file() else {}
    except UserError:
        return {}


def _is_folder(path: str) -> bool:
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):  # too long, or with a NUL
        return False


def _as_record(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _tidy(reason: str) -> str:
    """Return a reason on one line: it stands in tables and cards."""
    return quote(reason, most=1000)
