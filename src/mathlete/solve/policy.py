"""Policy: how one problem is solved; the same words on every command line, in results.json and in the notebook."""

import re
from dataclasses import dataclass, field, replace

from mathlete.errors import UserError
from mathlete.sampling.samples import SamplingConfig
from mathlete.solve.stopping import stopping_rule
from mathlete.solve.voting import Weigh, weigher


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How one problem is solved."""

    n: int = 8
    """Samples a problem."""
    seed: int = 0
    """Sample i of a problem has a seed made of this, the problem's id and i, whatever else is run."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    stop: str = "none"
    """When a problem ends before its n samples: a rule of `mathlete.solve.stopping`, or several joined by +."""
    vote: str = "majority"
    """How much a sample's vote counts (`mathlete.solve.voting`)."""
    select: int = 0
    """Judgements by the model itself between the answers that got votes (`mathlete.solve.selection`); 0 is none."""
    fallback_weight: float = 1.0
    """What the votes for 0, 1 and -1 are multiplied by, 0 to 1; 1 is no prejudice."""

    def check(self) -> None:
        """Raises UserError where a value is out of its range."""
        if self.n < 1:
            raise UserError("--n must be at least 1", value=self.n, cure="use --n 8")
        if self.select < 0:
            raise UserError("judgements must be 0 or more", value=self.select, cure="use select4, or leave it out")
        if not 0 <= self.fallback_weight <= 1:
            raise UserError("the fallback weight must be 0 to 1", value=self.fallback_weight, cure="use 1")
        stopping_rule(self.stop)
        weigher(self.vote, max_tokens=self.sampling.max_tokens)
        self.sampling.check()

    @property
    def weigh(self) -> Weigh:
        """How its vote counts a sample."""
        return weigher(self.vote, max_tokens=self.sampling.max_tokens, fallback_weight=self.fallback_weight)


DEFAULT_STOP = "beta95+exact"
"""What stops early where the clock counts: a statistical rule, and exact for the stragglers that cannot matter."""


def with_words(policy: Policy, words: str) -> Policy:
    """The policy with the stop and, after slashes, the vote and the judgements of a `--policy` word.

    >>> found = with_words(Policy(), "beta95+exact/logprob/select4")
    >>> found.stop, found.vote, found.select
    ('beta95+exact', 'logprob', 4)
    >>> with_words(Policy(), "clock").stop
    'beta95+exact'

    Raises:
        UserError: an unknown stop or vote.
    """
    stop, *others = words.split("/")
    judged = next((match for word in others if (match := re.fullmatch(r"select(\d{1,3})", word))), None)
    vote = "/".join(word for word in others if judged is None or word != judged.string)
    found = replace(
        policy,
        stop={"all": "none", "clock": DEFAULT_STOP}.get(stop, stop),
        vote=vote or policy.vote,
        select=int(judged[1]) if judged else policy.select,
    )
    found.check()
    return found
