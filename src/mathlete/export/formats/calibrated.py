"""Formats that are made for the activations of the run's own rows: GPTQ and AWQ, by llm-compressor.

GPTQ (arXiv 2210.17323) rounds a layer's weights one column after the other, and moves those that are left so that what
the layer makes of its inputs changes least. AWQ (arXiv 2306.00978) multiplies the columns that meet large activations,
divides what comes before by the same, and rounds then. Both are stored as `compressed` stores plain rounding, and read
by the same kernels. The output layer and the embeddings stay in 16 bits.
"""

import re
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mathlete.errors import UserError
from mathlete.export.formats.compressed import choose_group, make_scheme
from mathlete.export.formats.weights import WriteOptions
from mathlete.models import ModelSource, load_model
from mathlete.runs import write_atomically

if TYPE_CHECKING:
    from torch.nn import Module

PACKAGE = "llmcompressor"
Method = Literal["gptq", "awq"]


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """One calibrated format of weights in integers, with activations in 16 bits."""

    method: Method
    bits: int

    @property
    def name(self) -> str:
        """Its word on the command line: w4a16-gptq."""
        return f"w{self.bits}a16-{self.method}"

    def write(self, folder: Path, merged: Path, options: WriteOptions) -> None:
        """Write the merged model, rounded for the activations of the calibration's rows.

        Raises:
            UserError: no rows, or layers that the group does not divide.
        """
        if options.calibration is None:
            cure = "export it in the run that trained the model, or use a format without a method in its name"
            raise UserError(f"{self.name} is calibrated on training rows", value="none were given", cure=cure)
        import datasets
        import torch
        from llmcompressor import oneshot

        rows = options.calibration.draw()
        _speak_of_warnings_only()
        # CPUs multiply 16 bits many times slower.
        dtype = options.dtype if torch.accelerator.is_available() else "float32"
        # Any: the library wraps `save_pretrained`, so that it writes packed integers.
        model: Any = load_model(ModelSource(name="merged", location=str(merged)), precision="dense", dtype=dtype)
        group = choose_group(model, bits=self.bits, asked=options.group)
        _watch_layers(model, options.watch)
        oneshot(
            model=model,
            recipe=self._list_modifiers(group),
            dataset=datasets.Dataset.from_list([{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in rows]),
            num_calibration_samples=len(rows),
            shuffle_calibration_samples=False,
        )
        # What is rounded stays on its levels: they are farther apart than 16 bits are.
        model.to(getattr(torch, options.dtype))
        with warnings.catch_warnings():
            # The library marks layers that it moved to a device and back; they are in memory again.
            warnings.filterwarnings("ignore", message="Attempting to save a model with offloaded modules")
            model.save_pretrained(folder)
        _forget_order(folder / "config.json")
        # The library's own settings, with Python objects in it; what was set stands in manifest and card.
        (folder / "recipe.yaml").unlink(missing_ok=True)

    def _list_modifiers(self, group: int | None) -> list[object]:
        how = {
            "config_groups": {"group_0": make_scheme("pack-quantized", bits=self.bits, group=group)},
            "ignore": ["lm_head"],
        }
        if self.method == "gptq":
            from llmcompressor.modifiers.gptq import GPTQModifier

            return [GPTQModifier(**how)]
        from llmcompressor.modifiers.quantization import QuantizationModifier
        from llmcompressor.modifiers.transform.awq import AWQModifier

        _pin_nothing_without_a_gpu()
        return [AWQModifier(), QuantizationModifier(**how)]


def _forget_order(config: Path) -> None:
    """Take out of a config.json in which order the columns were rounded: no reader needs it.

    Static ordering leaves weights and scales where they are. compressed-tensors 0.15, which vLLM 0.19.1 has, refuses
    the word beside a scale for each row.
    """
    text = config.read_text(encoding="utf-8")
    write_atomically(config, re.sub(r'"actorder": *"static", *', "", text))


def _watch_layers(model: "Module", watch: Callable[[str], None]) -> None:
    """Have each linear layer tell of itself when it is met by the first row after another layer: they come in order."""
    from torch.nn import Linear

    names = [name for name, module in model.named_modules() if isinstance(module, Linear)]
    last = [""]

    def tell(number: int, name: str) -> None:
        if last[0] != name:
            last[0] = name
            watch(f"layer {number} of {len(names)}")

    for number, name in enumerate(names, 1):
        model.get_submodule(name).register_forward_pre_hook(lambda *_, number=number, name=name: tell(number, name))


def _speak_of_warnings_only() -> None:
    """Leave of the log the library's own warnings: it tells of every event and layer, and its helpers of more."""
    from loguru import logger

    def is_told(record: Mapping[str, object]) -> bool:
        of_library = str(record["name"]).startswith("llmcompressor.modifiers")
        return of_library and f"{record['level']}" in ("WARNING", "ERROR")

    logger.configure(handlers=[{"sink": sys.stderr, "filter": is_told}])


def _pin_nothing_without_a_gpu() -> None:
    """Have llm-compressor's AWQ pin no memory where there is no device to copy it to: torch refuses that.

    llm-compressor 0.14.1a20261020 asks nothing before it pins (pipelines/cache.py).
    """
    import torch
    from llmcompressor.pipelines.cache import IntermediatesCache

    if not torch.accelerator.is_available():
        IntermediatesCache.pin_memory = lambda *_, **__: None


GPTQ_8, GPTQ_4, AWQ_4 = (
    Calibrated(method="gptq", bits=8),
    Calibrated(method="gptq", bits=4),
    Calibrated(method="awq", bits=4),
)
