"""The gates tried before the training: a night of it must not end in a refusal that a minute could have foretold.

What a merge and a format cost hardly depends on what was learnt. So a random adapter of the same kind is merged and
exported, and measured on a few held-out rows; greedy answers, which take longest, are left to the export itself.
Few rows and another adapter are a sample, so an export that costs little more than its limit ends no run.
"""

import gc
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from mathlete.errors import UserError
from mathlete.export.distributions import kl_divergence, log_probabilities
from mathlete.export.exact import EXACT
from mathlete.export.formats.table import EXPORT_FORMATS
from mathlete.export.formats.writing import choose_dtype, write_format
from mathlete.export.limits import find_kl_breaches, find_merge_breaches
from mathlete.export.merge import write_merged
from mathlete.export.noise import NOISY, measure_16bit, measure_exactly
from mathlete.export.settings import Export, Survival
from mathlete.export.tuned import TunedModel
from mathlete.gates import ACCEPT, Noise, Refused, judge_breaches, outcome_of
from mathlete.runs import Advance, read_json, write_json
from mathlete.tune import AdapterFolder, Recipe

if TYPE_CHECKING:
    from datasets import Dataset
    from torch import Tensor

_SURE = 2.0
"""How many times its limit an export must cost with a random adapter for a trained one to be above it too.

SmolLM2-135M's w8a16 cost 4.4e-3 with a random adapter and two thirds of that after three steps, its int8 2.2e-2 and
2.1e-2, beside a noise of 1.4e-3 and 1.6e-3; of single rows its int8 costs 1.8e-2 to 3.0e-2.
"""


@dataclass(frozen=True, kw_only=True)
class GateTrial:
    """What to try: a model as it will be trained, merged and exported."""

    file: ClassVar[str] = "trial.json"
    """In the adapter's folder, until its manifest has what this says; Kaggle's data sets may lack hidden files."""
    hidden: ClassVar[str] = ".trial.json"
    """Its name while the manifest is written, which lists no file of such a name."""

    tuned: TunedModel
    """The model as it will be trained, into a folder that may be empty as yet."""
    recipe: Recipe
    limits: Survival
    formats: Export
    names: Sequence[str]
    """Formats that are tried; none where the run ends with the merge."""

    @property
    def _record(self) -> Path:
        """What was found, for a training that is killed and goes on: it can't be tried beside weights that are."""
        return self.tuned.adapter / self.file

    def read(self) -> dict[str, object]:
        """Return what was found before a training that went on since; {} where nothing was tried."""
        files = (self._record, self.tuned.adapter / self.hidden)
        return next((read_json(file) for file in files if file.is_file()), {})

    @classmethod
    @contextmanager
    def handing_on(cls, adapter: Path) -> Iterator[None]:
        """Hide what was found in an adapter's folder while its manifest is written, which has it; then delete it."""
        if (adapter / cls.file).is_file():
            (adapter / cls.file).replace(adapter / cls.hidden)
        yield
        (adapter / cls.hidden).unlink(missing_ok=True)

    def run(self, *, accept_refused: str, advance: Advance, say: Callable[[str], None]) -> dict[str, object]:
        """Write, merge and export a random adapter in a folder below the adapter's, which is deleted then.

        Raises:
            Refused: a limit is broken, and there is no reason to accept that.
            UserError: no room, or a format that can't hold the model.
        """
        # No manifest looks into a folder with such a name.
        scratch = self.tuned.adapter / ".trial"
        shutil.rmtree(scratch, ignore_errors=True)
        tuned = replace(self.tuned, adapter=scratch / "adapter", most_rows=self.limits.trial_rows)
        try:
            figures = self._try(scratch, tuned, accept_refused=accept_refused, advance=advance, say=say)
            write_json(self._record, figures)
            return figures
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            _free_gpu()

    def _try(
        self,
        scratch: Path,
        tuned: TunedModel,
        *,
        accept_refused: str,
        advance: Advance,
        say: Callable[[str], None],
    ) -> dict[str, object]:
        started, merged = time.monotonic(), scratch / "merged"
        advance(0, None, "trying the gates: a random adapter")
        AdapterFolder(tuned.adapter).fill_at_random(tuned.source, recipe=self.recipe)
        rows, trained = tuned.load_rows(), tuned.load(dtype=EXACT)
        exact = measure_exactly(trained, rows)
        reference, (again, batch) = exact.log_probs, exact.noise
        del trained
        kl = measure_16bit(tuned, rows, reference=reference)
        noise = Noise(again=again, batch=batch, dtype=NOISY, kl=kl, answered=0, changed=0)
        most = self.limits.merge_limit(noise.exact)
        stored = write_merged(
            merged,
            tuned,
            reference=reference,
            most=most,
            advance=lambda *_: advance(0, None, "trying the gates: merge"),
        )
        kls = {"merged": stored.kl, **dict(self._export(scratch, merged, rows, reference, advance=advance))}
        foretold = self.foretell(kls, noise=noise, stored=choose_dtype(merged, self.formats))
        breaches = [
            *find_merge_breaches(
                stored.kls,
                dtype=stored.dtype,
                limits=self.limits,
                noise=noise.exact,
                base=tuned.base,
                is_random=True,
            ),
            *foretold.breaches,
        ]
        allowed = {
            "merged": most,
            **{name: self.limits.export_limit(noise, bits=EXPORT_FORMATS[name].bits) for name in self.names},
        }
        shown = ", ".join(f"{name} {value:.1e} of at most {allowed[name]:.1e}" for name, value in kls.items())
        say(
            f"gates tried before training, {len(reference)} tokens: KL {shown}; {noise.describe()}; "
            f"{time.monotonic() - started:.1f} s"
        )
        if foretold.open:
            say(foretold.describe())
        told = [*map(_before_training, breaches[:1]), *breaches[1:]]  # they are told in one sentence
        judge_breaches(told, reason=accept_refused, folder=self.tuned.adapter)
        outcome = outcome_of(breaches, reason=accept_refused)
        return {"kl": kls, "tokens": len(reference), "noise": noise.to_json(), **outcome.to_json()}

    def _export(
        self, scratch: Path, merged: Path, rows: "Dataset", reference: "Tensor", *, advance: Advance
    ) -> Iterator[tuple[str, float]]:
        """Yield (name, KL(trained || export)) of each format but the calibrated ones, whose making takes minutes."""
        for name in self.names:
            if EXPORT_FORMATS[name].is_calibrated:
                continue
            advance(0, None, f"trying the gates: {name}")
            folder = scratch / name
            write_format(folder, merged=merged, name=name, settings=self.formats)
            yield name, kl_divergence(reference, log_probabilities(EXPORT_FORMATS[name].load(folder), rows))
            shutil.rmtree(folder)

    def foretell(self, kls: Mapping[str, float], *, noise: Noise, stored: str) -> "Foretold":
        """Return which formats will be refused whatever the training brings, and which only may be.

        Args:
            kls: KL(trained || export) by format, nats a token; names of no format are passed over.
            noise: with the random adapter.
            stored: the 16-bit type that the formats are written for.
        """
        breaches, still_open, cures = [], [], []
        for name, kl in kls.items():
            if name not in EXPORT_FORMATS:
                continue
            most = _SURE * self.limits.export_limit(noise, bits=EXPORT_FORMATS[name].bits)
            for breach in find_kl_breaches(
                name, kl, engine="transformers", limits=self.limits, export=self.formats, noise=noise, stored=stored
            ):
                if kl <= most:
                    still_open.append(name)
                    cures.append(breach.cure.removesuffix(f", or {ACCEPT}"))
                else:  # a KL that is no number, too
                    breaches.append(breach)
        return Foretold(breaches=tuple(breaches), open=tuple(still_open), cures=tuple(dict.fromkeys(cures)))


@dataclass(frozen=True, kw_only=True)
class Foretold:
    """What a trial says of the exports of a model that is not trained yet."""

    breaches: tuple[Refused, ...]
    """Of formats that are far above their limit."""
    open: tuple[str, ...]
    """Formats that are a little above it."""
    cures: tuple[str, ...]
    """What to do for those, each once."""

    def describe(self) -> str:
        """Describe in a line what is left open.

        >>> print(Foretold(breaches=(), open=("int8",), cures=("use --export.threshold 1",)).describe())
        above its limit as yet: int8; cost and limit are measured anew after the training.
          To be sure: use --export.threshold 1
        """
        return (
            f"above its limit as yet: {', '.join(self.open)}; cost and limit are measured anew after the training.\n"
            f"  To be sure: {'; '.join(self.cures)}"
        )


def _free_gpu() -> None:
    """Leave a GPU's memory and its peak as if nothing had been tried: the training is planned and measured by both."""
    import torch

    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _before_training(breach: UserError) -> Refused:
    rule = f"before any training, with a random adapter on a few rows: {breach.rule}"
    return Refused(rule, value=breach.value, cure=breach.cure)
