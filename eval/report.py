"""`python -m eval report` and `python -m eval inspect`: finished runs as a page, and as logs that Inspect opens."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from eval.repair import repair_samples
from mathlete.command import Command, busy, console
from mathlete.errors import require
from mathlete.folders import require_result_file
from mathlete.runs import INSPECT, REPORT


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """Runs to show."""

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN…")]
    """Run folders of `python -m eval` or `python -m train math`; several stand side by side."""
    out: Path | None = None
    """File to write, with the charts as PNG in plots/ beside it; default: report.html in the run, or for several runs
    in runs/report-RUN-RUN."""
    repair: bool = False
    """Cut half-written last lines off samples.jsonl first."""
    live: bool = False
    """Follow runs that are running: serve a page on this machine only, until Ctrl-C, and write no file."""
    port: int = 0
    """Port of the live page; 0: any free one."""
    json: bool = False
    """End with one line of JSON on stdout."""


def report(settings: ReportSettings) -> dict[str, object]:
    """Write the report; return its path and size."""
    from mathlete.report import write_report

    out = console(json=settings.json)
    if settings.live:
        return follow(settings)
    if settings.out:
        require_result_file(settings.out, begins=b"<!doctype html")
    if settings.repair:
        repair_samples(settings.runs, say=out.print)
    with busy("report"):
        written = write_report(settings.runs, out=settings.out or default_report(settings.runs))
    size = written.stat().st_size
    out.print(f"{written}: {size / 1e6:.1f} MB")
    return {"report": str(written), "bytes": size, "runs": [*map(str, settings.runs)]}


def follow(settings: ReportSettings) -> dict[str, object]:
    """Serve the page of running runs until the command is stopped."""
    from mathlete.report import open_server

    require(
        ("out", str(settings.out), settings.out is None, "left out with --live, which writes no file"),
        ("port", settings.port, 0 <= settings.port <= 65535, "from 0 to 65535"),
        cure="leave it out",
    )
    with open_server(settings.runs, port=settings.port) as server:
        host, port = server.server_address[:2]
        address = f"http://{host!s}:{port}/"
        console(json=settings.json).print(
            f"{address} follows {len(settings.runs)} run{'s' if settings.runs[1:] else ''}; Ctrl-C ends it"
        )
        server.serve_forever()
    return {"live": address, "runs": [*map(str, settings.runs)]}


def default_report(runs: tuple[Path, ...]) -> Path:
    """Return where the report of these runs goes if no file is named."""
    if len(runs) == 1:
        return runs[0] / REPORT
    return Path("runs") / f"report-{'-'.join(folder.resolve().name for folder in runs)}" / REPORT


REPORT_COMMAND = Command(
    settings=ReportSettings,
    run=report,
    help="Shows runs in one HTML file that needs no network: scores, curves, votes, a trace reader; plots as PNG.\n\n"
    "Examples:\n\npython -m eval report runs/base\n\n"
    "python -m eval report runs/base runs/tuned runs/train --out compared.html\n\n"
    "python -m eval report runs/base --live",
)


@dataclass(frozen=True, kw_only=True)
class InspectSettings:
    """A run to write as a log."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """Folder of a finished `python -m eval` run."""
    out: Path | None = None
    """Log to write, NAME.eval or NAME.json; default: RUN/inspect/SUITE.eval."""
    json: bool = False
    """End with one line of JSON on stdout."""


def inspect(settings: InspectSettings) -> dict[str, object]:
    """Write the log; return its path."""
    from mathlete.scoring import EvalRun

    if settings.out:
        require_result_file(settings.out)
    run = EvalRun.read(settings.run)
    suite = run.results.facts.settings.suite if run.results.facts else run.name
    with busy("log"):
        log = run.write_inspect_log(settings.out or settings.run / INSPECT / f"{suite}.eval")
    console(json=settings.json).print(f"{log}: open it with `inspect view --log-dir {log.parent}`")
    return {"log": str(log), "run": str(settings.run)}


INSPECT_COMMAND = Command(
    settings=InspectSettings,
    run=inspect,
    help="Writes a run as an eval log that Inspect's viewer opens; needs inspect_ai (the extra `inspect`).\n\n"
    "Examples:\n\npython -m eval inspect runs/base\n\npython -m eval inspect runs/base --out logs/base.eval",
)
