"""Classes: names that stand in several modules, and how many settings a class of settings has of its own."""

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from bench.source.modules import Module

COMMANDS = ("train", "submit", "eval")
"""Packages of commands: all that their settings are made of is settings, too."""


def find_repeated_names(modules: Sequence[Module]) -> dict[str, list[str]]:
    """Return {public class: its modules} where they are several; a reader takes one for the other."""
    homes = defaultdict[str, list[str]](list)
    for module in modules:
        for node in module.nodes:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(module.name)
    return {name: some for name, some in homes.items() if len(some) > 1}


def count_settings(modules: Sequence[Module]) -> dict[str, int]:
    """Return {class of settings: its own fields}, a group of settings being one: by name, or as part of a command's."""
    classes = {node.name: node for module in modules for node in module.nodes if isinstance(node, ast.ClassDef)}
    named = {name for name in classes if name.endswith(("Settings", "Config"))}
    commands = {
        node.name
        for module in modules
        if module.name.partition(".")[0] in COMMANDS
        for node in module.nodes
        if isinstance(node, ast.ClassDef) and node.name in named
    }
    return {name: len([*_own_fields(classes[name])]) for name in sorted(named | _reach(commands, classes))}


def _reach(names: set[str], classes: Mapping[str, ast.ClassDef]) -> set[str]:
    """Return the classes, and those that their fields' types name, on and on."""
    reached, waiting = set[str](), [*names]
    while waiting:
        name = waiting.pop()
        if name in classes and name not in reached:
            reached.add(name)
            types = [part for field in _own_fields(classes[name]) for part in ast.walk(field.annotation)]
            waiting += [part.id for part in types if isinstance(part, ast.Name)]
    return reached


def _own_fields(node: ast.ClassDef) -> Iterator[ast.AnnAssign]:
    for one in node.body:
        if isinstance(one, ast.AnnAssign) and "ClassVar" not in ast.dump(one.annotation):
            yield one
