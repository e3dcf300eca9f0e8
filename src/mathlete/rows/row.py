"""A token row, as it is made, proved and stored."""

from typing import TypedDict

IGNORED = -100
"""Label of a token without loss, as in torch's cross_entropy."""


class TokenRow(TypedDict):
    """One training row: the served prompt, and what the model must write after it."""

    problem_id: str
    statement: str
    gold: str
    answers: str
    """Conventions of the problem's answers where they are not the default."""
    source: str
    subset: str
    prompt_tokens: int
    tokens: int
    """Of the whole row."""
    trained_tokens: int
    """Tokens with loss."""
    shortened: bool
    """Whether its trace was ended where it first boxes the right answer."""
    problem_key: str
    """Equal for statements that differ only in typesetting."""
    trace_key: str
    """Equal for traces that differ only in white space."""
    input_ids: list[int]
    """Prompt, completion, eos."""
    labels: list[int]
    """IGNORED over the prompt and what a tool wrote, else the token's own id."""
