"""GRPO's verifiable reward: answers are read and compared as in evaluation, and of two right ones the shorter wins.

The prompt is the served one. Where its template opens the reasoning, the sample begins within it, and is read as every
other sample is: no format reward that asks for a `<think>` the model never writes (open-r1's README warns of that one).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mathlete.prompts import PromptFormat
from mathlete.rows import RowFiles
from mathlete.tune.settings import Grpo

if TYPE_CHECKING:
    from datasets import Dataset


def compute_reward(
    text: str, *, gold: str, tokens: int, cut: bool, config: Grpo, answers: str = "", thinking: bool = False
) -> float:
    """Return 1 and the bonus for a right answer, 0 for any other; less by up to 1 for what is overlong.

    The bonus falls in a line from `brevity` at no tokens to 0 at the cap: it never outweighs being right, and of two
    right samples the shorter one is better (as Kimi k1.5's length reward, arXiv 2501.12599, section 2.3.3).

    Args:
        text: the sample, without special tokens.
        gold: the right answer.
        tokens: of the sample.
        cut: whether it ended at the cap.
        config: brevity and cap.
        answers: the conventions of the problem's answers.
        thinking: whether the prompt has opened the thoughts.
    """
    from mathlete.answers import compare, read_answer

    used = min(tokens, config.max_tokens)
    # DAPO's soft punishment: right or wrong, for a cap must not be what ends a sample.
    punished = max(0, used - config.max_tokens + config.overlong) / config.overlong if config.overlong else 0.0
    answer = read_answer(text, cut=cut, thinking=thinking)
    if answer is None or (answer != gold and compare(answer=answer, gold=gold, settings=answers).outcome != "equal"):
        return -punished
    return 1.0 + config.brevity * (1 - used / config.max_tokens) - punished


def make_reward_function(prompts: PromptFormat, config: Grpo) -> Callable[..., list[float]]:
    """Return the reward as TRL calls it: with the samples' token ids, and the rows' golds and conventions."""
    tokenizer = prompts.tokenizer

    def right_and_short(
        completion_ids: Sequence[Sequence[int]], gold: Sequence[str], answers: Sequence[str], **_: object
    ) -> list[float]:
        return [
            compute_reward(
                str(tokenizer.decode([*ids], skip_special_tokens=True)),
                gold=right,
                tokens=len(ids),
                cut=tokenizer.eos_token_id not in ids,
                config=config,
                answers=conventions,
                thinking=prompts.prefilled,
            )
            for ids, right, conventions in zip(completion_ids, gold, answers, strict=True)
        ]

    return right_and_short


def load_reward_rows(data: Path, prompts: PromptFormat) -> "Dataset":
    """Load each of the training rows' problems once.

    Returns:
        {"prompt": the conversation whose rendering is served, "gold", "answers": the conventions of its answers}.
    """
    import datasets

    rows = datasets.load_from_disk(RowFiles(data).train).select_columns(["statement", "gold", "answers"])
    problems = {row["statement"]: row for row in rows}
    return datasets.Dataset.from_list(
        [
            {"prompt": prompts.messages(statement), "gold": row["gold"], "answers": row["answers"]}
            for statement, row in problems.items()
        ]
    )
