"""What is drawn: which problems, by which engine and policy, on which clock."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial

from mathlete.engines import EngineSettings
from mathlete.errors import UserError
from mathlete.problems import Problem
from mathlete.sampling import SampleLog
from mathlete.sampling.served import ServerSettings
from mathlete.scoring import RunSettings
from mathlete.solve import BudgetSettings, Policy
from mathlete.templates import Rendering, try_template


@dataclass(frozen=True, kw_only=True)
class DrawingPlan:
    """What is drawn. The engine's threads, servers and workers change no sample."""

    problems: Sequence[Problem]
    engine: EngineSettings
    policy: Policy
    budget: BudgetSettings | None = None
    """One clock for all problems, which then come one after another; None is none."""

    @property
    def samples(self) -> int:
        """Samples of all problems, where no rule stops early."""
        return len(self.problems) * self.policy.n

    def settings(self, *, suite: str, suite_sha: str) -> RunSettings:
        """Return what the samples, and so all scores and answers, depend on.

        Raises:
            UserError: the model's folder was made by a step, and has changed since.
        """
        engine = self.engine
        return RunSettings(
            suite=suite,
            suite_sha=suite_sha,
            problems=len(self.problems),
            precision=engine.precision,
            dtype=engine.computing[0],
            policy=self.policy,
            budget=self.budget,
            tools=asdict(engine.tools) if engine.tools.turns else None,
            prompt=engine.source.prompt.to_json() or None,
            opens_thoughts=engine.of(ServerSettings).opens_thoughts if engine.name == "openai" else "auto",
            engine=engine.name,
            model_sha=engine.source.sha256(),
        )

    def check_model(self, *, all_fit: bool = True) -> list[str]:
        """Return what was chosen for the model's prompts and for computing, in lines for a person.

        To be called before a folder is made: a model without tokenizer or a prompt too long must leave nothing
        half-written.

        Raises:
            UserError: there are no weights, or a problem's prompt can't be rendered, or leaves no room in the context,
                where all of them must.
        """
        source, prompts = self.engine.source, self.engine.prompts
        if self.engine.name != "openai":  # servers have weights of their own
            other = "vLLM on a GPU reads this one (--engine vllm)"
            source.require_weights(by_vllm=self.engine.name == "vllm", other=other)
        try_template(
            [Rendering(partial(prompts.render, problem.statement)) for problem in self.problems],
            where=source.location,
        )
        for error in self.find_unfit().values() if all_fit else ():
            raise error
        dtype, reason = self.engine.computing
        return [*prompts.notes, *([f"compute in {dtype}: {reason}"] if dtype else ())]

    def find_unfit(self) -> dict[str, UserError]:
        """Return {id: what is wrong} of the problems whose prompt leaves no room in the model's context."""
        context, unfit = self.engine.source.context_tokens(), dict[str, UserError]()
        for problem in self.problems:
            try:
                self.engine.prompts.fit_prompt_ids(problem, context=context)
            except UserError as error:
                unfit[problem.id] = error
        return unfit

    def check_recorded(self, samples: SampleLog) -> None:
        """Raise UserError where a recorded sample is not one that this plan would draw."""
        ids = {problem.id for problem in self.problems}
        for sample in samples.recorded:
            seed = self.policy.sample_seed(problem_id=sample.problem_id, index=sample.index)
            if sample.problem_id not in ids or not 0 <= sample.index < self.policy.n or sample.seed != seed:
                raise UserError(
                    "samples.jsonl must hold this run's samples only",
                    value=f"problem {sample.problem_id}, index {sample.index}, seed {sample.seed}",
                    cure="choose another folder with --run, or delete what is there with --overwrite",
                )
