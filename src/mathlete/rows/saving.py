"""Saves the rows of many parts as one datasets folder, with only a few parts in memory."""

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mathlete.rows.parts import Part
from mathlete.runs import read_json, write_json

_FILE_BYTES = 500_000_000
"""Size of a file, about; the same as `MAX_SHARD_SIZE` of datasets."""


def save_rows(
    folder: Path, parts: Sequence[Part], indices: Sequence[int], *, without: Sequence[str], size: int = _FILE_BYTES
) -> None:
    """Write rows as `Dataset.save_to_disk` does, but one file at a time.

    `save_to_disk` maps all parts until it ends, and every page that it has read stays in the process's memory: 12 GiB
    for a million rows of 1,800 tokens. Here the parts of a file are released with it.

    Args:
        folder: target, which is replaced.
        parts: the parts that hold the rows.
        indices: which of the parts' rows, counted through all parts, ascending.
        without: columns to leave out.
        size: bytes of a file, about.
    """
    import datasets
    import numpy as np

    wanted, start, pieces = np.asarray(indices), 0, list[Path]()
    for group in _group_by_size(parts, size):
        rows = datasets.concatenate_datasets([rows for part in group if (rows := part.rows) is not None])
        here = wanted[(wanted >= start) & (wanted < start + len(rows))] - start
        start += len(rows)
        if len(here):
            pieces.append(folder.with_name(f".{folder.name}-{len(pieces)}"))
            shutil.rmtree(pieces[-1], ignore_errors=True)  # left by a killed run
            rows = rows.select(here, keep_in_memory=True).remove_columns([*without])
            rows.save_to_disk(pieces[-1], num_shards=1)
    shutil.rmtree(folder, ignore_errors=True)
    _join(folder, pieces)


def _group_by_size(parts: Sequence[Part], size: int) -> Iterator[list[Part]]:
    """Yield groups of consecutive parts of about `size` bytes each; parts without rows are skipped."""
    group, bytes_of = list[Part](), 0
    for part in parts:
        if part.bytes:
            group.append(part)
            bytes_of += part.bytes
        if bytes_of >= size:
            yield group
            group, bytes_of = [], 0
    if group:
        yield group


def _join(folder: Path, pieces: Sequence[Path]) -> None:
    """Join datasets of one file each to one folder: their files are renamed, not copied."""
    from datasets import config

    first, *others = pieces
    states: list[dict[str, Any]] = [read_json(piece / config.DATASET_STATE_JSON_FILENAME) for piece in pieces]
    names = [f"data-{number:05d}-of-{len(pieces):05d}.arrow" for number in range(len(pieces))]
    for piece, state, name in zip(pieces, states, names, strict=True):
        (file,) = state["_data_files"]
        (piece / file["filename"]).rename(first / name)
    if others:
        prints = "".join(str(state["_fingerprint"]) for state in states)
        files = [{"filename": name} for name in names]
        state = {"_data_files": files, "_fingerprint": hashlib.sha256(prints.encode()).hexdigest()[:16]}
        write_json(first / config.DATASET_STATE_JSON_FILENAME, {**states[0], **state})
    first.rename(folder)
    for piece in others:
        shutil.rmtree(piece)
