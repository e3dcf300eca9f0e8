"""What every command line of mathlete shares: parsing, where output goes, exit codes.

People's text goes to stderr where `--json` is set, so that stdout ends with exactly one line of JSON.
Exit codes: 0 done · 2 the user's to mend (a UserError) · 130 stopped by Ctrl-C, 143 by SIGTERM, 129 by the end of its
terminal · 1 a bug, with its traceback.
"""

import json
import logging
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from mathlete.command.folding import called_as, name_commands, say
from mathlete.command.hints import add_hints, require_own_flags
from mathlete.command.log_lines import read_log_flag
from mathlete.command.pairs import make_registry
from mathlete.command.short_help import print_help
from mathlete.command.words import require_lists_once, split_flags
from mathlete.errors import UserError, nearest
from mathlete.mistakes import explain, mute_broken_streams, open_streams, require_finite, require_words
from mathlete.settings import find_lists
from mathlete.signals import find_stop, tell_stop


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command: a frozen dataclass of settings, and the function that carries it out."""

    settings: type
    """Its fields are the flags; a `json: bool` field is the `--json` switch."""
    run: Callable[[Any], dict[str, object]]
    """Carries the command out and returns its line of JSON."""
    help: str
    """Shown by --help: what it does, then two examples."""
    fails: "Callable[[Mapping[str, object]], bool]" = lambda result: False
    """Whether a result, which is printed as any other, is a no: exit code 1."""
    leading_flags: tuple[str, ...] = ()
    """Flags that the defaults of others depend on, such as a model's name; read in a first pass."""
    main_flags: frozenset[str] = frozenset()
    """Flags that --help shows, as `--model`; the others only --help-all does. Empty: it shows all."""
    foreign_flags: Mapping[str, str] = field(default_factory=dict)
    """{other tools' name of a flag, with underscores: what to use here}; `{}` stands for the value."""
    defaults: "Callable[[LeadingFlags], object] | None" = None
    """Makes the default settings from the leading flags; None: those of the settings class."""

    def default_settings(self, words: Sequence[str]) -> Any:
        """Return the settings that hold where the words say nothing else; None: those of the settings class."""
        return None if self.defaults is None else self.defaults(read_leading_flags(words, self.leading_flags))


@dataclass(frozen=True, kw_only=True)
class LeadingFlags:
    """The values of a few flags, read before the settings they belong to are known.

    A command line is parsed in two passes where one flag decides the defaults of others (`--model` chooses a preset).
    The first pass reads just the leading flags and leaves all other words alone, mistakes included; the command makes
    its default settings of them. The second pass parses all words against those defaults, and reports every mistake.
    """

    given: Mapping[str, Sequence[str]]
    asks_for_help: bool

    def values(self, flag: str) -> Sequence[str]:
        """Return the words after a flag; none where it was not given."""
        return self.given[flag]

    def last(self, flag: str) -> str | None:
        """Return the word right behind a flag, where that was given last; None where it was not.

        Another behind it is no value of the flag: `submit answer --model DIR FILE`.
        """
        return self.given[flag][0] if self.given[flag] else None


def read_leading_flags(words: Sequence[str], flags: Sequence[str]) -> LeadingFlags:
    """Return the first pass: the values of these flags among all the words.

    >>> read_leading_flags(["--n", "3", "--model=a", "--source", "b", "c"], ["model", "source"]).given
    {'model': ['a'], 'source': ['b', 'c']}
    """
    # The last of several wins, as in the second pass.
    behind = {flag.removeprefix("--"): values for flag, values in split_flags(words)}
    given = {flag: behind.get(flag, []) for flag in flags}
    return LeadingFlags(given=given, asks_for_help=not {"-h", "--help"}.isdisjoint(words))


def run_command_line(
    argv: Sequence[str], *, prog: str, commands: Mapping[str, Command], otherwise: Command | None = None
) -> int:
    """Run the command named by the first word, or `otherwise` with all the words; return the exit code.

    A command's name may be two words: `data show` and `data overlap` are the commands of `data`.
    """
    open_streams()
    hush_libraries()
    with called_as(prog):
        return _run_told(argv, prog=prog, commands=commands, otherwise=otherwise)


def _run_told(argv: Sequence[str], *, prog: str, commands: Mapping[str, Command], otherwise: Command | None) -> int:
    """Run the command; tell a mistake of the user's, or that it was stopped."""
    try:
        words = _strip_wide_flag(read_log_flag(_strip_colour_flag(argv)))
        code = _choose(words, prog=prog, commands=commands, otherwise=otherwise)
        # What is still in the buffer may meet a full disk, or a reader that is gone: that is told here, not at exit.
        sys.stdout.flush()
        return code
    except (KeyboardInterrupt, Exception) as error:
        if (stop := find_stop(error)) is not None:
            return tell_stop(stop, command=f"{prog} {shlex.join(argv)}".rstrip())
        # What is not the user's to mend is a bug, and keeps its traceback.
        if (mistake := explain(error)) is None:
            raise
        return tell_mistake(add_hints(mistake, argv, program=prog))
    finally:
        mute_broken_streams()


def _choose(argv: Sequence[str], *, prog: str, commands: Mapping[str, Command], otherwise: Command | None) -> int:
    """Run the command that the first word names, with the words after it; return the exit code."""
    name = argv[0] if argv else "--help"
    if group := {word.removeprefix(f"{name} "): it for word, it in commands.items() if word.startswith(f"{name} ")}:
        return _choose(argv[1:], prog=f"{prog} {name}", commands=group, otherwise=None)
    if name in ("-V", "--version"):
        return tell_version()
    if name in commands:
        return _run(commands[name], argv[1:], prog=f"{prog} {name}")
    if name in ("-h", "--help") or otherwise is None:
        return _overview(name, prog=prog, commands=commands, otherwise=otherwise)
    return _run(otherwise, argv, prog=prog)


def _strip_colour_flag(argv: Sequence[str]) -> Sequence[str]:
    """Return the words without --no-color, which all commands know; rich, tyro and child processes follow NO_COLOR."""
    if "--no-color" not in argv:
        return argv
    os.environ["NO_COLOR"] = "1"
    return [word for word in argv if word != "--no-color"]


def _strip_wide_flag(argv: Sequence[str]) -> Sequence[str]:
    """Return the words without --wide, which all commands know: tables keep all their columns."""
    wide = "--wide" in argv
    if wide or "mathlete.tables" in sys.modules:
        from mathlete.tables import show_wide

        show_wide(wide)
    return [word for word in argv if word != "--wide"] if wide else argv


def hush_libraries() -> None:
    """Have the hub draw no bar where it would be a line without end; who has set the variable, keeps it.

    Other libraries' bars are left out where a model is loaded (`mathlete.models`).
    """
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    # It warns of kernels that it could download: nothing to be done about.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def _overview(name: str, *, prog: str, commands: Mapping[str, Command], otherwise: Command | None) -> int:
    if name not in ("-h", "--help"):
        return tell_mistake(
            UserError("the command must be a known one", value=repr(name), cure=nearest(name, [*commands]))
        )
    if otherwise is not None:
        _run(otherwise, ["--help"], prog=prog)
        print()
    say(f"commands of {prog}:")
    width = max(14, *(len(word) + 2 for word in commands), 0)
    for word, command in commands.items():
        say(f"  {word:<{width}}{command.help.splitlines()[0]}")
    say(f"\n{prog} COMMAND --help tells more; --help-all has every flag, --version version and commit.")
    say("Every command takes --no-color, and keeps to NO_COLOR; --wide shows all columns")
    say("of a table, though they be too many for the terminal; --log-every SECONDS is how")
    say("often a command without a terminal writes how far it is (default: 30).")
    return 0


def _parse(command: Command, argv: Sequence[str], *, prog: str) -> object:
    """Return the settings that the words say; end with SystemExit after help, or after what is wrong with them."""
    import tyro

    default = command.default_settings(argv)
    settings: object = tyro.cli(
        command.settings,
        prog=prog,
        description=name_commands(command.help),
        args=list(argv),
        default=tyro.MISSING_NONPROP if default is None else default,
        registry=make_registry(),
    )
    return settings


def _print_help(command: Command, argv: Sequence[str], *, prog: str) -> int:
    # Defaults that the help shows depend on words such as --model; nothing else of them matters.
    words = [*(word for word in argv if word not in ("-h", "--help", "--help-all")), "--help"]
    shown = None if "--help-all" in argv else command.main_flags or None
    print_help(lambda: _parse(command, words, prog=prog), shown)
    return 0


def tell_version() -> int:
    """Print the version of the package, and the commit where it is a checkout; return the exit code."""
    from importlib.metadata import PackageNotFoundError, version

    from mathlete.environment import code_state

    try:
        number = version("mathlete")
    except PackageNotFoundError:  # a checkout that is on the path and not installed
        number = "not installed"
    code = code_state()
    commit = f", commit {str(code['commit'])[:12]}{' with changes' if code['dirty'] else ''}" if code["commit"] else ""
    print(f"mathlete {number}{commit}")
    return 0


def _run(command: Command, argv: Sequence[str], *, prog: str) -> int:
    require_words(argv)
    if {"-h", "--help", "--help-all"} & {*argv}:
        return _print_help(command, argv, prog=prog)
    require_own_flags(argv, command.foreign_flags, prog=prog.removeprefix("python -m "))
    require_lists_once(argv, find_lists(command.settings))
    try:
        settings = _parse(command, argv, prog=prog)
    except SystemExit as stop:
        return int(stop.code or 0)
    require_finite(settings)
    result = command.run(settings)
    if getattr(settings, "json", False):
        print(_line_of_json(result), flush=True)
    return int(command.fails(result))


def _line_of_json(result: Mapping[str, object]) -> str:
    """Return the line in letters, or with escapes where the terminal's encoding lacks one of them."""
    line = json.dumps(result, ensure_ascii=False, default=str)
    try:
        line.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(result, default=str)
    return line


@contextmanager
def note_on_stop(saved: Callable[[], Sequence[str]]) -> Iterator[None]:
    """Add a note to a Ctrl-C for each thing that was saved, to be printed where the command ends."""
    try:
        yield
    except KeyboardInterrupt as stop:
        for note in saved():
            stop.add_note(note)
        raise


def tell_mistake(error: UserError) -> int:
    """Print a mistake of the user's; return its exit code."""
    with suppress(OSError):
        say(f"error: {error}", file=sys.stderr)
    return 2
