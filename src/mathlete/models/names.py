"""Models by name: the embedded pocket model, pinned presets of the hub, folders, hub ids."""

import re
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mathlete.errors import UserError, nearest
from mathlete.files import replace_when_done
from mathlete.folders import measure_file
from mathlete.gates import find_run_export
from mathlete.models.contexts import find_context
from mathlete.models.descriptions import complete_config, explain_undescribed, find_quantization
from mathlete.models.unreadable import explain_unreachable, explain_unreadable
from mathlete.models.weights import measure_weights, require_finite_file, require_whole_files, tell_unfinished
from mathlete.prompts import PromptSettings, SavedPrompt
from mathlete.runs import read_json, sha256_json, sha256_tree, verify_if_made
from mathlete.shipped import data_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from transformers import PreTrainedConfig, PreTrainedModel

    from mathlete.models.weights import KnownSize
_NO_GGUF = "name the model that the GGUF was made of: its folder of config.json and .safetensors files, or hub id"


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """Where a model's files are."""

    name: str
    """What the user called it."""
    location: str
    """A folder, or a hub id."""
    revision: str | None = None
    """Commit of the hub repository."""
    prompt: PromptSettings = field(default_factory=PromptSettings)
    """What stands in its prompt otherwise than its folder says."""
    hosted: bool = False
    """Whether a chat server alone has it, by the name that is its location: no file of it can be read here."""

    @property
    def folder(self) -> Path | None:
        """The folder, or None for a hub id, and for what a server alone has."""
        return Path(self.location) if not self.hosted and Path(self.location).is_dir() else None

    @property
    def public_name(self) -> str:
        """What it is called away from this machine: OWNER/NAME for a model of the hub, else the folder's own name.

        >>> ModelSource(name="x", location="/home/me/.cache/hub/models--Qwen--Qwen3-8B/snapshots/abc").public_name
        'Qwen/Qwen3-8B'
        """
        if self._hub_place[0] or self.folder is None:
            return self._hub_place[0] or self.location
        # What is shipped has a name of its own; what was named by its folder has that one's.
        return self.folder.resolve().name if Path(self.name).is_dir() else self.name

    @property
    def public_commit(self) -> str:
        """The commit of the hub's that it is; "" where it is not known."""
        return self.revision or self._hub_place[1]

    @property
    def _hub_place(self) -> tuple[str, str]:
        """(OWNER/NAME, commit) of a folder in the hub's cache."""
        kept = re.search(r"models--([^/]+?)--([^/]+)/snapshots/([^/]+)/?$", self.location)
        return (f"{kept[1]}/{kept[2]}", kept[3]) if kept else ("", "")

    @property
    def licence(self) -> str:
        """The licence that its own card names, as the hub writes it; "" where it has none here.

        The pocket model's is this project's, as `data/pocket/README.md` says.
        """
        if self.name == "pocket":
            return "apache-2.0"
        from huggingface_hub import metadata_load
        from yaml import YAMLError

        card = (self.folder or Path(self.location)) / "README.md"
        try:
            return str((metadata_load(card) or {}).get("license") or "") if card.is_file() else ""
        except (ValueError, YAMLError):
            return ""

    @property
    def served_prompt(self) -> SavedPrompt:
        """The instruction and the arguments of the chat template that it is served with."""
        saved = SavedPrompt() if self.hosted else SavedPrompt.read(self.folder or Path(self.location))
        return saved.with_settings(self.prompt)

    @property
    def identity(self) -> dict[str, object]:
        """What it is, for the hash of a run; its prompt only where that is not its folder's."""
        prompt = {"prompt": self.prompt.to_json()} if self.prompt != PromptSettings() else {}
        return {"name": self.name, "location": self.location, "revision": self.revision, **prompt}

    @property
    def weight_bytes(self) -> int:
        """Size of the weights in its folder, whatever files they are in; 0 for a hub id."""
        if self.folder is None:
            return 0
        files = [*self.folder.glob("*.safetensors")] or [
            file for file in self.folder.iterdir() if file.suffix in _PICKLED and "model" in file.name
        ]
        return sum(map(measure_file, files))

    def measure_weights(self) -> "KnownSize":
        """Return how large the weights are that belong to its folder, though they may be elsewhere; see there."""
        return measure_weights(self.folder or Path(self.location))

    def read_config(self) -> dict[str, Any]:
        """Read the model's config.json, with how its weights are stored where another file says that.

        Raises:
            UserError: not on this machine nor on the hub, or not a model.
        """
        return complete_config(self.read_described("config.json"), read=self._find_described)

    def require_described(self, *, on_kaggle: bool = False, other: str = "") -> None:
        """Check that transformers, here or in Kaggle's image, reads how weights that are not dense are stored.

        Args:
            on_kaggle: whether it is the image's.
            other: a cure that the caller knows beside another model, such as another engine.

        Raises:
            UserError: another place than it reads says so, and it would take the bytes for the numbers themselves; or
                the model is not on this machine nor on the hub.
        """
        own = self.read_described("config.json")
        beside = find_quantization(own) is None and self.is_quantized()
        wrong = explain_undescribed(own, beside=beside, location=self.location, on_kaggle=on_kaggle, other=other)
        if wrong:
            raise wrong

    def _find_described(self, name: str) -> dict[str, object] | None:
        if self.folder is not None:
            return read_json(self.folder / name) if (self.folder / name).is_file() else None
        # Of a hub's model no answer says more than that there is none.
        with suppress(UserError):
            return self.read_described(name)
        return None

    def read_described(self, name: str, *, alone: bool = False) -> dict[str, Any]:
        """Read one of its files of JSON; `alone`: no weights are needed, and a download need not fetch them.

        Raises:
            UserError: not on this machine nor on the hub, or not a model.
        """
        from transformers.utils.hub import cached_file

        try:
            file = cached_file(self.location, name, revision=self.revision)
        except (OSError, ValueError) as error:
            raise explain_unreachable(self, error, described=alone) from error
        return read_json(Path(str(file)))

    def require_weights(self, *, by_vllm: bool = False, other: str = "") -> None:
        """Check that a model in a folder has weights that can be read without running code, and what is read with them.

        Args:
            by_vllm: whether vLLM alone reads them: it finds weights, and how they are stored, where transformers does
                not.
            other: as of `require_described`.

        Raises:
            UserError: it has none, only pickled ones, only a part of them, or a file that is broken; or transformers
                would not read how they are stored.
        """
        if not by_vllm:
            self.require_described(other=other)
        if self.folder is None:
            return
        if not [*self.folder.glob("*.safetensors")]:
            others = sorted(file.name for file in self.folder.iterdir() if file.suffix in _PICKLED)
            raise UserError(
                "weights must be in .safetensors files: others can run code when they are read",
                value=f"{', '.join(others[:3]) or 'none'} in {self.location}{tell_unfinished(self.folder)}",
                cure="save the model with transformers' save_pretrained, or take a copy that has them",
            )
        require_whole_files(self.folder, by_vllm=by_vllm)
        if (settings := self.folder / "generation_config.json").is_file():
            read_json(settings)

    def require_finite(self) -> None:
        """Check every number of the weights in its folder, which are read for it; a hub's are taken as they are.

        4 bits would hide what is none: a block with a NaN becomes some numbers, and a wrong model is trained.

        Raises:
            UserError: NaN or infinity.
        """
        for file in sorted(self.folder.glob("*.safetensors")) if self.folder else ():
            require_finite_file(file)

    def fetch_description(self, folder: Path) -> Path:
        """Return the folder of its tokenizer and config: its own, or this one, filled from the hub or its cache.

        Raises:
            UserError: it is neither on the hub nor on this machine.
        """
        if self.folder is not None:
            return self.folder
        from huggingface_hub import snapshot_download

        try:
            snapshot = Path(snapshot_download(self.location, revision=self.revision, allow_patterns=[*_DESCRIPTION]))
        except Exception as error:
            # The border to a library that answers for the network, a stranger's server and the disk.
            raise explain_unreadable(self, error, described=True) from error
        files = {file.name: file for pattern in _DESCRIPTION for file in snapshot.glob(pattern) if file.is_file()}
        folder.mkdir(parents=True, exist_ok=True)
        for name, file in sorted(files.items()):
            with replace_when_done(folder / name) as temporary:
                shutil.copyfile(file, temporary)
        return folder

    def sha256(self) -> str:
        """Return the hash of its files, or its name and commit; of what a server alone has there is no more than that.

        Raises:
            UserError: its folder was made by a step, and has changed since.
        """
        if self.folder:
            verify_if_made(self.folder)
            return sha256_json(sha256_tree(self.folder))
        return f"{self.location} as its server has it" if self.hosted else f"{self.location}@{self.hub_commit()}"

    def is_quantized(self) -> bool:
        """Return whether the model's own files are quantised already.

        Raises:
            UserError: not on this machine nor on the hub, or not a model.
        """
        return find_quantization(self.read_config()) is not None

    def pin(self) -> tuple["ModelSource", str]:
        """Return (the source at one commit, where that commit came from); a folder stays as it is.

        A hub model without a commit is pinned to the one this machine has, if it has just one, so that the second run
        reads what the first one read; else to the newest, as the hub names it; else, without the hub, to none.
        """
        if self.folder:
            return self, "a folder: its files' hashes are in the manifests"
        if self.revision:
            return self, f"commit {self.revision}"
        if len(cached := _find_cached_commits(self.location)) == 1:
            return replace(self, revision=cached[0]), f"commit {cached[0]}, the one on this machine"
        if newest := _ask_for_newest_commit(self.location):
            return replace(self, revision=newest), f"commit {newest}, the newest; others by --model OWNER/NAME@COMMIT"
        return self, "commit unknown: the hub can't be asked"

    def context_tokens(self) -> int:
        """Return how many tokens the model can attend to, prompt and completion together, by its configuration."""
        if self.hosted:
            return 2**31
        return find_context(self.load_config().get_text_config().to_dict()) or 2**31

    def eos_ids(self) -> set[int]:
        """Return the tokens that end a completion, read from the model's generation settings, or from its configuration
        alone."""
        from transformers import GenerationConfig

        try:
            settings = GenerationConfig.from_pretrained(self.location, revision=self.revision or "main")
        except OSError:
            settings = GenerationConfig.from_model_config(self.load_config())
        eos = settings.eos_token_id
        return {int(token) for token in (eos if isinstance(eos, list) else [eos]) if token is not None}

    def hub_commit(self) -> str | None:
        """Return the commit of a hub model, looked up where it was not pinned to one."""
        return self.revision or getattr(self.load_config(), "_commit_hash", None)

    def load_config(self) -> "PreTrainedConfig":
        """Load the model's configuration as transformers understands it.

        Raises:
            UserError: it is not on this machine nor on the hub, broken, or of a kind that transformers does not know.
        """
        from transformers import AutoConfig

        try:
            # Where nothing is said of a model's own code, transformers asks on the terminal whether to run it.
            config: PreTrainedConfig = AutoConfig.from_pretrained(
                self.location, revision=self.revision, trust_remote_code=False
            )
        except Exception as error:
            # The border to a library that reads a stranger's files: a broken one raises whatever it happens to.
            raise explain_unreadable(self, error) from error
        return config

    def build_empty(self) -> "PreTrainedModel":
        """Build the model as its config describes it, without numbers: its layers, by name and shape.

        Raises:
            UserError: transformers can't read the config, or does not know such a decoder.
        """
        import torch
        from transformers import AutoModelForCausalLM

        make: Callable[..., PreTrainedModel] = AutoModelForCausalLM.from_config
        config = self.load_config()
        vars(config).pop("quantization_config", None)  # else its layers would be those of packed weights
        try:
            with torch.device("meta"):
                return make(config, trust_remote_code=False)
        except Exception as error:
            # As for the config: a stranger's numbers raise whatever they happen to.
            raise explain_unreadable(self, error) from error


_DESCRIPTION = ("*.json", "*.jinja", "*.txt", "*.md", "*.model", "*.tiktoken", "LICENSE*")
"""Files of a model that are not its weights."""
_PICKLED = (".bin", ".pt", ".pth", ".ckpt")
HUB_MODELS = {
    "r1-qwen-1.5b": ("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", "ad9f0ae0864d7fbcd1cd905e3c6c5b069cc8b562"),
    "r1-qwen-7b": ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", "916b56a44061fd5cd7d6a8fb632557ed4f724f60"),
    "r1-qwen-14b": ("deepseek-ai/DeepSeek-R1-Distill-Qwen-14B", "1df8507178afcc1bef68cd8c393f61a886323761"),
    "r1-llama-8b": ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "6a6f4aa4197940add57724a7707d069478df56b1"),
    # The same in NF4 already: a quarter of the download. No commit of theirs could be verified, see `pin`.
    "r1-qwen-1.5b-4bit": ("unsloth/DeepSeek-R1-Distill-Qwen-1.5B-bnb-4bit", None),
    "r1-qwen-7b-4bit": ("unsloth/DeepSeek-R1-Distill-Qwen-7B-bnb-4bit", None),
    "r1-qwen-14b-4bit": ("unsloth/DeepSeek-R1-Distill-Qwen-14B-bnb-4bit", None),
    "r1-llama-8b-4bit": ("unsloth/DeepSeek-R1-Distill-Llama-8B-bnb-4bit", None),
}

MODEL_NAMES = ("pocket", *HUB_MODELS)


def find_model(name: str) -> ModelSource:
    """Return the files of `pocket`, a preset, a folder or a hub id (`owner/name`, `owner/name@commit`).

    Raises:
        UserError: none of these.
    """
    if name == "pocket":
        return ModelSource(name=name, location=str(data_folder() / "pocket" / "model"))
    if name in HUB_MODELS:
        location, revision = HUB_MODELS[name]
        return ModelSource(name=name, location=location, revision=revision)
    if Path(name).is_dir():
        if not (Path(name) / "config.json").is_file():
            raise UserError("a model folder needs config.json", value=name, cure=_find_model_near(Path(name)))
        return ModelSource(name=name, location=name)
    location, _, commit = name.partition("@")
    is_gguf = location.casefold().endswith(".gguf")
    if location.count("/") == 1 and not is_gguf and not name.startswith((".", "/", "~")):
        return ModelSource(name=location, location=location, revision=commit or None)
    rule = "the model must be a preset, an existing folder or a hub id like owner/name"
    raise UserError(rule, value=repr(name), cure=_NO_GGUF if is_gguf else nearest(name, MODEL_NAMES))


def _find_model_near(folder: Path) -> str:
    """Return what to name in place of a folder that holds no model, by what it does hold."""
    run = folder.parent if (folder / "adapter_config.json").is_file() else folder
    for made in (find_run_export(run), run / "merged"):
        if made is not None and (made / "config.json").is_file():
            return f"use {made}, the model that this run made"
    if run != folder:
        return f"merge the adapter into its base first: `python -m train math --adapter {folder}`"
    if (folder / "samples.jsonl").is_file():
        return "this is an evaluation's run: name the model that it evaluated"
    within = sorted(file.parent for file in folder.glob("*/config.json"))
    other = _NO_GGUF if [*folder.glob("*.gguf")] else "name the folder the model is in"
    return f"use {within[0]}" if len(within) == 1 else other


def _find_cached_commits(location: str) -> list[str]:
    from huggingface_hub import constants

    snapshots = Path(constants.HF_HUB_CACHE) / f"models--{location.replace('/', '--')}" / "snapshots"
    return sorted(file.parent.name for file in snapshots.glob("*/config.json"))


def _ask_for_newest_commit(location: str) -> str | None:
    from huggingface_hub import HfApi

    # The library below it is httpx in some versions, httpx2 in others.
    web: Any = sys.modules.get("httpx2") or sys.modules["httpx"]
    try:
        return HfApi().model_info(location).sha
    except (OSError, web.HTTPError):  # offline by setting is an OSError, as is an answer that says no
        return None


def pick_default_model() -> tuple[str, str]:
    """Return (model name, why) for a user who named none."""
    import torch

    if torch.cuda.is_available():
        return "r1-qwen-1.5b", f"a CUDA device is there ({torch.cuda.get_device_name()}); others by --model"
    return "pocket", "no CUDA device here; a real model by --model r1-qwen-1.5b"
