"""Two competitions' rules side by side: what differs, by the names that their files have."""

from mathlete.competitions.rules import Competition


def compare_rules(one: Competition, other: Competition) -> dict[str, tuple[str, str]]:
    """Return the rules that differ, {key: (of the one, of the other)} in words; – where one of them does not say it.

    >>> from mathlete.competitions import competition
    >>> compare_rules(competition("aimo-2"), competition("aimo-3"))["modulus"]
    ('1000', '–')
    """
    left, right, order = one.flatten(), other.flatten(), [*one.to_json()]
    keys = sorted({**left, **right}, key=lambda key: order.index(key.partition(".")[0]))
    differ = [key for key in keys if left.get(key) != right.get(key)]
    return {key: (one.describe().get(key, "–"), other.describe().get(key, "–")) for key in differ}


def describe_changes(before: Competition, now: Competition) -> str:
    """Return which rules have changed, in words; empty where none has.

    >>> from dataclasses import replace
    >>> from mathlete.competitions import competition
    >>> rules = competition("aimo-3")
    >>> describe_changes(rules, replace(rules, wall_s=9000, submissions_a_day=None))
    'wall_s was 18000 and is 9000; submissions_a_day was 1 and is –'
    """
    changes = compare_rules(before, now).items()
    return "; ".join(f"{key} was {old} and is {new}" for key, (old, new) in changes)
