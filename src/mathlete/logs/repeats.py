"""Repeats: samples that stand twice, in several files or in one, are taken once; what is only alike is not."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from mathlete.errors import UserError
from mathlete.logs.entries import WHOLE, Entry, Log, find_numbered
from mathlete.text import agree, counted

_Part = tuple[int, int]
"""(log, which time it says the same): a file that was written behind itself is two parts."""
_Contents = Mapping[str, Sequence[tuple[object, ...]]]
"""{problem: the contents of its samples} of a part."""


@dataclass(frozen=True, kw_only=True)
class Placed:
    """An entry with the id of its problem."""

    log: int
    problem_id: str
    entry: Entry
    number: int
    """In place of a seed, of what is known of the sample in its file: so the same one is known when it comes again."""


_Counted = tuple[int, Placed, int]
"""(place, entry, how often its log had the entry's name before)."""


def take_once(placed: Sequence[Placed]) -> list[Placed]:
    """Return each sample once.

    A sample is known by the tool's own name for it, and has what any entry of that name says, else by its seconds where
    these tell samples apart. Where a log has neither, a part repeats earlier ones if all that it says of their problems
    is equal: two samples of one text may well be two samples. A repeat that counts does less harm than a sample that is
    lost.

    Raises:
        UserError: one name stands for two contents that contradict each other.
    """
    parts, timed = _find_parts(placed)
    named = _join_named(placed)
    first: dict[tuple[str, tuple[object, ...]], _Part] = {}
    repeated = _find_repeated(placed, parts)

    def is_new(one: Placed, part: _Part) -> bool:
        entry = one.entry
        if entry.uid:
            return named[one.problem_id, entry.uid][0] is one
        # Within one part equal times are chance.
        if one.problem_id in timed and entry.seconds is not None:
            return first.setdefault((one.problem_id, entry.content), part) == part
        return one.problem_id not in repeated[part]

    kept = [one for one, part in zip(placed, parts, strict=True) if is_new(one, part)]
    return [named[one.problem_id, one.entry.uid][1] if one.entry.uid else one for one in kept]


def forget_shared_ids(logs: Sequence[Log], placed: Sequence[Placed]) -> tuple[list[Placed], list[str]]:
    """Return the entries, without the ids of responses where one stands for several of them, and a sentence on that.

    A server numbers its responses as it likes: Ollama with one of 999 numbers, KoboldCpp all with the same.

    Raises:
        UserError: they are pieces of one response that was streamed.
    """
    first: dict[str, Placed] = {}
    for one in placed:
        if logs[one.log].layout != "openai" or not one.entry.uid:
            continue
        known = first.setdefault(one.entry.uid, one)
        if not _is_one(known, one):
            _require_whole(logs, placed, uid=one.entry.uid)
            forgotten = [
                replace(each, entry=replace(each.entry, uid=None)) if logs[each.log].layout == "openai" else each
                for each in placed
            ]
            shared = f"{one.entry.uid.rpartition('/')[0]!r:.40} in {known.entry.where} and in {one.entry.where}"
            return forgotten, [f"the responses' ids name no samples, for one stands for several: {shared}"]
        # What any of them says the next must not contradict, in whatever order the files are.
        first[one.entry.uid] = replace(known, entry=known.entry.filled_from(one.entry))
    return [*placed], []


def _require_whole(logs: Sequence[Log], placed: Sequence[Placed], *, uid: str) -> None:
    """Raise UserError where the responses of an id are pieces of one that was streamed: the last alone says its end."""
    of_id = [one for one in placed if one.entry.uid == uid and logs[one.log].layout == "openai"]
    pieces = [one.entry for one in of_id if one.problem_id == of_id[0].problem_id]
    ends = [one.ended is not None for one in pieces]
    # Some servers give every response one id.
    if all(one.may_be_piece for one in pieces) and ends == [*[False] * (len(of_id) - 1), True]:
        raise UserError(
            f"{pieces[0].where}: a response must be whole, not a piece of one that was streamed",
            value=f"{counted(len(pieces), 'row')} of {uid.rpartition('/')[0]!r:.40}, all but the last without an end",
            cure=WHOLE,
        )


def _is_one(known: Placed, one: Placed) -> bool:
    """Return whether two responses of one id may be the same: written again with more, it is."""
    names = [(each.problem_id, each.entry.problem_id) for each in (known, one)]
    return names[0] == names[1] and known.entry.agrees_with(one.entry)


def number_samples(kept: Sequence[Placed]) -> list[Placed]:
    """Return the samples with their numbers: the log's own where these are distinct, else in the order of the files."""
    of_problem: defaultdict[str, list[Placed]] = defaultdict(list)
    for one in kept:
        of_problem[one.problem_id].append(one)
    numbered = []
    for samples in of_problem.values():
        indexes = [one.entry.index for one in samples]
        if None in indexes or len(set(indexes)) < len(indexes):
            samples.sort(key=lambda one: (one.log, one.entry.index or 0))
            indexes = [*range(len(samples))]
        numbered += [
            one if one.entry.index == index else replace(one, entry=replace(one.entry, index=index))
            for one, index in zip(samples, indexes, strict=True)
        ]
    return numbered


def number_of(entry: Entry) -> int:
    """Return a number that no other sample of the file has: made of what the log says and where."""
    digest = hashlib.sha256(repr((entry.where, entry.index, entry.uid, entry.content)).encode()).digest()
    return int.from_bytes(digest[:8]) >> 11


def describe_alike(logs: Sequence[Log], kept: Iterable[Placed]) -> list[str]:
    """Return a sentence for each log with texts that stand in it more than once, and nothing says of which samples."""
    seen, alike = set[tuple[object, ...]](), Counter[int]()
    for one in kept:
        if one.entry.text is None or one.entry.uid:
            continue
        key = (one.log, one.problem_id, _find_number(one), one.entry.content)
        alike[one.log] += key in seen
        seen.add(key)
    return [
        f"{logs[log].path}: {counted(number, 'sample')} {agree(number, 'says', 'say')} word for word what an earlier "
        f"one says, and {agree(number, 'counts', 'count')} beside it: nothing in the log tells whether it is the same"
        for log, number in sorted(alike.items())
        if number
    ]


def _find_number(one: Placed) -> int | str | None:
    """Return the number of a sample among those of its problem: its own, or that of its request; None without one."""
    name = one.entry.problem_id or ""
    if one.entry.index is None and find_numbered(name) == one.problem_id:
        return name
    return one.entry.index


def _find_parts(placed: Sequence[Placed]) -> tuple[list[_Part], set[str]]:
    """Return which part of its log each entry is of, and the problems of which a log's times tell samples apart.

    The same number of a sample again, or the same text in the same time, begins another part. Rounded times may be
    equal by chance, and those of a batch are shared out among its samples.
    """
    exact = {one.log for one in placed if (seconds := one.entry.seconds) is not None and round(seconds, 2) != seconds}
    of_log: defaultdict[int, list[_Counted]] = defaultdict(list)
    of_problem: defaultdict[tuple[int, str], list[_Counted]] = defaultdict(list)
    for member in _count_names(placed, exact):
        of_log[member[1].log].append(member)
        of_problem[member[1].log, member[1].problem_id].append(member)
    # A file with one sample of each problem has nothing but all its times.
    whole = {log for log in exact if _tell(of_log[log], _find_seconds) and _has_own_times(of_log[log])}
    timed = {
        key for key, own in of_problem.items() if key[0] in whole or (key[0] in exact and _tell(own, _find_seconds))
    }
    parts = [(one.log, 0) for one in placed]
    for key, own in of_problem.items():
        # Where nothing tells the samples apart, all of a log are of one part.
        if key in timed or _tell(own, _find_number):
            for place, one, part in own:
                parts[place] = (one.log, part)
    return parts, {problem_id for _, problem_id in timed}


def _count_names(placed: Sequence[Placed], exact: Collection[int]) -> Iterator[_Counted]:
    again = Counter[tuple[object, ...]]()
    for place, one in enumerate(placed):
        if not one.entry.uid and (name := _name_sample(one, is_exact=one.log in exact)) is not None:
            key = (one.log, one.problem_id, name)
            yield place, one, again[key]
            again[key] += 1


def _name_sample(one: Placed, *, is_exact: bool) -> object:
    """Return what may tell a sample of a problem from others: its number, else its text with its time; None where there
    is neither."""
    entry, number = one.entry, _find_number(one)
    has_text, has_time = entry.text is not None, entry.seconds is not None
    if number is not None and (has_text or has_time):
        return number
    return entry.content if has_text and has_time and is_exact else None


def _find_seconds(one: Placed) -> float | None:
    return one.entry.seconds


def _tell(members: Sequence[_Counted], mark: Callable[[Placed], object]) -> bool:
    """Return whether marks tell samples apart: most of a part are distinct, and a part stands behind the one before.

    Those of a batch are alike, or stand side by side.
    """
    of_part: defaultdict[int, list[object]] = defaultdict(list)
    for _, one, part in members:
        of_part[part].append(mark(one))
    parts = [part for _, _, part in members]
    return parts == sorted(parts) and all(len({*own}) > max(1, len(own) // 2) for own in of_part.values())


def _has_own_times(members: Sequence[_Counted]) -> bool:
    """Return whether no time of a problem has two contents."""
    of_time: dict[tuple[object, ...], object] = {}
    return all(
        of_time.setdefault((one.problem_id, one.entry.seconds), one.entry.content) == one.entry.content
        for _, one, _ in members
    )


def _find_repeated(placed: Sequence[Placed], parts: Sequence[_Part]) -> dict[_Part, set[str]]:
    """Return {part: the problems that it has as an earlier one does}; none where it has any of them otherwise, which
    are other seeds."""
    contents: defaultdict[_Part, defaultdict[str, list[tuple[object, ...]]]] = defaultdict(lambda: defaultdict(list))
    for one, part in zip(placed, parts, strict=True):
        contents[part][one.problem_id].append(one.entry.content)
    before: list[_Contents] = []
    repeated = {}
    for part in sorted(contents):
        own = contents[part]
        earlier = {name: [of[name] for of in before if name in of] for name in own}
        shared = {name for name, others in earlier.items() if others}
        repeated[part] = shared if all(own[name] in earlier[name] for name in shared) else set()
        before.append(own)
    return repeated


def _join_named(placed: Sequence[Placed]) -> dict[tuple[str, str], tuple[Placed, Placed]]:
    """Return {(problem, name): (its first entry, that with what later ones add)}."""
    named: dict[tuple[str, str], tuple[Placed, Placed]] = {}
    for one in placed:
        if uid := one.entry.uid:
            first, full = named.setdefault((one.problem_id, uid), (one, one))
            if one is not first:
                _require_same(one, full)
                full = replace(full, entry=full.entry.filled_from(one.entry))
            named[one.problem_id, uid] = (first, full)
    return named


def _require_same(one: Placed, first: Placed) -> None:
    # What a run of this project says of a sample it says whole.
    own = one.entry.sample or first.entry.sample
    if one.entry.content != first.entry.content if own else not one.entry.agrees_with(first.entry):
        here = "delete one of the two, or, where they are of two problems, give each an id of its own"
        raise UserError(
            f"{one.entry.where}: a sample that stands twice must be the same both times",
            value=f"sample {one.entry.uid} of problem {one.problem_id}, which {first.entry.where} has otherwise",
            cure=here if one.log == first.log else "leave one of the files out",
        )
