"""Why something must not go to Kaggle, and the checks that say so."""

from collections.abc import Iterable
from dataclasses import dataclass

from mathlete.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """One reason not to push: a rule, the value that breaks it, and the cure."""

    rule: str
    value: str
    cure: str

    def error(self) -> UserError:
        """Return it as the error that stops a command."""
        return UserError(self.rule, value=self.value, cure=self.cure)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at before a push."""

    what: str
    refusals: tuple[Refusal, ...]
    """Empty where all is well."""


def check(what: str, refusals: Iterable[Refusal]) -> Check:
    """Run a check's generator to its end; what it can't read is a refusal too, and the next checks still run."""
    seen = list[Refusal]()
    try:
        seen.extend(refusals)
    except UserError as error:
        seen.append(refusal_of(error))
    except _BROKEN as error:
        rule, value = "the build's files must be as `submit build` wrote them", f"{type(error).__name__}: {error}"
        seen.append(Refusal(rule=rule, value=value[:300], cure="run `submit build` again"))
    return Check(what=what, refusals=tuple(seen))


_BROKEN = (OSError, ValueError, KeyError, TypeError, AttributeError)
"""What reading a file raises that is missing, or holds something else than it should."""


def refusal_of(error: UserError) -> Refusal:
    """Return a user's error as a refusal, so that the checks after it still run."""
    return Refusal(rule=error.rule, value=str(error.value), cure=error.cure)
