"""Logs of Inspect, `.eval` and `.json`, read without inspect_ai.

Layout: UKGovernmentBEIS/inspect_ai, commit 499e615: `log/_log.py` (`EvalLog`, `EvalSample`), `model/_model_output.py`,
`log/_recorders/eval.py` (a zip of header.json and samples/ID_epoch_N.json), `log/_recorders/chunked/format.py` (long
samples in parts, their long texts apart), `log/_condense.py` (attachments). Entries of the zip are compressed with
Zstandard, which Python's zipfile reads from 3.14 on; here pyarrow does it.
"""

import re
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

from mathlete.errors import UserError
from mathlete.files import read_json
from mathlete.logs.entries import (
    Entry,
    Facts,
    LogRow,
    Place,
    as_count,
    as_gold,
    as_logprob,
    as_number,
    as_seed,
    as_text,
    dig,
    list_golds,
    mean_logprob,
    sampling_of,
    says_right,
)
from mathlete.logs.finishes import as_finish
from mathlete.logs.reasoned import join_parts
from mathlete.sampling import Sample
from mathlete.text import parse_json

_ZSTANDARD = 93
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_ATTACHMENT = "attachment://"
_SAMPLE = re.compile(r"samples/.+_epoch_\d+\.json")
_CHUNKED = re.compile(r"(samples/.+_epoch_\d+)/sample\.json")


def is_inspect_json(content: object) -> bool:
    """Return whether a JSON value is a log."""
    return isinstance(content, Mapping) and isinstance(content.get("eval"), Mapping) and "status" in content


def read_inspect_rows(path: Path) -> tuple[LogRow, Iterator[tuple[str, LogRow]]]:
    """Return (the log's header, its samples, each with where it stands).

    Raises:
        UserError: the file is no log, or is damaged.
    """
    if path.suffix == ".json":
        content = read_json(path)
        samples = content.get("samples")
        rows = enumerate(samples if isinstance(samples, list) else [])
        return content, ((where := f"{path}[{number}]", _resolve(row, where)) for number, row in rows)
    try:
        names = set(ZipFile(path).namelist())
    except (BadZipFile, OSError) as error:
        raise UserError(f"{path} must be a whole log of Inspect ({error})", cure="copy it again") from error
    # A log that is still being written, or whose run was killed, has no header yet.
    header = next((name for name in ("header.json", "_journal/start.json") if name in names), None)
    if header is None:
        raise UserError(f"{path} must hold a log's header.json", value=sorted(names)[:3], cure="give a log of Inspect")
    return read_zip_json(path, header), _samples(path, names)


def read_zip_json(path: Path, name: str) -> Any:
    """Return the JSON in an entry of a zip, whatever of the three compressions it has."""
    with ZipFile(path) as archive, path.open("rb") as file:
        info = archive.getinfo(name)
        if info.compress_type in (ZIP_STORED, ZIP_DEFLATED):
            return parse_json(archive.read(info))
        if info.compress_type != _ZSTANDARD:
            raise UserError(f"{path}: {name} must be deflated or Zstandard", value=info.compress_type, cure="pack anew")
        try:
            content = _decompress(file, info)
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: {name} must be whole ({error})", cure="copy the file again") from error
    if zlib.crc32(content) != info.CRC:
        raise UserError(f"{path}: {name} must be whole, its checksum is another", cure="copy the file again")
    return parse_json(content)


def _decompress(file: BinaryIO, info: ZipInfo) -> bytes:
    import pyarrow

    file.seek(info.header_offset)
    fields = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    # Name and extra field may be longer here than in the zip's directory.
    file.seek(info.header_offset + _LOCAL_HEADER.size + fields[-2] + fields[-1])
    # A stream takes frame after frame: a long entry is written as several.
    with pyarrow.CompressedInputStream(pyarrow.BufferReader(file.read(info.compress_size)), "zstd") as stream:
        content: bytes = stream.read()
    return content


def _samples(path: Path, names: set[str]) -> Iterator[tuple[str, LogRow]]:
    for name in sorted(names):
        # A sample is one entry, or, where it is long, a folder whose texts are in parts of their own. Its id may have
        # slashes itself.
        if _SAMPLE.fullmatch(name):
            yield (where := f"{path}:{name}"), _resolve(read_zip_json(path, name), where)
        elif chunked := _CHUNKED.fullmatch(name):
            yield (where := f"{path}:{name}"), _resolve(_read_chunked(path, chunked[1], names), where)


def _read_chunked(path: Path, folder: str, names: set[str]) -> dict[str, Any]:
    """Return the sample in a folder of the zip, with what its texts are by their number."""
    row: dict[str, Any] = read_zip_json(path, f"{folder}/sample.json")
    if f"{folder}/metadata.json" in names:
        row["metadata"] = read_zip_json(path, f"{folder}/metadata.json")
    chunks = [name for name in names if name.startswith(f"{folder}/attachments/")]
    # A part is named by the number of its first text.
    chunks.sort(key=lambda name: int(name.rpartition("/")[2].removesuffix(".json")))
    texts = [text for chunk in chunks for text in read_zip_json(path, chunk)]
    return row | {"attachments": {str(number): text for number, text in enumerate(texts)}}


def _resolve(row: object, where: str) -> LogRow:
    """Return the sample with its long texts in their places."""
    if not isinstance(row, dict):
        raise UserError(
            f"{where}: a sample must be an object", value=type(row).__name__, cure="delete it or copy again"
        )
    kept = {name: value for name, value in row.items() if name not in ("events", "events_data", "attachments", "store")}
    texts = row.get("attachments") or {}
    return kept if not texts else {name: _fill(value, texts) for name, value in kept.items()}


def _fill(value: Any, texts: Mapping[str, str]) -> Any:
    if isinstance(value, str) and value.startswith(_ATTACHMENT):
        return texts.get(value.removeprefix(_ATTACHMENT), value)
    if isinstance(value, list):
        return [_fill(one, texts) for one in value]
    return {key: _fill(one, texts) for key, one in value.items()} if isinstance(value, dict) else value


def inspect_facts(header: LogRow) -> Facts:
    """Return the model, task and settings from the log's header.

    As Inspect itself does, a generate step's own settings are taken before the task's, and these before the model's.
    """
    spec, steps = header["eval"], dig(header, "plan.steps") or ()
    told = [spec.get("model_generate_config"), dig(header, "plan.config")]
    told += [step.get("params") for step in steps if step.get("solver") == "generate"]
    sampling = {name: value for settings in told for name, value in sampling_of(settings).items()}
    return Facts(model=as_text(spec.get("model")), task=as_text(spec.get("task")), sampling=sampling)


def read_inspect(row: LogRow, place: Place) -> Iterator[Entry]:
    """Yield a sample for each choice of one epoch of one problem; none where it ended in an error."""
    choices, metadata = dig(row, "output.choices"), row.get("metadata") or {}
    if row.get("error") or not choices:
        return
    alone = len(choices) == 1
    tokens, seconds = _cost(row, choices)
    uid = as_text(row.get("uuid"))
    # Logs that this project wrote itself say more, in the samples' metadata.
    mean, tail = (as_logprob(metadata.get(name)) for name in ("logprob_mean", "logprob_tail"))
    for position, choice in enumerate(choices):
        logprobs = [token.get("logprob") for token in dig(choice, "logprobs.content") or ()]
        ended = metadata.get("finish") or choice.get("stop_reason")
        yield Entry(
            where=place.where,
            # Inspect numbers the samples of every task from 1.
            problem_id=row["id"] if isinstance(row["id"], str) else f"{place.facts.task}-{row['id']}",
            statement=_input(row.get("input")),
            gold=as_gold(row.get("target")),
            subset=as_text(metadata.get("subset")) or "",
            text=join_parts(choice["message"].get("content")),
            # With several choices, the usage is that of all of them together.
            tokens=tokens if alone else len(logprobs) or None,
            seconds=seconds,
            finish=as_finish(ended),
            ended=as_text(ended),
            logprob_mean=mean_logprob(logprobs) if mean is None else mean,
            logprob_tail=mean_logprob(logprobs, last=Sample.TAIL_TOKENS) if tail is None else tail,
            seed=as_seed(metadata.get("seed")),
            # An epoch numbers no choice.
            index=row["epoch"] - 1 if alone else None,
            uid=uid if alone or uid is None else f"{uid}/{position}",
            other_golds=len(list_golds(row.get("target"))) > 1,
            # Its scorers look at the first choice alone.
            verdicts={} if position else _verdicts(row.get("scores")),
            thinking=metadata.get("in_thoughts") is True or None,
        )


def _cost(row: LogRow, choices: Sequence[object]) -> tuple[int | None, float | None]:
    """Return (tokens, seconds) of a sample."""
    said = [message for message in row.get("messages") or () if message.get("role") == "assistant"]
    turns = as_count(row.get("turn_count")) or len(said)
    times, usages = [row.get("working_time"), row.get("total_time")], [*(row.get("model_usage") or {}).values()]
    # Of several calls the output knows the last one alone: then the sample's own time and usage are the nearest.
    if turns <= 1 and len(choices) == 1:
        times.insert(0, dig(row, "output.time"))
        usages = [dig(row, "output.usage")]
    tokens = as_count(dig(usages[0], "output_tokens")) if len(usages) == 1 else None
    return tokens, next((number for time in times if (number := as_number(time)) is not None), None)


def _input(value: object) -> str | None:
    if isinstance(value, list):
        asked = [message for message in value if message.get("role") == "user"]
        return join_parts(asked[-1].get("content")) if asked else None
    return as_text(value)


def _verdicts(scores: object) -> dict[str, bool]:
    """Return the scorers' verdicts that are right or wrong; Inspect's letters: C, I, N for no answer, P for partly.

    A number says it only by the scorer's name.
    """
    letters = {"C": True, "I": False, "N": False}
    numbers: dict[float, bool] = {1: True, 0: False}  # True is 1, too
    values = {name: score.get("value") for name, score in scores.items()} if isinstance(scores, Mapping) else {}
    told = {name: letters[value] for name, value in values.items() if isinstance(value, str) and value in letters}
    return told | {
        name: numbers[value]
        for name, value in values.items()
        if isinstance(value, int | float) and value in numbers and says_right(name)
    }
