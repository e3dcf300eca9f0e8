"""tyro's description of a command line, made once for each settings class and its defaults.

A command makes it once; a process of tests called hundreds of commands and made it for each: 50 ms with training's
hundred flags, a twelfth of all CPU seconds of `make test`. The words are parsed anew each time.
"""

from functools import cache
from typing import Any


@cache
def remember_parsers() -> None:
    """Have tyro remember what it has described; what is called the first time does it, and later calls do nothing."""
    from tyro._parsers import ParserSpecification

    make = ParserSpecification.from_callable_or_type
    made: dict[tuple[int, str], tuple[object, ParserSpecification]] = {}

    def remember(f: Any, **how: Any) -> ParserSpecification:
        # A part of a description knows the whole that it is in.
        if how["parent_classes"]:
            return make(f, **how)
        # Two local classes may have the same repr; what is remembered lives on, so that no other one gets its id.
        key = id(f), repr(sorted(how.items()))
        if key not in made:
            made[key] = f, make(f, **how)
        return made[key][1]

    ParserSpecification.from_callable_or_type = staticmethod(remember)  # type: ignore[method-assign, assignment]
