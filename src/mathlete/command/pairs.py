"""How a setting of names and values is read: `--vllm.extra block_size 32 moe_backend triton`.

tyro makes a flag of each name where the default has names already, as it has where an earlier command's choices are
kept, and takes the last of two values of one name. Here the words are pairs in either case, and each name stands once.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

_VALUES: dict[object, tuple[type, str]] = {dict[str, str]: (str, "STR"), dict[str, Path]: (Path, "PATH")}
"""{type of a setting: (its values' type, what help calls one)}."""


def read_pairs(words: list[str]) -> dict[str, str]:
    """Return {name: value} of words that are names and values in turn.

    >>> read_pairs(["block_size", "32", "moe_backend", "triton"])
    {'block_size': '32', 'moe_backend': 'triton'}

    Raises:
        ValueError: a name without its value, or one that stands twice.
    """
    if len(words) % 2:
        raise ValueError(f"{words[-1]} has no value: give names and values in turn")
    pairs: dict[str, str] = {}
    for name, value in zip(words[::2], words[1::2], strict=True):
        if name in pairs:
            raise ValueError(f"each name must stand once, got {name} {pairs[name]} and {name} {value}")
        pairs[name] = value
    return pairs


def make_registry() -> "ConstructorRegistry":
    """Return tyro's rules with that one."""
    from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec

    registry = ConstructorRegistry()

    @registry.primitive_rule
    def rule(info: "PrimitiveTypeInfo") -> "PrimitiveConstructorSpec[dict[str, object]] | None":
        if info.type not in _VALUES:
            return None
        make, word = _VALUES[info.type]
        return PrimitiveConstructorSpec(
            nargs="*",
            metavar=f"[STR {word} [STR {word} ...]]",
            instance_from_str=lambda words: {name: make(value) for name, value in read_pairs(words).items()},
            is_instance=lambda value: isinstance(value, dict),
            str_from_instance=lambda pairs: [str(word) for pair in pairs.items() for word in pair],
        )

    return registry
