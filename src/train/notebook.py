"""`python -m train notebook`: the notebooks that train on Kaggle and on Colab."""

import shlex
import subprocess
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from mathlete.command import Command, console, run_command_line
from mathlete.environment import code_state
from mathlete.errors import UserError
from mathlete.models import find_model
from mathlete.submission.training import TrainingMachine, TrainingNames, TrainingNotebook, write_training
from train.math_command import MATH_COMMAND, split_batch
from train.settings import MathSettings

_FLAGS = "--model r1-qwen-1.5b --source openr1"
_OWN = ("--run", "--json", "--plan", "--device", "--session.")
"""Flags that the notebook sets itself, or that train nothing."""


@dataclass(frozen=True, kw_only=True)
class NotebookSettings:
    """What the notebooks train, on which machine, and what they are called."""

    flags: str = _FLAGS
    """The flags of `train math`, as --flags="--model pocket --limit 300"; the notebook itself adds run and session."""
    base: str = ""
    """A model on Kaggle to begin from, OWNER/MODEL/FRAMEWORK/VARIATION/VERSION, in the place of `--model`."""
    traces: str = ""
    """A file of problems with traces in a data set on Kaggle, OWNER/SLUG/FILE, in the place of `--source`."""
    resume: bool = False
    """Mount the data set of an earlier session on Kaggle: it must be there, Kaggle drops what is not."""
    push: bool = False
    """Push the export as the model's next version when the run is finished; without it the notebook says what it would
    send."""
    url: str = ""
    """The repository that the notebooks clone; default: the address of this checkout's origin."""
    commit: str = ""
    """The commit that they install, all 40 digits; default: this checkout's."""
    run: Path = Path("kaggle/train")
    """Folder of the notebooks; kaggle/ itself is the submission's."""
    overwrite: bool = False
    """Replace a notebook that was edited by hand."""
    json: bool = False
    """End with one line of JSON on stdout."""
    names: TrainingNames = field(default_factory=TrainingNames)
    kaggle: Annotated[TrainingMachine, tyro.conf.arg(name="")] = field(default_factory=TrainingMachine)


def write_notebooks(settings: NotebookSettings) -> dict[str, object]:
    """Write the notebooks and Kaggle's metadata; return the files."""
    say = partial(console(json=settings.json).print, markup=False)
    settings.kaggle.check()
    words = read_flags(settings)
    url, commit = settings.url or _find_origin(), settings.commit or _find_commit()
    made = TrainingNotebook(
        words=tuple(words),
        names=settings.names,
        url=url,
        commit=commit,
        base=settings.base,
        traces=settings.traces,
        resume=settings.resume,
        push=settings.push,
        machine=settings.kaggle,
    )
    require_room(settings, words, say=say)
    files = write_training(settings.run, made, overwrite=settings.overwrite)
    say(f"{files[0]}: on Kaggle {made.names.kernel_id}, as kernel-metadata.json beside it says · {files[1]}: on Colab")
    say(f"installs commit {commit[:12]} of {url}: push it there before they run")
    say(f"next: kaggle kernels push -p {shlex.quote(str(settings.run))}, then look at what it dropped of the inputs")
    return {"files": [str(file) for file in files], "url": url, "commit": commit, "words": words}


def read_flags(settings: NotebookSettings) -> list[str]:
    """Return the words of `train math`, after the command itself has read them.

    Raises:
        UserError: it does not take them, or the notebook sets one of them itself.
    """
    rule = "--flags must be flags of `train math`"
    try:
        words = shlex.split(settings.flags)
    except ValueError as error:
        raise UserError(rule, value=f"{settings.flags} ({error})", cure="close the quotes") from error
    instead = {"--model": settings.base, "--source": settings.traces}
    taken = (*_OWN, *(flag for flag, other in instead.items() if other))
    for word in words:
        if word.startswith("--") and any(word == flag or word.startswith((f"{flag}=", "--session.")) for flag in taken):
            raise UserError("the notebook says itself what it trains into and from", value=word, cure="leave it out")
    _read_settings(settings, words)
    return words


def _read_settings(settings: NotebookSettings, words: list[str]) -> MathSettings:
    read: list[MathSettings] = []

    def keep(one: MathSettings) -> dict[str, object]:
        one.check()
        read.append(one)
        return {}

    # What is mounted has a place on Kaggle alone: any name stands for it here.
    mounted = [
        *(["--model", "mounted"] if settings.base else []),
        *(["--source", "x.jsonl"] if settings.traces else []),
    ]
    commands = {"math": replace(MATH_COMMAND, run=keep)}
    if run_command_line(["math", *words, *mounted], prog="python -m train", commands=commands) or not read:
        rule = "--flags must be flags of `train math`"
        raise UserError(
            rule, value=shlex.join(words), cure="mend what is said above; `train math --help-all` lists them"
        )
    return read[0]


def require_room(settings: NotebookSettings, words: list[str], *, say: "partial[None]") -> None:
    """Say what the training needs of the machine's memory.

    Raises:
        UserError: it does not fit.
    """
    if settings.base:
        say(f"{settings.base} is not here: whether it fits {settings.kaggle.gpus} is known when the notebook runs")
        return
    from mathlete.tune import plan_training

    one = _read_settings(settings, words)
    gpus, model = settings.kaggle.gpus, find_model(one.model or "pocket")
    planned = replace(one.staging, planned=replace(one.staging.planned, device=gpus))
    one = split_batch(replace(one, staging=planned), model, say=say)
    plan = plan_training(model, recipe=one.recipe, longest=one.data.rows.max_tokens, gpu=gpus)
    needs = f"{plan.peak / 2**30:.1f} GiB of {plan.device.memory_gib:.0f} on each GPU of {gpus}"
    if not plan.fits:
        raise UserError("the training must fit the machine's GPUs", value=needs, cure=f"{plan.cure}, in --flags")
    say(f"needs {needs}")


def _find_commit() -> str:
    state = code_state()
    if not state["commit"] or state["dirty"]:
        value = "a checkout with changes that no commit has" if state["commit"] else "no checkout of git"
        cure = "commit them, or name a commit with --commit"
        raise UserError("the notebooks install a commit", value=value, cure=cure)
    return str(state["commit"])


def _find_origin() -> str:
    """Return the address of the checkout's origin.

    Raises:
        UserError: there is none that anybody could clone.
    """
    command = ["git", "-C", str(Path(__file__).parent), "remote", "get-url", "origin"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    url = done.stdout.strip()
    if done.returncode or not url.startswith("https://"):
        cure = "name the https address of a repository that they may clone with --url"
        raise UserError("the notebooks clone a repository", value=url or "no origin", cure=cure)
    return url


NOTEBOOK_COMMAND = Command(
    settings=NotebookSettings,
    run=write_notebooks,
    help="Writes notebooks that train on Kaggle and on Colab, session after session, and keep the export as a model's "
    "version.\n\nExamples:\n\npython -m train notebook --names.owner alice --url https://github.com/alice/mathlete\n\n"
    'python -m train notebook --run kaggle/train --flags="--model r1-qwen-7b --source openr1 --rows.max-tokens 4096"',
)
