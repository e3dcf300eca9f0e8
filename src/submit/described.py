"""What `submit build` says of what it made."""

from typing import TYPE_CHECKING

from mathlete.submission import Build, Names
from mathlete.text import counted

if TYPE_CHECKING:
    from submit.building import BuildSettings


def describe_build(made: Build, settings: "BuildSettings", *, names: Names) -> list[str]:
    """Return what was chosen, in lines: the model and what draws, how, and how long."""
    config, solving = made.config, settings.solving
    own = [f"{name} {value!r}" for name, value in config.prompt.to_json().items()]
    own += [f"Python in {counted(config.tools.turns, 'turn')}"] if config.tools.turns else []
    sampling = solving.sampling
    clock = (config.clock.wall_s, config.clock.question_min_s, config.clock.question_max_s, config.clock.reserve_s)
    return [
        f"model      {settings.about.model_source or settings.model} · {made.weight_format} · engine {config.engine} · "
        f"{made.machine}",
        f"samples    n {solving.n} · at most {sampling.max_tokens:,} tokens · policy {solving.policy} · "
        f"{f'forced answers weigh {solving.harvest:g} · ' if solving.harvest else ''}"
        f"temperature {sampling.temperature:g} · seed {solving.seed}",
        *([f"prompt     {' · '.join(own)}"] if own else ()),
        "clock      {:,.0f} s · each question {:g} to {:g} s · {:g} s kept back".format(*clock),
        f"on Kaggle  {names.owner}, by the rules of {config.competition.name}",
    ]
