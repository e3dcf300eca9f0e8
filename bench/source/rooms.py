"""Rooms: what they show to the rest of the house, and circles of imports inside them."""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.source.modules import Module, find_imported


@dataclass(frozen=True, kw_only=True)
class Room:
    """A package directly in `mathlete` with all below it, or another top package."""

    name: str
    files: int
    doors: tuple[str, ...]
    """Its modules from which code outside it imports."""
    only_face: bool
    """Whether there is no door but the face."""
    face_names: int | None
    """Names in `__all__` of the face; None where it has no such list."""
    circles: tuple[tuple[str, ...], ...]
    """Groups of its modules that all reach each other by imports, inside functions and for types too."""


def rooms_of(modules: Sequence[Module]) -> list[Room]:
    """Return the rooms that have more than one file, by name."""
    known = {module.name: module for module in modules}
    used = {(module.room, name) for module in modules for name in find_imported(module, known)}
    rooms = []
    for room in sorted({module.room for module in modules}):
        inside = {name: module for name, module in known.items() if module.room == room}
        if len(inside) > 1:
            rooms.append(_room(room, inside, {name for user, name in used if name in inside and user != room}))
    return rooms


def _room(name: str, inside: Mapping[str, Module], doors: set[str]) -> Room:
    return Room(
        name=name,
        files=len(inside),
        doors=tuple(sorted(doors)),
        only_face=doors <= {name},
        face_names=_count_exported(inside[name].tree) if name in inside else None,
        circles=circles({one: set(find_imported(module, inside)) - {one} for one, module in inside.items()}),
    )


def _count_exported(tree: ast.Module) -> int | None:
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id="__all__")], value=ast.List(elts=names) | ast.Tuple(elts=names)):
                return len(names)
    return None


def circles(edges: Mapping[str, set[str]]) -> tuple[tuple[str, ...], ...]:
    """Groups of nodes that all reach each other."""
    reached = {node: set(near) for node, near in edges.items()}
    for middle in edges:  # Warshall's closure
        for near in reached.values():
            if middle in near:
                near |= reached[middle]
    groups = {tuple(sorted(one for one in reached[node] if node in reached[one])) for node in edges}
    return tuple(sorted(filter(None, groups)))
