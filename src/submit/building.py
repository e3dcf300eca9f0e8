"""`submit build`: the notebook, its metadata and its wheels of an exported model, by choices that are kept."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Annotated, Literal, TypeVar

import tyro

from mathlete.command import LeadingFlags, busy, console
from mathlete.competitions import Competition, competition
from mathlete.delivery import complete_names
from mathlete.drawing import ModelSettings
from mathlete.errors import UserError
from mathlete.folders import require_apart
from mathlete.gates import find_run_export
from mathlete.kernel import KernelConfig
from mathlete.locks import hold
from mathlete.models import Shape, find_model
from mathlete.prompts import PromptSettings
from mathlete.runs import read_record
from mathlete.sampling import SamplingConfig
from mathlete.sampling.served import VllmSettings
from mathlete.solve import Policy
from mathlete.submission import Build, Names, build_submission
from mathlete.tir import ToolSettings
from submit.adapters import AdapterChoices, build_adapter_command, note_build
from submit.choices import CHOICES, is_same_model, name_kept, read_choices, write_choices
from submit.described import describe_build
from submit.mounting import find_export, find_model_files
from submit.rules import find_rules
from submit.settings import KAGGLE, WHEELS, WORK, RunFolder


@dataclass(frozen=True, kw_only=True)
class KaggleSettings:
    """What Kaggle is told of notebook and model."""

    machine: str | None = None
    """Kaggle's machine shape; default: the competition's."""
    licence: str = ""
    """The model's, by Kaggle's name of it; default: Apache 2.0, of a model that is mounted what its card says."""
    image: str = ""
    """Docker image pinned by its digest; empty: the one in use when the notebook is first saved."""


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What its files do not say of the model."""

    model_source: str = ""
    """A model of somebody's on Kaggle to mount in the export's place, which is not uploaded:
    OWNER/MODEL/FRAMEWORK/VARIATION/VERSION."""
    model_gib: float | None = None
    """Size of its weights, GiB; default: by the files beside its config, or their index."""
    vocabularies: Path | None = None
    """Folder of the vocabulary files that the model's library would download (gpt-oss: o200k_base.tiktoken)."""
    accept_refused: str = ""
    """Why to submit a model that the gates of its training refused: for build.json, model card and ledger."""
    released: str = ""
    """Day the base model was released, YYYY-MM-DD, for preflight and push; default: known by the model's name."""
    adapter: AdapterChoices = field(default_factory=AdapterChoices)


@dataclass(frozen=True, kw_only=True)
class Solving:
    """How the notebook solves a problem."""

    policy: str = "clock"
    """Stop and vote, as in `python -m eval --policy`."""
    n: int = 8
    """Number of samples drawn for each problem."""
    budget: str = ""
    """The clock, as for `python -m eval replay`: SECONDS[:FLOOR:CEILING[:RESERVE]]; default, and none: the rules'."""
    policy_file: Path | None = None
    """Take policy, n, budget, sampling, tools and prompt from this file of `python -m eval replay --write-policy`;
    flags go first."""
    harvest: float = 0.0
    """Weight of forced answers beside samples' own, as in `python -m eval --harvest`; 0: none."""
    harvest_tokens: int = 32
    """Cap on what fills the box of such an answer, tokens."""
    seed: int = 0
    """Seed of the samples; where the private set is run more than once, every run has the same samples."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)

    def with_file(self, file: Path) -> "Solving":
        """Return the settings with those of a policy file.

        Raises:
            UserError: it is no such file.
        """
        from mathlete.replay import Choice

        choice = Choice.read(file)
        return replace(
            self,
            policy=choice.policy,
            n=choice.n,
            budget="" if choice.budget == "none" else choice.budget,
            harvest=choice.harvest,
            harvest_tokens=choice.harvest_tokens or self.harvest_tokens,
            sampling=choice.sample(self.sampling),
        )

    def to_policy(self) -> Policy:
        """Return the policy in words and numbers.

        Raises:
            UserError: an unknown stop or vote, or a value out of its range.
        """
        return Policy(
            n=self.n,
            seed=self.seed,
            sampling=self.sampling,
            harvest=self.harvest,
            harvest_tokens=self.harvest_tokens,
        ).with_words(self.policy)


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What draws the samples, and of which prompt."""

    engine: Literal["embedded", "vllm", "auto"] = "embedded"
    """What draws the samples: the embedded engine, vLLM, or auto, vLLM where the machine has a GPU that it serves."""
    vllm: VllmSettings = field(default_factory=VllmSettings)
    vllm_wheels: Path | None = None
    """Folder of `submit wheels --engine vllm` to send; default: a notebook on Kaggle downloads vLLM's wheels."""
    tools: ToolSettings = field(default_factory=ToolSettings)
    prompt: PromptSettings = field(default_factory=PromptSettings)


Drawer = TypeVar("Drawer", Drawing, ModelSettings)
"""Settings of tools and prompt, among others."""


def draw_as_recorded(usual: Drawer, file: Path) -> Drawer:
    """Return the settings with the tools and the prompt of a policy file, where it says them.

    Raises:
        UserError: it is no such file.
    """
    from mathlete.replay import Choice

    choice = Choice.read(file)
    return replace(usual, tools=choice.draw_tools(usual.tools), prompt=choice.draw_prompt(usual.prompt))


def require_clock(solving: Solving, rules: Competition) -> None:
    """Check the clock of a policy file, where no flag says another.

    Raises:
        UserError: it was replayed by other rules or for another number of questions, or is longer than the rules'.
    """
    from mathlete.replay import Choice

    choice = Choice.read(solving.policy_file or Path())
    refused = choice.refuse_clock(rules) if solving.budget == choice.budget else None
    if refused:
        cure = f"{refused.cure}, or add --budget none for the competition's own clock"
        raise UserError(refused.rule, value=f"{refused.value}, in {solving.policy_file}", cure=cure)


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the wheels hold beside what the notebook needs, and where they come from."""

    need: tuple[str, ...] = ()
    """More requirements to carry, such as "einops>=0.8"; later builds keep to them until it is `none`."""
    find_links: Path | None = None
    """Take the wheels from this folder instead of the package index; later builds keep to it until it is `none`."""

    def settle(self, run: Path) -> "Wishes":
        """Return what was said, or else what the last build in the folder was told."""
        need, find_links = Build.read_wishes(run)
        return Wishes(
            need=() if self.need == ("none",) else self.need or need,
            find_links=None if self.find_links == Path("none") else self.find_links or find_links,
        )


@dataclass(frozen=True, kw_only=True)
class BuildSettings:
    """What to build of what."""

    model: str = "pocket"
    """The export: a folder, a run with several, of which the machine's is taken, or pocket. With --model-source
    tokenizer and config: a folder without weights, or a hub id. Where the competition takes an adapter: its folder,
    a zip of it, or a run."""
    competition: str = "aimo-3"
    """A competition's name, or a file of its rules, NAME.toml."""
    choices: Path | None = None
    """Begin from the choices that another build kept in this file; default: from those of the last build of the same
    model in the folder. none: from the defaults."""
    run: RunFolder = WORK
    """The build's folder. Notebook and wheels go to kaggle/ and runs/wheels, or into any other folder named here."""
    overwrite: bool = False
    """Delete wheels that were made for other requirements, and a notebook that was edited by hand."""
    json: bool = False
    """End with one line of JSON on stdout."""
    about: Annotated[ModelFacts, tyro.conf.arg(name="")] = field(default_factory=ModelFacts)
    solving: Annotated[Solving, tyro.conf.arg(name="")] = field(default_factory=Solving)
    drawing: Annotated[Drawing, tyro.conf.arg(name="")] = field(default_factory=Drawing)
    wishes: Annotated[Wishes, tyro.conf.arg(name="")] = field(default_factory=Wishes)
    names: Names = field(default_factory=Names)
    kaggle: KaggleSettings = field(default_factory=KaggleSettings)

    @property
    def outputs(self) -> tuple[Path, Path]:
        """Folders of notebook and metadata, and of the wheels."""
        return (KAGGLE, WHEELS) if self.run == WORK else (self.run / "kaggle", self.run / "wheels")


LEADING_FLAGS = ("model", "policy-file", "model-source", "run", "folder", "choices")
"""Flags that the defaults of others depend on."""


def build_defaults(flags: LeadingFlags) -> BuildSettings:
    """Return the choices of the last build, with those of a policy file; without any, the defaults for the model.

    Completions may then be as long as a quarter of the model's context, at most R1's 32768 tokens.
    """
    settings = _read_kept(flags) or _fresh_defaults(flags)
    if not (chosen := flags.last("policy-file")):
        return settings
    file = Path(chosen)
    return replace(settings, solving=settings.solving.with_file(file), drawing=draw_as_recorded(settings.drawing, file))


def _read_kept(flags: LeadingFlags) -> "BuildSettings | None":
    """Return the choices that hold where the words say nothing else; None where there are none."""
    if flags.asks_for_help or (word := flags.last("choices")) == "none":
        return None
    if word is not None:
        return read_choices(Path(word), BuildSettings)
    file = Path(flags.last("run") or flags.last("folder") or WORK) / CHOICES
    if not file.is_file():
        return None
    kept = read_choices(file, BuildSettings)
    # Cap and format follow from the model: those of another one are no choice of this build.
    same = is_same_model(flags.last("model"), kept.model)
    same = same and flags.last("model-source") in (None, kept.about.model_source)
    # What the wheels hold is kept in build.json, until it is taken back.
    return replace(kept, wishes=Wishes()) if same else None


def _fresh_defaults(flags: LeadingFlags) -> BuildSettings:
    return _usual(flags.last("model") or "pocket", mounted=bool(flags.last("model-source")))


def _usual(model: str, *, mounted: bool = False) -> BuildSettings:
    return BuildSettings(
        solving=Solving(sampling=SamplingConfig(max_tokens=find_cap(model, asks_hub=mounted, described=True)))
    )


def find_cap(model: str, *, asks_hub: bool, described: bool = False) -> int:
    """Return how long a completion may be: a quarter of the model's context, at most R1's 32768 tokens.

    Args:
        model: pocket, a folder, a run with exports or a hub id.
        asks_hub: whether the hub, or its cache, is asked about a model that is no folder.
        described: whether no weights of it are needed here, which a refusal's cure then leaves out.
    """
    folder = Path(find_model("pocket").location) if model == "pocket" else Path(model)
    # The exports of a run are of one model.
    made = None if (folder / "config.json").is_file() else find_run_export(folder)
    file = (made or folder) / "config.json"
    context = None
    if file.is_file():
        context = read_record(file, Shape.read_context)
    elif asks_hub and "/" in model and not folder.exists():
        context = Shape.read_context(find_model(model).read_described("config.json", alone=described))
    return min(32_768, (context or _CONTEXT) // 4)


_CONTEXT = 4096
"""Tokens of the context of a model that does not say."""


def build_command(settings: BuildSettings) -> dict[str, object]:
    """Write the notebook, its metadata and its wheels; return their hashes."""
    file = settings.choices or settings.run / CHOICES
    try:
        return _build(settings)
    except UserError as error:
        kept = read_choices(file, BuildSettings) if file.is_file() else None
        told = kept and name_kept(error, settings, kept=kept, usual=_usual(settings.model), file=file)
        if not told:
            raise
        raise UserError(error.rule, value=error.value, cure=f"{error.cure}; {told}") from error


def _build(settings: BuildSettings) -> dict[str, object]:
    out = console(json=settings.json)
    require_apart(settings.run / "build.json")
    rules = competition(settings.competition)
    if rules.deliverable == "adapter":
        return build_adapter_command(settings, _usual(settings.model), rules)
    about, solving, drawing = settings.about, settings.solving, settings.drawing
    if drawing.prompt.organiser:
        # Its rules may be a file of this machine, and an organiser who chooses a prompt takes no notebook.
        rule, cure = "a notebook's prompt is its own", "use --prompt.instruction and --prompt.template-args"
        cure += ", and --prompt.organiser '' in place of the policy file's" if solving.policy_file else ""
        raise UserError(rule, value=f"--prompt.organiser {drawing.prompt.organiser}", cure=cure)
    machine = settings.kaggle.machine or rules.notebook.machine
    config = KernelConfig(
        competition=rules, policy=solving.to_policy(), tools=drawing.tools, prompt=drawing.prompt, vllm=drawing.vllm
    )
    if solving.policy_file:
        require_clock(solving, rules)
    config = config.with_budget(solving.budget)
    config.check()
    named, chosen = find_export(settings.model, engine=drawing.engine, machine=machine, config=config)
    if chosen:
        out.print(f"export {named}: {chosen}", markup=False)
    mounts = (about.model_source, about.model_gib)
    model, given = find_model_files(named, *mounts, names=settings.names, run=settings.run)
    if given.uploads_model:
        # A refusal in a second, before all weights are hashed for their version.
        Build.choose_engine(drawing.engine, model=model, machine=machine, config=config)
    names, reason = complete_names(given, model=model, folder=settings.run)
    if reason:
        out.print(f"owner {names.owner}: {reason}")
    kaggle, wheels = settings.outputs
    if (settings.run / CHOICES).is_file() and settings.choices is None:
        out.print(f"what no flag says is as in {settings.run / CHOICES}, where that is of the same model")
    wishes = settings.wishes.settle(settings.run)
    if wishes != settings.wishes:
        words = f"--need {' '.join(wishes.need) or 'none'} --find-links {wishes.find_links or 'none'}"
        out.print(f"as in the last build: {words}")
    with hold(settings.run), busy("wheels, notebook, hashes"):
        made = build_submission(
            model=model,
            config=config,
            names=names,
            kaggle=kaggle,
            wheels=wheels,
            machine=settings.kaggle.machine,
            image=settings.kaggle.image,
            licence=settings.kaggle.licence,
            requirements=wishes.need,
            find_links=wishes.find_links,
            model_gib=about.model_gib,
            vocabularies=about.vocabularies,
            overwrite=settings.overwrite,
            accept_refused=about.accept_refused,
            released=about.released,
            engine=drawing.engine,
            vllm_wheels=drawing.vllm_wheels,
            say=partial(out.print, markup=False),
        )
        made.save(settings.run)
        hashes = made.hashes()
    note_build(settings.run, hashes, accept_refused=made.accept_refused, say=partial(out.print, markup=False))
    file = keep_choices(replace(settings, wishes=wishes))
    for line in describe_build(made, settings, names=names):
        out.print(line, markup=False)
    out.print(f"choices    {file}: the same command without flags builds this again, elsewhere --choices FILE")
    for name, digest in asdict(hashes).items():
        out.print(f"{name:<10} {digest[:16] or 'not pinned'}")
    out.print(f"build      {made.stamp}: in the notebook, in its log, journal and output")
    again = "" if settings.run == WORK else f" --run {quote(str(settings.run))}"
    out.print(f"{kaggle}: notebook and metadata · {wheels}: wheels · next: python -m submit rehearse{again}")
    engine = made.config.engine
    return {
        "kaggle": str(kaggle),
        "wheels": str(wheels),
        "build": made.stamp,
        "engine": engine,
        "choices": str(file),
        "hashes": asdict(hashes),
    }


def find_chosen_rules(build: Build, folder: Path, *, say: Callable[[str], None]) -> Competition:
    """Return the rules of the build in a folder as the file that was chosen has them now: see `find_rules`."""
    file, kept = folder / CHOICES, build.config.competition
    word = read_choices(file, BuildSettings).competition if file.is_file() else kept.name
    return find_rules(word, kept=kept, say=say)


def keep_choices(settings: BuildSettings) -> Path:
    """Write what was chosen into the build's folder, from which the next build begins; return the file."""
    file = settings.run / CHOICES
    write_choices(file, settings, leave_out=NO_CHOICES)
    return file


NO_CHOICES = ("run", "overwrite", "json", "choices", "policy_file", "adapter")
"""Settings that say where and how a build is made, whose words are among the choices by now, or of an adapter, whose
build keeps none."""
