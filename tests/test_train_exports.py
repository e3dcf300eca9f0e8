"""`train math --export.formats`: each format in a folder of its own, measured, with its card, skipped when done."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from mathlete.export import EXPORT_FORMATS
from mathlete.runs import read_json, sha256_file
from tests.conftest import CommandLine

MISSING = [name for name in ("gguf", "compressed_tensors") if find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"needs the packages {', '.join(MISSING)}")
WORDS = ("math", "--model", "pocket", "--limit", "80", "--tune.steps", "3", "--tune.batch", "8", "--run", "run",
         "--rows.heldout", "8", "--survival.greedy", "0", "--survival.max-tokens", "48", "--json")  # fmt: skip


ENGINES = ["transformers", *(["llama.cpp"] if find_spec("xllamacpp") else [])]


@pytest.mark.slow
def test_each_format_has_a_folder_with_its_cost_and_its_card(workdir: Path, train: CommandLine) -> None:
    result = train(*WORDS, "--export.formats", "w8a16", "w8a8", "q8_0").result
    assert result["export"] == "run/export"
    assert set(result["exports"]) == {"export-w8a16", "export-w8a8", "export-q8_0"}
    for name, figures in result["exports"].items():
        folder = Path("run") / name
        export_format = EXPORT_FORMATS[name.removeprefix("export-")]
        kl = figures[f"kl_{export_format.name}"]
        assert 1e-7 < kl < 1e-3
        assert figures["top1"] > 0.98
        survival: dict[str, Any] = read_json(folder / "survival.json")
        assert survival["hops"][0]["kl"] == kl
        assert figures["least_signal_to_noise"] > 0.5
        assert all(0.8 < row["kept"] < 1.2 for row in survival["layers"])
        weights = export_format.weights(folder) if export_format.weights else None
        assert weights is not None
        for name, values in export_format.load(folder).named_parameters():
            if name.endswith("_proj.weight") and values.dtype.is_floating_point:
                assert torch.allclose(weights(name.removesuffix(".weight")), values.float(), atol=1e-3)
        assert figures["bytes"] < 0.6 * Path("run/merged/model.safetensors").stat().st_size
    served: dict[str, Any] = read_json(Path("run/export-q8_0/survival.json"))
    assert [hop["engine"] for hop in served["hops"]] == ENGINES
    for folder in (Path("run/export"), Path("run/export-q8_0")):
        card = (folder / "README.md").read_text(encoding="utf-8")
        assert card.startswith('---\nbase_model: "pocket"\n')
        for step in ("data", "adapter", "merged"):
            assert str(read_json(Path("run") / step / "manifest.json")["key"]) in card
        for file in folder.glob("*model*"):
            assert f"| {file.name} | `{sha256_file(file)}` |" in card
    again = train(*WORDS, "--export.formats", "w8a16", "w8a8", "q8_0")
    assert {"export", "export-w8a16", "export-w8a8", "export-q8_0"} <= set(again.result["skipped"])
    named = "run/export-w8a16 or run/export-w8a8 or run/export-q8_0"
    assert f"the model to serve is {named}; int8, which is always made, is run/export" in again.stderr


def test_a_gpu_that_cannot_run_a_format_is_refused_before_anything_is_made(workdir: Path, train: CommandLine) -> None:
    message = train(*WORDS, "--export.formats", "w8a8", "--export.gpu", "b200").refusal
    assert "w8a8 runs on compute capability 7.5 or later and below 10, got --export.gpu b200" in message
    assert not Path("run").exists()


@pytest.mark.slow
def test_calibrated_formats_are_made_for_the_runs_own_rows_and_say_so(workdir: Path, train: CommandLine) -> None:
    pytest.importorskip("llmcompressor", reason="needs the package llmcompressor")
    formats = ("w4a16", "w4a16-gptq", "w4a16-awq", "w8a16", "w8a16-gptq")
    words = (*WORDS, "--export.formats", *formats, "--export.calibration-rows", "64")
    exports = train(*words).result["exports"]
    kl = {name: exports[f"export-{name}"][f"kl_{name}"] for name in formats}
    assert kl["w4a16-gptq"] < kl["w4a16"]
    assert kl["w8a16-gptq"] < 1e-3
    for name in formats:
        folder, drawn = Path("run") / f"export-{name}", "64 rows of the training at most, of 2048 tokens at most"
        card = (folder / "README.md").read_text(encoding="utf-8")
        manifest: dict[str, Any] = read_json(folder / "manifest.json")
        assert (drawn in card) == (drawn in str(manifest["figures"].get("calibration"))) == ("-" in name)
        assert ("rows" in manifest["inputs"]) == (manifest["settings"].get("calibration_rows") == 64) == ("-" in name)
        assert not (folder / "recipe.yaml").exists()
    assert [*read_json(Path("run/export-w4a16-awq/survival.json"))["layers"]] == []  # type: ignore[misc]
    again = train(*words).result
    assert {f"export-{name}" for name in formats} <= set(again["skipped"])
    # Other rows make another export of a calibrated format, and of no other.
    message = train(*words[:-1], "8").refusal
    assert "export-w4a16-gptq" in message
