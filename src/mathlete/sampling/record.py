"""Recorded samples: an append-only JSONL file that survives a kill at any moment."""

import json
import os
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from mathlete.errors import UserError
from mathlete.files import write_atomically
from mathlete.jsonl import JsonLines, pause_collection, read_json_lines
from mathlete.locks import explain_moved
from mathlete.sampling.harvest import CURE
from mathlete.sampling.samples import Sample
from mathlete.text import clean

_SYNC_S = 0.5
"""Seconds between two fsyncs: one for each sample would hold up a fast engine."""


def read_samples(path: Path) -> list[Sample]:
    """Return the samples of a JSONL file, in file order; one that two processes both drew stands there once.

    A second line of a sample may add what it answered when it was made to.

    Raises:
        UserError: a line that is not a Sample, or two different samples of one problem and index.
    """
    samples: dict[tuple[str, int], Sample] = {}
    with pause_collection():
        for where, row in read_json_lines(path):
            sample = Sample.from_json(row, where=where)
            first = samples.setdefault((sample.problem_id, sample.index), sample)
            if first.harvest is None and sample.harvest is not None:
                samples[sample.problem_id, sample.index] = replace(first, harvest=sample.harvest)
            if (first.seed, first.text) != (sample.seed, sample.text):
                value = f"{sample.problem_id} #{sample.index} with another seed or text"
                raise UserError(f"{where}: a sample stands only once", value=value, cure=CURE)
    return list(samples.values())


class SampleLog:
    """The samples of one run, on file: appended from many threads, and read again when the run goes on.

    Each line reaches the kernel at once and the disk within half a second. So a killed process loses nothing. A power
    failure loses at most the samples of the last half second, and the same seeds draw them again.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lines = path, JsonLines(path, sync_s=_SYNC_S)
        self.dropped_bytes = self._lines.cut_half_line()
        """Length of a half-written last line, which was cut off."""
        path.touch()
        self._file = path.stat()
        self.recorded = read_samples(path)
        """The samples that were there when the log was opened."""

    def append(self, sample: Sample) -> None:
        """Add one line.

        Raises:
            UserError: the file was moved away meanwhile; what has its name now may be another run's.
        """
        try:
            is_same = os.path.samestat(self._file, self._path.stat())
        except (FileNotFoundError, NotADirectoryError):
            is_same = False
        if not is_same:
            raise explain_moved(self._path)
        self._lines.append(sample.to_json())

    def join_harvest(self) -> None:
        """Rewrite the file with one line a sample, where some have a second one for their forced answer.

        All other lines stay as they are, to the byte.
        """
        rows: dict[tuple[str, int], dict[str, object]] = {}
        lines: dict[tuple[str, int], str] = {}
        whole = self._path.read_text(encoding="utf-8")
        # Not `splitlines`: a text may hold what that takes for a line's end.
        for line in filter(str.strip, whole.split("\n")):
            row = json.loads(line)
            key = (row["problem_id"], row["index"])
            first = rows.setdefault(key, row)
            lines.setdefault(key, line)
            if "harvest" in row and "harvest" not in first:
                rows[key] = {**first, "harvest": row["harvest"]}
                lines[key] = clean(json.dumps(rows[key], ensure_ascii=False))
        joined = "".join(f"{line}\n" for line in lines.values())
        if joined != whole:
            write_atomically(self._path, joined)
            self._file = self._path.stat()

    def __enter__(self) -> "SampleLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.sync()
