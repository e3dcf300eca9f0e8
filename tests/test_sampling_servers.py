"""The openai engine against a server on loopback that does whatever a server may do: an answer, or a lost try."""

import asyncio
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mathlete.errors import UserError
from mathlete.lost import LostTry
from mathlete.models import find_model, load_prompt_format
from mathlete.problems import Problem, write_problems
from mathlete.sampling.record import read_samples
from mathlete.sampling.samples import Sample, SamplingConfig
from mathlete.sampling.served.events import Events
from mathlete.sampling.served.openai_engine import OpenAISampler, ServerSettings
from mathlete.solve.clock import RealClock
from mathlete.solve.policy import Policy
from mathlete.solve.solver import solve
from tests.conftest import CommandLine, sample
from tests.hostile import EMPTY, FINE, LISTINGS, LOST, REFUSED, ROWS, SOME
from tests.loopback import (
    BEGUN,
    DONE,
    GOOD,
    TEXT,
    Behaviour,
    Loopback,
    answers,
    choice,
    die,
    event,
    good,
    hang,
    redirect_to_itself,
    says,
    streams,
)

pytest.importorskip("httpx2", reason="needs httpx2, the extra `openai`")
PROBLEM = Problem(id="p", statement="What is 3 + 4?", gold="7")
CONFIG = SamplingConfig(max_tokens=40)


@pytest.fixture
def loopback() -> Iterator[Callable[..., Loopback]]:
    servers: list[Loopback] = []

    def start(*first: Behaviour, **how: Any) -> Loopback:
        servers.append(Loopback(first=[*first], **how))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@dataclass
class Opened:
    """An engine on servers, and what it lost."""

    engine: OpenAISampler
    lost: list[LostTry]

    def draw(self, n: int = 1, config: SamplingConfig = CONFIG) -> list[Sample]:
        return sorted(
            self.engine.stream(PROBLEM, seeds={i: 100 + i for i in range(n)}, config=config),
            key=lambda sample: sample.index,
        )


@pytest.fixture
def opened() -> Iterator[Callable[..., Opened]]:
    prompts = load_prompt_format(find_model("pocket"))
    engines: list[OpenAISampler] = []

    def start(*servers: Loopback, **how: Any) -> Opened:
        lost: list[LostTry] = []
        settings = ServerSettings(urls=tuple(server.url for server in servers), **how)
        engines.append(OpenAISampler(settings, model="m", prompts=prompts, on_lost=lost.append))
        return Opened(engines[-1], lost)

    yield start
    for engine in engines:
        engine.close()


def test_the_table_is_as_long_as_it_must_be() -> None:
    assert len(LOST) >= 50
    assert set(SOME) <= set(LOST)


@pytest.mark.parametrize("name", ROWS)
def test_a_lost_sample_is_drawn_again(
    name: str, loopback: Callable[..., Loopback], opened: Callable[..., Opened]
) -> None:
    behave, words = LOST[name]
    server = loopback(behave)
    engine = opened(server, patience_s=0.6 if "nothing came" in words else 5)
    (drawn,) = engine.draw()
    assert (drawn.text, drawn.finish, drawn.tokens) == (TEXT, "boxed", 5)
    (one,) = engine.lost
    assert re.search(words, one.reason), one.reason
    assert (one.problem_id, one.index, one.seed, one.where) == ("p", 0, 100, server.url)
    assert [request["seed"] for request in server.requests] == [100, 100]


@pytest.mark.parametrize("name", ROWS)
def test_what_never_comes_right_ends_the_run_with_what_came(
    name: str, loopback: Callable[..., Loopback], opened: Callable[..., Opened]
) -> None:
    behave, words = LOST[name]
    # What is no silence must not be taken for it on a busy machine.
    patience_s = 0.4 if "nothing came" in words else 1.5
    engine = opened(loopback(then=behave), patience_s=patience_s)
    began = time.monotonic()
    with pytest.raises(UserError) as caught:
        engine.draw(2)
    # Patience, waits between tries, and a machine that is busy with other things.
    assert time.monotonic() - began < 3 * patience_s + 5
    assert re.search(f"must (answer within {patience_s} s|come whole from).*, got .*({words})", str(caught.value)), (
        caught.value
    )
    assert len(str(caught.value).splitlines()) == 2
    assert len(engine.lost) >= 1


@pytest.mark.parametrize("name", ROWS)
def test_a_clock_ends_a_problem_whatever_the_server_does(
    name: str, loopback: Callable[..., Loopback], opened: Callable[..., Opened]
) -> None:
    behave, _ = LOST[name]
    engine = opened(loopback(then=behave), patience_s=30)
    began = time.monotonic()
    solution = solve(
        PROBLEM, sampler=engine.engine, clock=RealClock(), policy=Policy(n=2, sampling=CONFIG), timeout_s=0.3
    )
    assert time.monotonic() - began < 0.3 + 5
    assert (solution.answer, solution.samples, solution.ended) == (None, [], "time")


@pytest.mark.parametrize(
    "name",
    sample("a drip", "silence after the end", slow=[n for n in FINE if n not in ("a drip", "silence after the end")]),
)
def test_oddities_that_harm_nothing_are_let_pass(
    name: str, loopback: Callable[..., Loopback], opened: Callable[..., Opened]
) -> None:
    engine = opened(loopback(then=FINE[name]), patience_s=30)
    (drawn,) = engine.draw()
    assert drawn.text in (TEXT, "So 7.\n</think>\n\nIt is 7.")
    assert drawn.tokens in (3, 4, 5)
    assert engine.lost == []


@pytest.mark.parametrize("name", sample("nothing counted", "one counted", slow=[*EMPTY][1:3] + [*EMPTY][4:]))
def test_a_model_may_say_nothing(name: str, loopback: Callable[..., Loopback], opened: Callable[..., Opened]) -> None:
    events, tokens, lost = EMPTY[name]
    engine = opened(loopback(then=streams(events)), patience_s=30)
    (drawn,) = engine.draw()
    assert (drawn.text, drawn.tokens) == ("", tokens)
    assert len(engine.lost) == lost


def test_a_server_that_failed_to_speak_once_is_asked_again(
    loopback: Callable[..., Loopback], opened: Callable[..., Opened]
) -> None:
    engine = opened(loopback(streams(choice("", "stop"), DONE)), patience_s=30)
    assert [one.text for one in engine.draw()] == [TEXT]
    assert "an empty completion" in engine.lost[0].reason


@pytest.mark.parametrize("name", sample("401", slow=[name for name in REFUSED if name != "401"]))
def test_a_refusal_ends_the_run_at_once(
    name: str, loopback: Callable[..., Loopback], opened: Callable[..., Opened]
) -> None:
    behave, words = REFUSED[name]
    began = time.monotonic()
    engine = opened(loopback(then=behave), patience_s=60)
    with pytest.raises(UserError, match=f"must take the request for problem p, got {words}"):
        engine.draw()
    # A second server takes what the first refuses.
    assert time.monotonic() - began < 10
    both = opened(loopback(then=behave), loopback(), patience_s=60)
    assert [one.text for one in both.draw(4)] == [TEXT] * 4


@pytest.mark.parametrize(
    "name", sample("no JSON", "data of null", slow=[n for n in LISTINGS if n not in ("no JSON", "data of null")])
)
def test_a_server_may_list_its_models_in_any_way(
    name: str, loopback: Callable[..., Loopback], opened: Callable[..., Opened]
) -> None:
    listing, model = LISTINGS[name]
    server = loopback(listing=listing)
    assert opened(server, patience_s=5).draw()[0].text == TEXT
    assert server.requests[0]["model"] == model


@pytest.mark.parametrize(
    ("behave", "words"),
    [
        (hang, "nothing within 0.3 s"),
        (die, "ReadError|RemoteProtocolError"),
        (answers("401 No", '{"error": "a key!"}'), r"401 a key!.\n  Fix: set the key that it takes as OPENAI_API_KEY"),
        (says(bytes(range(256))), "RemoteProtocolError"),
        (redirect_to_itself, "TooManyRedirects"),
    ],
)
def test_servers_of_which_none_answers_are_one_clear_error(
    behave: Behaviour, words: str, loopback: Callable[..., Loopback], opened: Callable[..., Opened]
) -> None:
    with pytest.raises(UserError, match=rf"one of the servers must answer, got http://127.0.0.1:\d+/v1: ({words})"):
        opened(loopback(listing=behave), patience_s=0.3 if behave is hang else 5)


def test_a_pause_between_problems_is_no_silence(
    loopback: Callable[..., Loopback], opened: Callable[..., Opened]
) -> None:
    engine = opened(loopback(good, answers("503 No", "restarting")), patience_s=0.4)
    engine.draw()
    time.sleep(0.6)
    assert engine.draw()[0].text == TEXT


def test_a_busy_server_is_asked_later_and_no_reply_of_it_is_wrong(
    loopback: Callable[..., Loopback], opened: Callable[..., Opened]
) -> None:
    # One sample is put off for longer than the patience, while others come.
    busy = answers("429 Slow Down", "later")
    engine = opened(loopback(busy, busy, busy, busy, good, busy, busy, good), patience_s=0.5)
    assert [one.text for one in engine.draw(6)] == [TEXT] * 6
    assert len(engine.lost) == 6


def test_halves_of_a_character_are_joined_and_others_replaced(
    loopback: Callable[..., Loopback], opened: Callable[..., Opened]
) -> None:
    odd = streams(choice("\ud83d"), choice("\ude00 \x00 \ud800"), choice("!", "stop"), DONE)
    assert opened(loopback(odd)).draw()[0].text == "😀 \x00 \ufffd!"


def test_a_server_that_takes_only_text_gets_text(
    loopback: Callable[..., Loopback], opened: Callable[..., Opened]
) -> None:
    server = loopback(answers("422 No", "a string, please"))
    engine = opened(server)
    assert [one.text for one in engine.draw() + engine.draw()] == [TEXT] * 2
    assert [type(request["prompt"]) for request in server.requests] == [list, str, str]


def test_a_prompt_that_is_refused_in_both_forms_changes_nothing_for_the_next(
    loopback: Callable[..., Loopback], opened: Callable[..., Opened]
) -> None:
    server = loopback(REFUSED["400"][0], REFUSED["400"][0])
    engine = opened(server)
    with pytest.raises(UserError, match="context length exceeded"):
        engine.draw()
    engine.draw()
    assert [type(request["prompt"]) for request in server.requests] == [list, str, list]


def test_events_come_in_any_pieces() -> None:
    async def read(pieces: list[bytes]) -> list[str]:
        async def chunks() -> Any:
            for piece in pieces:
                yield piece

        return [data async for data in Events(chunks())]

    for text in (GOOD, GOOD.replace(b"\n", b"\r\n"), GOOD.replace(b"\n", b"\r")):
        whole = asyncio.run(read([text]))
        assert len(whole) == 8
        for size in (1, 2, 3, 7, 50):
            assert asyncio.run(read([text[at : at + size] for at in range(0, len(text), size)])) == whole


def words_of(server: Loopback, *more: object) -> list[object]:
    fixed = ["two.jsonl", "--model", "pocket", "--engine", "openai", "--n", 2, "--sampling.max-tokens", 40]
    return [*fixed, "--run", "run", "--servers.urls", server.url, *more, "--json"]


@pytest.fixture
def two(workdir: Path) -> Path:
    problems = [Problem(id=name, statement=f"What is 3 + 4? ({name})", gold="7") for name in ("a", "b")]
    write_problems(workdir / "two.jsonl", problems)
    return workdir / "run"


def test_a_run_says_what_it_lost_and_a_stopped_one_draws_it_again(
    two: Path, loopback: Callable[..., Loopback], evaluate: CommandLine
) -> None:
    nonsense, busy = streams(BEGUN, event(b"{nonsense}")), answers("503 Busy", "later")
    server = loopback(good, then=nonsense)
    refusal = evaluate(
        *words_of(server, "--servers.patience-s", 3)
    ).refusal  # 1.5 s were too few for a try on a busy machine
    assert re.search("must (answer|come whole).*an event must be JSON: {nonsense}", refusal)
    assert "Traceback" not in refusal
    assert len(read_samples(two / "samples.jsonl")) == 1
    before = len((two / "lost.jsonl").read_text().splitlines())
    assert before >= 3

    server.first, server.then = [busy], good
    done = evaluate(*words_of(server))
    assert (done.result["samples"], done.result["right"]) == (4, 4)
    assert f"{before} tries were lost before" in done.stderr
    results = json.loads((two / "results.json").read_text())
    assert (results["lost_tries"], results["lost_samples"]) == (before + 1, 0)
    assert "all of them were made again" in done.stderr
    assert "lost_tries" in (two / "report.html").read_text()
    lost = [json.loads(line) for line in (two / "lost.jsonl").read_text().splitlines()]
    assert lost[-1]["reason"] == "503 Busy: later"
    assert {one["text"] for one in lost[:-1]} == {"So 7"}


def test_a_finished_run_that_cannot_grow_stays_and_one_that_began_to_can_go_back(
    two: Path, loopback: Callable[..., Loopback], evaluate: CommandLine
) -> None:
    server = loopback(then=good)
    few = words_of(server, "--servers.patience-s", 3)
    more = [5 if word == 2 else word for word in few]
    assert evaluate(*few).result["samples"] == 4
    server.listing = die
    assert "one of the servers must answer" in evaluate(*more).refusal
    assert evaluate(*few).result["skipped"]
    server.listing, server.then = answers("200 OK", "[]"), answers("503 Busy", "later")
    assert "503 Busy" in evaluate(*more).refusal
    assert not (two / "manifest.json").exists()
    back = evaluate(*few)
    assert (back.result["samples"], back.result["skipped"]) == (4, False)
    assert "going on: 4 of 4 samples are there" in back.stderr


URLS = ("localhost:8000", "ftp://x/v1", "http://", "http://[::1", "http://127.0.0.1:99999/v1", "http://127.0.0.1:-1/v1",
        "http://me:hunter2@127.0.0.1:9/v1")  # fmt: skip


@pytest.mark.parametrize("url", URLS)
def test_an_address_is_looked_at_before_anything_is_opened(url: str) -> None:
    with pytest.raises(
        UserError, match=r"--servers.urls must be addresses, http://HOST:PORT/v1, without a key"
    ) as caught:
        ServerSettings(urls=("http://[::1]:8000/v1", url)).check()
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"), [("ALL_PROXY", "socks9://x:1"), ("HTTP_PROXY", "foo:bar"), ("SSL_CERT_FILE", "/nowhere/at/all")]
)
def test_a_proxy_or_certificate_that_is_none_is_told(
    name: str,
    value: str,
    loopback: Callable[..., Loopback],
    opened: Callable[..., Opened],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="the proxy and the certificates that the environment names must be usable"):
        opened(loopback())


def test_samples_that_a_clock_leaves_lost_are_told_and_stay_so(
    two: Path, loopback: Callable[..., Loopback], evaluate: CommandLine
) -> None:
    server = loopback(then=answers("503 Busy", "later"))
    for _ in range(2):
        done = evaluate(*words_of(server, "--time-budget", 0.6, "--servers.patience-s", 60))
        assert (done.result["samples"], done.result["fallbacks"]) == (0, 2)
        assert re.search("[234] samples stay lost: the time of their problems was over", done.stderr)
        # As after a kill just before the end.
        for name in ("manifest.json", "results.json"):
            (two / name).unlink()
        server.then = good


def test_a_server_that_wants_more_patience_than_there_is_ends_the_run(
    loopback: Callable[..., Loopback], opened: Callable[..., Opened]
) -> None:
    engine = opened(loopback(then=answers("429 Slow Down", "full", "Retry-After: 3600")), patience_s=0.4)
    with pytest.raises(UserError, match=r"within 0.4 s, got .*429 Slow Down: full .to be asked again in 3600 s"):
        engine.draw()
    assert len(engine.lost) == 1
    # As where requests of a minute are counted: it is asked again when it has said so.
    assert opened(loopback(answers("429", "full", "Retry-After: 1")), patience_s=0.4).draw()[0].text == TEXT
    engine = opened(loopback(then=answers("429", "full", "Retry-After: 0.5")), patience_s=0.3)
    with pytest.raises(UserError, match=r"within 0.3 s, got .*full .to be asked again in 0.5 s"):
        engine.draw()
