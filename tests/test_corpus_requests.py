r"""Requests for a box that data sets put around a problem: all wordings go, and nothing of a problem goes with them."""

import json
from pathlib import Path

import pytest

from mathlete.corpus.layouts import read_traced
from mathlete.corpus.requests import drop_requests
from mathlete.overlap import hash_statement
from tests.conftest import ROOT

ASKED = "Let $x$ be a number with $x^2=4$. Find the sum of all $x$."
REPLY = "So \\boxed{0}"
REQUESTS = (
    r"Please reason step by step, and put your final answer within \boxed{}.",
    r"Please reason step by step, and put your final answer within $\boxed{}$.",
    r"Please reason step by step and put your final answer in \boxed{ }.",
    r"Please reason step-by-step, and put your final answer within \boxed{}.",
    r"Let's think step by step and output the final answer within \boxed{}.",  # OpenR1, DAPO in verl
    r"Let's think step by step, and put the final answer in \boxed{}.",
    r"Let’s reason step by step, and box your final answer in \boxed{}.",
    r"Return your final response within \boxed{}.",  # OpenThoughts
    r"Solve the following math problem. Make sure to put the answer (and only answer) inside \boxed{}.",  # NeMo-Skills
    r"Put your final answer within \boxed{}.",
    r"Please put your final answer within \boxed{}",
    r"Please put your final answer within \\boxed{}",
    r"Present the answer in LaTex format: \boxed{Your answer}",
    r"Solve the problem step by step. Write your answer in \boxed{} format.",
    r"Answer the following question step by step and put the final answer in \boxed{}:",
    r"Please think step by step and enclose your final answer in the form \boxed{answer}.",
    r"The answer should be given in \boxed{...}.",
    "Please put your final answer inside `\\boxed{}`. For example: `\\boxed{your answer}`.",
    "Please enclose your final answer in <answer></answer> tags.",
    # DAPO and simple-evals: another form than the box contradicts the instruction that the model is served with.
    "Solve the following math problem step by step. The last line of your response should be of the form Answer: "
    "$Answer (without quotes) where $Answer is the answer to the problem.",
    'Remember to put your answer on its own line after "Answer:".',
    'Remember to put your answer on its own line after "Answer:", and you do not need to use a \\boxed command.',
    # lighteval
    "Solve the following math problem efficiently and clearly.  The last line of your response should be of the "
    "following format: 'Therefore, the final answer is: $\\boxed{ANSWER}$. I hope it is correct' (without quotes) "
    "where ANSWER is just the final number or expression that solves the problem. Think step by step before answering.",
    "请通过逐步推理来解答问题，并把最终答案放置于\\boxed{}中。",
    "请逐步推理，并将最终答案放在\\boxed{}中。",
)
OF_THE_PROBLEM = (
    "Put the answer as a fraction in lowest terms.",
    "Give your answer modulo 1000.",
    r"Give your answer modulo $1000$ in \boxed{}.",
    r"Express your answer as a common fraction within \boxed{}.",
    r"Please reason step by step, and put $a+b$ within \boxed{}.",
    r"Put your final answer within \boxed{} as an integer.",
    r"Fill in the blank: $3+\boxed{}=7$.",
    r"Find the number in \boxed{}.",
    r"The answer $\boxed{7}$ is wrong by how much?",
    "Please put the box on the last line.",
    "Let's think step by step.",
    "Solve:",
)


@pytest.mark.parametrize("request_", REQUESTS)
def test_a_request_goes_from_each_place(request_: str) -> None:
    for text in (f"{ASKED} {request_}", f"{ASKED}\n{request_}\n", f"{request_} {ASKED}", f"{request_}\n\n{ASKED}"):
        assert drop_requests(text) == ASKED
        assert hash_statement(drop_requests(text)) == hash_statement(ASKED)
    around = f"{request_}\n\n{ASKED}\n\n{REQUESTS[0]}"
    assert drop_requests(around) == ASKED


@pytest.mark.parametrize("said", OF_THE_PROBLEM)
def test_what_says_more_than_a_request_stays(said: str) -> None:
    for text in (f"{ASKED} {said}", f"{said}\n{ASKED}"):
        assert drop_requests(text) == text
        assert drop_requests(f"{text.replace(said, said + ' And why?')} {REQUESTS[1]}").count(said) == 1


ENDS = (
    "Evaluate the integral:\n$$\n\\int_0^1 2x dx\n$$",
    "Given that $3a+2=5$. Solve for $a$.",
    "Let $x=2$. Find y. Express your answer in the form $a/s$.",
    "Give the solution in the form $a - i$.",
    "How many are there? Express the answer as a number.",
    "What does it print?\n```\nprint(1)\n```",
    'He said: "Twin primes differ by 2."',
    "Let a be the solution.",
    'Which words fit: "a", "the"',
)


@pytest.mark.parametrize("problem", ENDS)
@pytest.mark.parametrize("between", [" ", "\n", "\n\n"])
def test_a_problem_beside_a_request_keeps_its_last_sign(problem: str, between: str) -> None:
    for asked in (REQUESTS[0], REQUESTS[4], REQUESTS[9]):
        assert drop_requests(f"{problem}{between}{asked}") == problem


def test_a_problem_behind_a_request_keeps_its_first_sign() -> None:
    problem = '"Twin primes" are primes that differ by 2. How many are there below 100?'
    assert drop_requests(f"{REQUESTS[0]} {problem}") == problem


def test_real_statements_are_whole_with_a_request_behind_them() -> None:
    lines = (ROOT / "data/recordings").glob("*/problems.jsonl")
    statements = [json.loads(line)["statement"] for file in lines for line in file.read_text().splitlines()]
    assert len(statements) > 100
    assert [one for one in statements if drop_requests(f"{one} {REQUESTS[0]}") != one.strip()] == []


def test_a_request_needs_no_full_stop_before_it() -> None:
    assert drop_requests(rf"What is $2+2$ {REQUESTS[9]}") == "What is $2+2$"
    assert drop_requests(r"Find x, please put your answer in \boxed{}. [asy] d [/asy]") == "Find x\n[asy] d [/asy]"
    assert drop_requests(rf'He said "go." {REQUESTS[0]}') == 'He said "go."'


@pytest.mark.parametrize(
    "text", [" " * 9**5, "please " * 9**4, "\\boxed{" * 9**4, "\\" * 9**5, "\\boxed{" + " " * 9**5]
)
def test_hostile_texts_are_read_in_one_pass(text: str) -> None:
    """A pass that is quadratic in them would take minutes."""
    assert drop_requests(f"{text}x\\boxed") == f"{text}x\\boxed".strip()


def test_requests_go_in_every_layout(tmp_path: Path) -> None:
    for request_ in REQUESTS:
        asked = f"{request_}\n{ASKED}\n{request_}"
        rows: list[dict[str, object]] = [
            {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": REPLY}]},
            {"conversations": [{"from": "human", "value": asked}, {"from": "gpt", "value": REPLY}]},
            {"problem": asked, "solution": REPLY},
            {"instruction": request_, "input": ASKED, "output": REPLY},
            {"prompt": [{"role": "user", "content": asked}], "completion": REPLY},
        ]
        file = tmp_path / "f.jsonl"
        file.write_text("".join(json.dumps({**row, "answer": "0", "id": str(n)}) + "\n" for n, row in enumerate(rows)))
        assert [one.problem.statement for one in read_traced(file)] == [ASKED] * len(rows)
