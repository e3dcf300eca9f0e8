"""Every flag that a message or a document names is a flag of some command.

The rule, over all strings of src and eval, README, CONTRIBUTING and docs:

- A flag is `--` and a name. What ends with a dot, `--sampling.`, must begin some flag.
- In calls of `errors.require` the first word of each rule, behind the prefix, is a flag where the prefix has one.
- A string that is a flag, or a flag and a value filled in, is a word of a command line that the code builds, and no
  message.
- A flag belongs to the command begun last before it, in the same pair of backticks where it stands in one, else in the
  same line without what stands in backticks and `$(…)`. Flags of the commands below are not ours to know.
- No other flag has a placeholder for its name: nobody could look it up.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import GOLDEN, CommandLine

FLAG = re.compile(r"(?<![\w-])--[a-z][\w.-]*")
ALONE = re.compile(r"\s*--[a-z][\w.-]*(?:[ =]…|=\S*)?")
OURS = re.compile(r"(?:-m|\bmathlete) (?:train|eval|submit|hub|kaggle|doctor)\b")
FOREIGN = re.compile(
    r"\"(?:git|venv)\"|kaggle kernels|\baccelerate\.commands\b|"
    r"\b(?:accelerate launch|bench/\w+\.py|git \w+|hf download|inspect (?:eval|view)|lighteval|lm_eval|mount --|"
    r"papermill --|pip\b|ray start|"
    r"sky \w+|tensorboard --|trackio show|wandb \w+|unshare -|uv pip|vllm serve)"
)
PLACEHOLDERS = {"src/mathlete/errors.py", "src/mathlete/command/command_line.py", "src/mathlete/command/log_lines.py"}
"""Where a flag's name is filled in: by `require`, and by the first pass over a command line."""


@pytest.fixture(scope="module")
def known() -> set[str]:
    """The flags of all commands, as their golden help shows them, and those that only --help-all shows."""
    helps = [file.read_text(encoding="utf-8") for file in GOLDEN.glob("help_*.txt")]
    return {flag for text in [*helps, CommandLine("train").help("math", "--help-all")] for flag in FLAG.findall(text)}


def is_foreign(before: str) -> bool:
    """Return whether a flag behind this text is another program's."""
    ours, foreign = ([match.start() for match in kind.finditer(before)] for kind in (OURS, FOREIGN))
    return bool(foreign) and (not ours or ours[-1] < foreign[-1])


def flags_in(text: str) -> Iterator[str]:
    """Our flags in a text."""
    # A fence of three would pair with single backticks.
    text = text.replace("```", "")
    pieces = [span for paragraph in text.split("\n\n") for span in re.findall(r"`([^`]*)`", paragraph)]
    pieces += re.sub(r"`[^`]*`|\$\([^)\n]*\)", "", text).splitlines()
    for piece in pieces:
        for match in FLAG.finditer(piece):
            # What a command starts with may be a flag itself: `mount --bind`.
            if not is_foreign(piece[: match.start() + 2]):
                yield match[0]


def is_known(flag: str, known: set[str]) -> bool:
    flag = flag.rstrip("-")
    return flag.rstrip(".") in known or (flag.endswith(".") and any(one.startswith(flag) for one in known))


CASES = [
    ("use --n 8", ["--n"]),
    ("as `pip install --no-deps X` does", []),
    ("`pip install X`, then --model DIR", ["--model"]),
    (
        'accelerate launch --config_file "$(python -m train launch-config)" --num_processes 4 -m train math --n 8',
        ["--n"],
    ),
    ("python -m submit push --yes and git push --force", ["--yes"]),
    ("set them with `--limits.right-min 0.5`, `--sampling.` and so on", ["--limits.right-min", "--sampling."]),
    ("a line ---- or a--b", []),
    ("with `--engine ray --ray.workers 2` or\n`--clock\nreal`", ["--engine", "--ray.workers", "--clock"]),
]


@pytest.mark.parametrize(("text", "flags"), CASES)
def test_the_rule_finds_our_flags(text: str, flags: list[str]) -> None:
    assert [*flags_in(text)] == flags


def texts_of(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Return (line, text) of every string below a node, f-strings as one text with … for what is filled in."""
    nodes = [node]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
            yield node.lineno, "".join(map(str, parts))
            nodes += [part for part in node.values if isinstance(part, ast.FormattedValue)]
        else:
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.lineno, node.value
            nodes += ast.iter_child_nodes(node)


def rules_of(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Return (line, flag) of every rule that a call of `require` names a flag in."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "require":
            prefixes = [word.value for word in node.keywords if word.arg == "prefix"]
            assert all(isinstance(prefix, ast.Constant | ast.JoinedStr) for prefix in prefixes)
            _, prefix = next(texts_of(prefixes[0])) if prefixes else (0, "--")
            for rule in node.args if "--" in prefix else ():
                assert isinstance(rule, ast.Tuple), f"line {rule.lineno}: a rule is written out"
                yield rule.lineno, prefix + ast.literal_eval(rule.elts[0])


def test_every_flag_that_the_code_names_is_one(root: Path, known: set[str]) -> None:
    unknown = []
    for path in [*(root / "src").rglob("*.py"), *(root / "eval").rglob("*.py")]:
        written = path.read_text(encoding="utf-8")
        if "--" not in written and "require(" not in written:
            continue  # to parse it would cost more than to see that
        tree, where = ast.parse(written), path.relative_to(root).as_posix()
        texts = [(line, text) for line, text in texts_of(tree) if "--" in text]
        named = [(line, flag) for line, text in texts if not ALONE.fullmatch(text) for flag in flags_in(text)]
        named += rules_of(tree) if "require(" in written else ()
        unknown += [f"{where}:{line}: {flag}" for line, flag in named if not is_known(flag, known)]
        if where not in PLACEHOLDERS:
            unknown += [f"{where}:{line}: {text}" for line, text in texts if re.search(r"(?<![\w-])--…", text)]
    assert not unknown


def test_every_flag_that_a_document_names_is_one(root: Path, known: set[str]) -> None:
    unknown = []
    for path in [*(root / "docs").glob("*.md"), root / "README.md", root / "CONTRIBUTING.md"]:
        flags = {flag for flag in flags_in(path.read_text(encoding="utf-8")) if not is_known(flag, known)}
        unknown += [f"{path.name}: {flag}" for flag in sorted(flags)]
    assert not unknown
