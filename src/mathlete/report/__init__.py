"""What a person looks at: finished runs as one HTML page with its charts, and the table of what each export cost.

The page needs no network, and nothing that a model wrote comes alive in it. Charts are data first (`build_charts`): the
page draws them with Chart.js, `write_report` also with matplotlib as PNG.

>>> from pathlib import Path
>>> from tempfile import TemporaryDirectory
>>> with TemporaryDirectory() as folder:
...     metrics = Path(folder, "adapter", "metrics.jsonl")
...     metrics.parent.mkdir()
...     _ = metrics.write_text('{"step": 10, "loss": 2.5, "learning_rate": 1e-4}')
...     charts = build_charts([read_run(Path(folder))])
>>> [(chart.title, chart.series[0].y) for chart in charts]
[('Loss', [2.5]), ('Learning rate', [0.0001])]
"""

from mathlete.report.chart import Chart
from mathlete.report.charts import build_charts
from mathlete.report.hops import survival_table
from mathlete.report.html import read_run, write_report
from mathlete.report.html.replay import write_replay
from mathlete.report.live import open_server
from mathlete.report.losses import LostRun, read_losses
from mathlete.report.training import TrainRun

__all__ = [
    "Chart",
    "LostRun",
    "TrainRun",
    "build_charts",
    "open_server",
    "read_losses",
    "read_run",
    "survival_table",
    "write_replay",
    "write_report",
]
