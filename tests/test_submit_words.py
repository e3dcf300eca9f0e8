"""Words and names of a build that are none of Kaggle's: refused before anything is rehearsed."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mathlete.competitions import competition
from mathlete.errors import UserError
from mathlete.kernel import KernelConfig
from mathlete.submission import Names
from mathlete.submission.lint import require_sound
from mathlete.submission.metadata import NOTEBOOK, write_metadata
from mathlete.submission.notebook import write_notebook
from tests.conftest import NAMES

WORDS = [
    ({"machine": "H100"}, NAMES, "machine_shape must be known"),
    ({"image": "latest"}, NAMES, "pinned by its digest"),
    ({"licence": "apache"}, NAMES, "Kaggle's own name"),
    ({}, replace(NAMES, kernel="My Notebook"), "id must be owner/slug"),
    ({}, replace(NAMES, wheels="w"), "a slug of 6 to 50"),
    ({}, replace(NAMES, model_version=-1), "model_sources must be"),
    # The account may be told later.
    ({}, replace(NAMES, owner="your-kaggle-name"), ""),
    ({}, replace(NAMES, owner="YOUR-NAME"), ""),
]


@pytest.mark.parametrize(("words", "names", "says"), WORDS)
def test_a_word_that_kaggle_does_not_know_is_refused_by_the_build(
    words: dict[str, str], names: Names, says: str, tmp_path: Path
) -> None:
    facts: Any = {"machine": None, "image": "", "licence": "Apache 2.0", "weights": "int8", **words}
    write_metadata(tmp_path, names, rules=competition("aimo-3"), **facts)
    write_notebook(tmp_path / NOTEBOOK, KernelConfig(), names)
    with pytest.raises(UserError, match=says) if says else nullcontext():
        require_sound(tmp_path)
