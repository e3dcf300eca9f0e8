"""The linear layers of a decoder's blocks, as transformers builds them from a config: their names and widths."""

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.nn import Module

_IN_BLOCK = re.compile(r".*?\.\d+\.(.+)")
"""What follows the number of a block in a layer's name."""


def list_linears(model: "Module") -> tuple[tuple[str, int, int], ...]:
    """Return (name, inputs, outputs) of a block's linear layers, by the last word of their names where that is enough.

    >>> from torch import nn
    >>> block = nn.ModuleDict({"attn": nn.ModuleDict({"qkv_proj": nn.Linear(4, 12)}), "norm": nn.LayerNorm(4)})
    >>> list_linears(nn.ModuleDict({"layers": nn.ModuleList([block]), "lm_head": nn.Linear(4, 9)}))
    (('qkv_proj', 4, 12),)
    """
    from torch import nn

    sizes_of = {
        match[1]: (module.in_features, module.out_features)
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) and (match := _IN_BLOCK.fullmatch(path))
    }
    words = [name.rpartition(".")[2] for name in sizes_of]
    names = [word if words.count(word) == 1 else name for word, name in zip(words, sizes_of, strict=True)]
    return tuple((name, *sizes) for name, sizes in zip(names, sizes_of.values(), strict=True))
