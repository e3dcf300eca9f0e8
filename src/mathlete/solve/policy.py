"""Policy: how one problem is solved; the same words on every command line, in results.json and in the notebook."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from mathlete.errors import UserError, require
from mathlete.sampling import Sample, SamplingConfig
from mathlete.solve.stopping import fewest_samples, stopping_rule
from mathlete.solve.voting import SCORED_VOTES, VOTES, Vote, Weigh, count_votes, weigher

DEFAULT_STOP = "beta95+exact"
"""What stops early where the clock counts: a statistical rule, and exact for the stragglers that cannot matter."""

_MOST_SAMPLES = 100_000
"""Of a problem: more is a slip of the finger, whose seeds alone would fill the memory."""

_CLOSING_TOKENS = 64
"""Room for what closes a text and begins its box; few tokens in any vocabulary."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How one problem is solved."""

    n: int = 8
    """Number of samples drawn for each problem."""
    seed: int = 0
    """Sample i of a problem has a seed made of this, the problem's id and i, whatever else is run."""
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    stop: str = "none"
    """When a problem ends before its n samples: a rule of `mathlete.solve.stopping`, or several joined by +."""
    vote: str = "majority"
    """How much a sample's vote counts (`mathlete.solve.voting`)."""
    select: int = 0
    """Judgements by the model itself between the answers that got votes (`mathlete.solve.selection`); 0 is none."""
    harvest: float = 0.0
    """Weight of the answer that a sample is made to give after it was cut (`mathlete.solve.harvesting`), beside the 1
    of one that ended by itself; 0: none is asked for."""
    harvest_tokens: int = 32
    """Cap on what is drawn for such an answer behind `\\boxed{`, tokens."""

    def check(self) -> None:
        """Raise UserError where a value is out of its range."""
        require(
            ("n", self.n, self.n >= 1, "at least 1", "use --n 8"),
            ("n", self.n, self.n <= _MOST_SAMPLES, f"at most {_MOST_SAMPLES}", "use --n 64"),
        )
        judgements = ("judgements", self.select, self.select >= 0, "0 or more", "use select4, or leave it out")
        require(judgements, prefix="")
        require(
            ("harvest", self.harvest, 0 <= self.harvest <= 1, "0 to 1", "leave it out for none"),
            ("harvest-tokens", self.harvest_tokens, 1 <= self.harvest_tokens <= 1024, "1 to 1024", "leave it out"),
        )
        if self.stop in VOTES:
            raise UserError(
                "a policy begins with a stopping rule, and a vote stands behind a slash",
                value=f"{self.stop}, a vote",
                cure=f"use --policy all/{self.stop}; in a replay --stop none --vote {self.stop}",
            )
        stopping_rule(self.stop)
        weigher(self.vote, max_tokens=self.sampling.max_tokens)
        self.sampling.check()

    def with_words(self, words: str) -> "Policy":
        """Return the policy with the stop and, after slashes, the vote and the judgements of a `--policy` word.

        >>> policy = Policy().with_words("beta95+exact/logprob/select4")
        >>> policy.stop, policy.vote, policy.select
        ('beta95+exact', 'logprob', 4)
        >>> Policy().with_words("clock").stop
        'beta95+exact'

        Raises:
            UserError: an unknown stop or vote.
        """
        stop, *others = words.split("/")
        judged = next((match for word in others if (match := re.fullmatch(r"select(\d{1,3})", word))), None)
        vote = "/".join(word for word in others if judged is None or word != judged.string)
        policy = replace(
            self,
            stop={"all": "none", "clock": DEFAULT_STOP}.get(stop, stop),
            vote=vote or self.vote,
            select=int(judged[1]) if judged else self.select,
        )
        policy.check()
        return policy

    @staticmethod
    def known_votes() -> tuple[str, ...]:
        """Return the names of all votes, majority first."""
        return tuple(VOTES)

    @property
    def longest_tokens(self) -> int:
        """Tokens of the longest completion: the cap on a sample, and what closes one that is made to answer."""
        return self.sampling.max_tokens + (_CLOSING_TOKENS + self.harvest_tokens if self.harvest else 0)

    @property
    def longest_words(self) -> str:
        """The same in words.

        >>> Policy(harvest=0.5).longest_words, Policy().longest_words
        ('352 tokens, of which 96 close a forced answer', '256 tokens')
        """
        closing = self.longest_tokens - self.sampling.max_tokens
        return f"{self.longest_tokens} tokens{f', of which {closing} close a forced answer' if closing else ''}"

    @property
    def reads_scores(self) -> bool:
        """Whether its vote reads samples' log-probabilities."""
        return self.vote in SCORED_VOTES

    @property
    def fewest_samples(self) -> int:
        """Samples after which the stop can end a problem at the earliest."""
        return fewest_samples(self.stop, self.n)

    def sample_seed(self, *, problem_id: str, index: int) -> int:
        """Return the seed of a problem's sample: 53 bits, which every JSON reader keeps."""
        digest = hashlib.sha256(f"{self.seed}/{problem_id}/{index}".encode()).digest()
        return int.from_bytes(digest[:8]) >> 11

    @property
    def weigh(self) -> Weigh:
        """How its vote counts a sample."""
        return weigher(self.vote, max_tokens=self.sampling.max_tokens)

    def count_votes(
        self, samples: Iterable[Sample], *, settings: str = "", settled: bool = False, spelled: bool = False
    ) -> list[Vote]:
        """Return the classes of equal answers, winner first; empty where no sample has an answer.

        `settled` says that a rule ended the problem, which looked at no forced answer: then none votes. `spelled` is
        as in `mathlete.solve.voting.count_votes`.
        """
        harvest = 0.0 if settled else self.harvest
        return count_votes(samples, weigh=self.weigh, settings=settings, harvest=harvest, spelled=spelled)

    def to_json(self) -> dict[str, object]:
        """Return the policy as a JSON object, which `from_json` reads.

        It holds a `fallback_weight` of 1.0, which was a setting once: runs and notebooks are known by a hash of this.
        Where no answer is forced, it says nothing of that.
        """
        own = {**asdict(self), "sampling": self.sampling.to_json(), "fallback_weight": 1.0}
        return {name: value for name, value in own.items() if self.harvest or not name.startswith("harvest")}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Policy":
        """Return the policy in a JSON object.

        Raises:
            TypeError: an unknown key.
            ValueError: a fallback weight other than 1.
        """
        known = dict(value)
        if known.pop("fallback_weight", 1.0) != 1.0:
            raise ValueError("a vote is not weighed by its answer any more: fallback_weight must be 1")
        return cls(**{**known, "sampling": SamplingConfig.from_json(known.get("sampling", {}))})
