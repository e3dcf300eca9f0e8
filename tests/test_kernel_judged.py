"""Judgements in the notebook: what the model's own judgements chose is sent, where it may be."""

from collections.abc import Generator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from mathlete.problems import Problem
from mathlete.sampling.samples import Sample, SamplingConfig
from mathlete.solve.policy import Policy
from tests.test_kernel_server import BOX, QUICK, Engine, ask_server, sample


class JudgingEngine(Engine):
    """One that names the second of the answers as the right one."""

    def stream(
        self, problem: Problem, *, seeds: Mapping[int, int], config: SamplingConfig
    ) -> Generator[Sample, None, None]:
        texts = [BOX % 2] * len(seeds) if problem.id.endswith("/select") else self.texts
        yield from (sample(index, text, problem) for index, text in zip(seeds, texts, strict=False))


@pytest.mark.parametrize(("second", "sent"), [(3, 3), (100_000, 7)])
def test_the_model_s_own_judgements_go_before_the_vote_where_they_may_be_sent(
    second: int, sent: int, tmp_path: Path
) -> None:
    engine = JudgingEngine([BOX % 7, BOX % 7, BOX % second])
    judged = replace(QUICK, policy=Policy(n=3, select=2))
    predicted, line = ask_server(engine, tmp_path, judged)
    assert predicted.rows() == [("424e18", sent)]
    assert [answer for answer, _ in line["votes"]] == ["7", str(second)]
