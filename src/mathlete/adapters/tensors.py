"""Names, types and shapes of the tensors in a safetensors file, read without torch and without their numbers.

The format: eight bytes with the length of a JSON object, the object, then the numbers
(https://github.com/huggingface/safetensors, "Format").
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypedDict

from mathlete.errors import UserError
from mathlete.files import choose_cure

DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I8": "int8", "U8": "uint8"}
"""{the format's word: torch's name} of the types that adapters are seen in."""
_HEADER_MAX_BYTES = 100_000_000
"""Longest header that safetensors itself reads."""


@dataclass(frozen=True, kw_only=True)
class TensorFacts:
    """What is known of a tensor without its numbers."""

    dtype: str
    """By torch's name; the format's own word where that is not known."""
    shape: tuple[int, ...]


def read_tensor_facts(file: IO[bytes], *, where: Path | str, size: int) -> dict[str, TensorFacts]:
    """Return {name: facts} of the tensors in an open safetensors file, in the file's order.

    Args:
        file: at its beginning.
        where: what it is called in an error.
        size: of the file, bytes.

    Raises:
        UserError: it is no such file, or one that was cut.
    """
    try:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size - 8, _HEADER_MAX_BYTES):
            raise ValueError(f"a header of {length} bytes in a file of {size}")
        header: dict[str, _Entry] = json.loads(file.read(length))
        facts = {name: _read_facts(value) for name, value in header.items() if name != "__metadata__"}
        end = max((int(value["data_offsets"][1]) for name, value in header.items() if name in facts), default=0)
        if 8 + length + end != size:
            raise ValueError(f"{size} bytes, and its header asks for {8 + length + end}")
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        cure = "save it again with peft's save_pretrained, and copy the whole file"
        cure = choose_cure(where, otherwise=cure) if isinstance(where, Path) else cure
        raise UserError(f"{where} must be a whole safetensors file", value=str(error)[:200], cure=cure) from error
    return facts


class _Entry(TypedDict):
    """What the header says of a tensor."""

    dtype: str
    shape: list[int]
    data_offsets: list[int]


def _read_facts(value: _Entry) -> TensorFacts:
    return TensorFacts(dtype=DTYPES.get(value["dtype"], value["dtype"]), shape=tuple(map(int, value["shape"])))
