"""An adapter rehearsed: served beside its base as the organiser serves it, scored by the organiser's rule.

Four draws of the same prompts: as the organiser samples, and greedily by vLLM, by peft and by the merged model. The
second and the third must agree, else vLLM serves another model than was trained; the fourth stands beside them.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from mathlete.answers import compare, read_answer
from mathlete.competitions import Competition, SamplingRules
from mathlete.errors import UserError, require
from mathlete.models import load_prompt_format
from mathlete.organiser import BothJudged, Grade, ScorerResult, judge_both, list_golds
from mathlete.problems import Problem
from mathlete.rehearsal.adapter.draws import DrawnTexts, Draws, Watch, draw_with_peft, draw_with_vllm
from mathlete.runs import read_record, sha256_json, write_json
from mathlete.submission.adapter import AdapterBuild, extract_adapter

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

AdapterEngine = Literal["vllm", "peft"]
"""What serves the adapter: vLLM, as the organiser's · peft, where vLLM can't be had: that proves no tensor's name."""
_GREEDY = "greedy"
_ORGANISER = "organiser"


@dataclass(frozen=True, kw_only=True)
class AdapterRehearsalSettings:
    """How an adapter is rehearsed."""

    engine: AdapterEngine = "vllm"
    python: Path | None = None
    """Interpreter of an environment that has vLLM."""
    max_tokens: int | None = None
    """Cap on an answer here, where the organiser's is too long for this machine; None: the organiser's."""
    dtype: str = "float32"
    """What is computed in here; auto: what the base is stored in, as the organiser's vLLM does."""

    def check(self) -> None:
        """Raise UserError where a value is out of its range."""
        cap = self.max_tokens
        require(("adapter.max-tokens", cap, cap is None or cap >= 1, "at least 1"), cure="leave it out")


@dataclass(frozen=True, kw_only=True)
class AdapterScore:
    """What the organiser gives for the answers of one draw."""

    right: float
    """Right answers; of several samples of a problem their share."""
    points: float
    cut: int
    """Answers that were cut at the cap on tokens."""


@dataclass(frozen=True, kw_only=True)
class AdapterReport:
    """What a rehearsal of an adapter gave, and the hashes of what was rehearsed."""

    file_name: ClassVar[str] = "adapter-rehearsal.json"
    """In the build's folder."""
    competition: str
    rules: Mapping[str, object]
    """The competition's, under which it was made."""
    zip: str
    """SHA-256 of the zip."""
    engine: AdapterEngine
    problems: int
    max_tokens: int
    """Cap on an answer here."""
    asked_tokens: int
    """The organiser's cap."""
    organiser: AdapterScore
    """As the organiser samples."""
    greedy: AdapterScore
    """Greedily, by what serves it."""
    merged: AdapterScore
    """Greedily, by the base with the adapter in its weights."""
    same_as_peft: float | None
    """Share of greedy answers that are peft's; None where peft itself served it."""
    same_as_merged: float
    facts: Mapping[str, object]
    """What drew them: versions and the type that it computed in."""
    scorer: Mapping[str, Any] = field(default_factory=dict)
    """What the organiser's scorer and mathlete's checker say of the first draw; reports of before have nothing."""

    def to_json(self) -> dict[str, object]:
        """Return the report as JSON values; `from_json` reads them back."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "AdapterReport":
        """Return the report in a value that `to_json` made."""
        scores = {name: AdapterScore(**value[name]) for name in ("organiser", "greedy", "merged")}
        return cls(**{**value, **scores, "rules": dict(value["rules"])})

    def describe(self) -> list[str]:
        """Return it in lines."""
        scores = {"as the organiser samples": self.organiser, "greedy": self.greedy, "merged, greedy": self.merged}
        lines = [
            f"{name}: {score.points:g} points, {score.right:g} of {self.problems} right, {score.cut} cut"
            for name, score in scores.items()
        ]
        facts = " · ".join(f"{name} {value}" for name, value in self.facts.items())
        same = (
            "peft served it itself" if self.same_as_peft is None else f"{self.same_as_peft:.1%} of answers are peft's"
        )
        short = "" if self.max_tokens == self.asked_tokens else f" · answers of at most {self.max_tokens:,} tokens, "
        short += f"where the organiser gives {self.asked_tokens:,}" if short else ""
        return [
            f"served by {self.engine} · {facts}{short}",
            *lines,
            f"{same} · {self.same_as_merged:.1%} the merged model's",
            *self.scorer.get("words", ()),
        ]


def load_adapter_report(folder: Path) -> AdapterReport | None:
    """Read the report in a build's folder; None where there is none.

    Raises:
        UserError: the file is no report.
    """
    file = folder / AdapterReport.file_name
    return read_record(file, AdapterReport.from_json) if file.is_file() else None


def rehearse_adapter(
    build: AdapterBuild,
    problems: Sequence[Problem],
    settings: AdapterRehearsalSettings,
    *,
    folder: Path,
    watch: Callable[[str], AbstractContextManager[Watch]] = lambda what: nullcontext(lambda done, total: None),
) -> AdapterReport:
    """Serve the zip's adapter beside its base, score its answers, compare them with peft's and write the report.

    Args:
        build: the zip and the rules.
        problems: the questions, with their golds.
        settings: how.
        folder: the build's; a draw that is whole there is not made again.
        watch: entered with the name of a draw, for as long as it takes; what it yields is told how far that is.

    Raises:
        UserError: the base is not here, vLLM refuses the adapter, or a prompt leaves no room for an answer.
    """
    settings.check()
    base = build.base_source
    if base is None:
        rule, cure = "a rehearsal needs the base of the adapter here", "build with --adapter.base FOLDER, or a hub id"
        raise UserError(rule, value=f"{build.rules.base[0]} is not", cure=cure)
    rules, digest = build.competition, build.hashes().weights
    sampling = plan_sampling(rules, cap=settings.max_tokens)
    tokenizer = load_prompt_format(base).tokenizer
    prompts = {problem.id: render_prompt(problem.statement, rules=rules, tokenizer=tokenizer) for problem in problems}
    ids = {name: list_ids(text, tokenizer) for name, text in prompts.items()}
    require_room(ids, sampling[_GREEDY])
    how = {"sampling": {name: asdict(one) for name, one in sampling.items()}, "dtype": settings.dtype}
    key = sha256_json({"zip": digest, "base": base.identity, "prompts": prompts, **how})
    stage = folder / f"adapter-rehearsal-{key[:8]}"
    adapter = stage / "adapter"
    adapter.mkdir(parents=True, exist_ok=True)
    extract_adapter(build.zip, into=adapter)
    served, peft, merged = (Draws(file=stage / f"{name}.jsonl") for name in (settings.engine, "peft", "merged"))
    if settings.engine == "vllm":
        assert settings.python is not None  # the command looked for one
        with watch("vLLM") as show:
            draw_with_vllm(
                served,
                python=settings.python,
                base=base,
                adapter=adapter,
                rules=build.rules,
                sampling=sampling,
                prompts=prompts,
                dtype=settings.dtype,
                watch=show,
            )
        require_same_prompts(served.read(_GREEDY), ids)
    draw = partial(
        draw_with_peft,
        base=base,
        adapter=adapter,
        prompt_ids=ids,
        tokenizer=tokenizer,
        dtype=None if settings.dtype == "auto" else settings.dtype,
    )
    own = sampling if settings.engine == "peft" else {_GREEDY: sampling[_GREEDY]}
    with watch("peft") as show:
        draw(peft, merged=False, sampling=own, watch=show)
    with watch("merged") as show:
        draw(merged, merged=True, sampling={_GREEDY: sampling[_GREEDY]}, watch=show)
    greedy = served.read(_GREEDY)
    asked = served.read(_ORGANISER) if _ORGANISER in sampling else greedy
    report = AdapterReport(
        competition=rules.name,
        rules=rules.to_json(),
        zip=digest,
        engine=settings.engine,
        problems=len(problems),
        max_tokens=sampling[_GREEDY].max_tokens,
        asked_tokens=asked_sampling(rules).max_tokens,
        organiser=score(asked, problems, rules=rules),
        greedy=score(greedy, problems, rules=rules),
        merged=score(merged.read(_GREEDY), problems, rules=rules),
        same_as_peft=None if settings.engine == "peft" else share_same(greedy, peft.read(_GREEDY), rules=rules),
        same_as_merged=share_same(greedy, merged.read(_GREEDY), rules=rules),
        facts=served.facts(),
        scorer=judge_texts(asked, problems, rules=rules).to_summary(),
    )
    write_json(folder / AdapterReport.file_name, report.to_json())
    return report


def asked_sampling(rules: Competition) -> SamplingRules:
    """Return how the organiser samples.

    Raises:
        UserError: the rules do not say.
    """
    if rules.sampling is None:
        cure = "add a table [sampling] to the competition's file: temperature and max_tokens at least"
        raise UserError(f"{rules.name} must say how an adapter is sampled", value="no table [sampling]", cure=cure)
    return rules.sampling


def plan_sampling(rules: Competition, *, cap: int | None) -> dict[str, SamplingRules]:
    """Return {name of a draw: how it samples}: the organiser's way, and greedily; once where that is the same."""
    asked = asked_sampling(rules)
    asked = asked if cap is None else replace(asked, max_tokens=min(cap, asked.max_tokens))
    greedy = replace(asked, temperature=0.0, top_p=1.0, top_k=None, samples=1)
    return {_GREEDY: greedy} if asked.temperature == 0 else {_ORGANISER: asked, _GREEDY: greedy}


def render_prompt(statement: str, *, rules: Competition, tokenizer: "PreTrainedTokenizerBase") -> str:
    """Return the text that the organiser gives vLLM for a problem; without rules of a prompt the statement alone."""
    from jinja2 import TemplateError

    if rules.prompt is None:
        return statement
    try:
        return rules.prompt.render(statement, tokenizer=tokenizer)
    except (TemplateError, ValueError) as error:
        cure = "take the tokenizer's folder as its maker wrote it"
        raise UserError(
            "the base's chat template must render the organiser's prompt", value=str(error), cure=cure
        ) from error


def list_ids(text: str, tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Return what vLLM makes of a prompt's text: its tokenizer adds bos, whether the text begins with it or not."""
    ids: list[int] = tokenizer(text)["input_ids"]
    return ids


def require_room(ids: Mapping[str, Sequence[int]], sampling: SamplingRules) -> None:
    """Raise UserError where a prompt leaves no token of the organiser's context to answer in."""
    if sampling.max_model_len is None:
        return
    for name, prompt in ids.items():
        if len(prompt) >= sampling.max_model_len:
            raise UserError(
                f"the prompt of problem {name} must leave room in the organiser's {sampling.max_model_len} tokens",
                value=f"{len(prompt)} tokens",
                cure="take the problem out of the suite",
            )


def require_same_prompts(drawn: Mapping[str, DrawnTexts], ids: Mapping[str, Sequence[int]]) -> None:
    """Raise UserError where vLLM made other tokens of a prompt than this project."""
    for name, one in drawn.items():
        if [*one.prompt_ids] != [*ids[name]]:
            raise UserError(
                "vLLM must read a prompt as it is read here",
                value=f"{len(one.prompt_ids)} tokens there and {len(ids[name])} here, of problem {name}",
                cure="use the transformers and tokenizers of the organiser's vLLM here",
            )


def score(drawn: Mapping[str, DrawnTexts], problems: Sequence[Problem], *, rules: Competition) -> AdapterScore:
    """Have the organiser's scorer judge every answer; several samples of a problem count their mean."""
    judged = {
        problem.id: [rules.scorer.judge(text, gold=problem.gold) for text in drawn[problem.id].texts]
        for problem in problems
    }
    return AdapterScore(
        right=sum(sum(one.right for one in own) / len(own) for own in judged.values()),
        points=sum(sum(one.points for one in own) / len(own) for own in judged.values()),
        cut=sum(one == "length" for problem in problems for one in drawn[problem.id].finish),
    )


def judge_texts(drawn: Mapping[str, DrawnTexts], problems: Sequence[Problem], *, rules: Competition) -> ScorerResult:
    """Return what the organiser's scorer makes of the texts, beside mathlete's checker on what it reads there."""
    golds = list_golds(problems, rules=rules)
    judged = list[BothJudged]()
    for name, gold in golds.items():
        texts = [*zip(drawn[name].texts, drawn[name].finish, strict=True)]
        for index, (text, finish) in enumerate(texts):
            answer = read_answer(text, cut=finish == "length", thinking=None)
            own: Grade = "none" if answer is None else compare(answer=answer, gold=gold).outcome
            place = index if len(texts) > 1 else None
            judged.append(
                judge_both(text, gold=gold, rules=rules, problem_id=name, index=place, answer=answer, own=own)
            )
    return ScorerResult.of(judged, rules=rules, left_out=[one.id for one in problems if one.id not in golds])


def share_same(one: Mapping[str, DrawnTexts], other: Mapping[str, DrawnTexts], *, rules: Competition) -> float:
    """Return the share of problems for which the organiser reads the same answer in both; where neither has one too."""

    read = rules.scorer.read
    same = [read(drawn.texts[0]) == read(other[name].texts[0]) for name, drawn in one.items()]
    return sum(same) / max(1, len(same))
