"""Questions that a model's servers refuse: each fails alone while others are answered, and all together end a run."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from mathlete.answer_sheet import SheetLine, SheetLog
from mathlete.errors import UserError

MOST = 10
"""Questions refused one after another, with no other answered between them, that end a run: then it is not they that
are wrong but a setting, the model's name or the account."""

LAST = 3
"""As many at the end of a run are doubted once: an account may have run empty. The same command asks them again, and
what is refused then is refused for good."""


@dataclass
class RefusedQuestions:
    """The questions that were refused, whose lines wait until another question shows that the servers answer at all.

    What is refused for good gets no answer and is not asked again. So no line is written of questions that a wrong
    setting, or an empty account, has refused: the run ends, and asks them again once that is mended.
    """

    log: SheetLog
    say: Callable[[str], None]
    _errors: list[UserError] = field(default_factory=list)
    """Of the questions refused since one was answered."""
    _answered: bool = False
    """Whether any question was answered in this run."""
    _words: dict[str, str] = field(default_factory=dict)
    """{id: why it was refused}."""
    _waiting: list[SheetLine] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, name: str, error: UserError) -> None:
        """Count a refusal of the question `name`; may be called from any thread.

        Raises:
            UserError: too many came in a row.
        """
        with self._lock:
            self._errors.append(error)
            self._words[name] = str(error.value)
            if len(self._errors) >= MOST:
                raise self._explain()
        self.say(f"refused: {name}, {error.value}")

    def add(self, line: SheetLine) -> None:
        """Write a question's line, once it is known that it may be; may be called from any thread."""
        with self._lock:
            if line.ended == "refused":
                why = f"refused: {self._words.get(line.id, '')}"
                self._waiting.append(replace(line, why=why) if line.fallback else line)
                return
            self._answered = True
            self._errors.clear()
            self._flush()
        self.log.append(line)

    def finish(self) -> None:
        """Write what waits, where any question has been answered by the servers.

        Raises:
            UserError: none has, or the last ones of a run were all refused.
        """
        with self._lock:
            ever = any(line.samples for line in self.log.lines.values())
            if self._errors and (not ever or (self._answered and len(self._errors) >= LAST)):
                raise self._explain()
            self._flush()

    def _flush(self) -> None:
        for line in self._waiting:
            self.log.append(line)
        self._waiting.clear()

    def _explain(self) -> UserError:
        first, count = self._errors[0], len(self._errors)
        rule = first.rule if count == 1 else f"{first.rule}, and {count - 1} more questions were refused behind it"
        return UserError(rule, value=first.value, cure=first.cure)
