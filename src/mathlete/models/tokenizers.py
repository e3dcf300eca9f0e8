"""Tokenizers, proved by a round trip before they are used, and the prompt format that a model is served with."""

import json
from collections.abc import Mapping
from copy import copy
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mathlete.errors import UserError, nearest, spell_switch
from mathlete.models.arguments import find_arguments, find_switches
from mathlete.models.calendars import fix_date
from mathlete.models.hosted import HostedPrompts
from mathlete.models.names import ModelSource
from mathlete.models.padding import list_conversations, read_template, render_parts, set_padding
from mathlete.models.unreadable import explain_unreadable
from mathlete.prompts import PROMPT_FILE, PromptFormat
from mathlete.templates import SWITCHES, Rendering, try_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ROUND_TRIP = (
    "Find the remainder when $23^{7} \\cdot 101$ is divided by 9.\n<think>\n23*7=161, r=8.\n</think>\n\n\\boxed{8}"
)
_QUESTION = "What is 7919 + 6841?"
_TRIED = set[str]()
"""Templates, with their special tokens, that this process has tried: a run has one, and a trial forks the process."""
_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "config.json")


def load_prompt_format(source: ModelSource) -> PromptFormat:
    """Load the tokenizer and return the prompt format that the model is served with.

    Raises:
        UserError: as of `load_tokenizer`; or an argument of the template is wrong, given here or in the model's folder.
    """
    prompt = source.served_prompt
    if source.hosted:
        return HostedPrompts().with_saved(prompt)
    tokenizer, notes = _load(source)
    prompts = PromptFormat(tokenizer=tokenizer, notes=notes).with_saved(prompt)
    if (
        prompt.template_args
    ):  # of a template it takes longer to list them than to read the whole tokenizer a second time
        _check_arguments(prompts, prompt.template_args, source=source)
    return prompts


def _check_arguments(prompts: PromptFormat, arguments: Mapping[str, object], *, source: ModelSource) -> None:
    """Raise UserError where the chat template reads no such argument, takes a text for true, or does not render."""
    template = prompts.tokenizer.get_chat_template()
    known, switches = find_arguments(template), find_switches(template)
    for name, value in arguments.items():
        if name not in known:
            raise UserError(
                f"the chat template of {source.location} must read its arguments",
                value=f"{name}, of which it knows nothing",
                cure=nearest(name, known) if known else "leave it out: this template has none",
            )
        is_word = bool(spell_switch(str(value))) and (isinstance(value, str) or switches.get(name, False))
        if not isinstance(value, bool) and (name in SWITCHES or (name in switches and is_word)):
            rule = f"the chat template of {source.location} compares {name} with true and false"
            cure = f"write {name}=true or {name}=false"
            if not source.prompt.organiser and name not in source.prompt.arguments:
                rule = f"{rule}, and {PROMPT_FILE} there has another"
                cure = f"name --prompt.template-args {name}=true or {name}=false, or write true or false in that file"
            raise UserError(rule, value=repr(value), cure=cure)
    key = f"{template}\0{sorted(arguments.items(), key=str)}"
    if key in _TRIED:
        return
    try:
        try_template([Rendering(lambda: prompts.render(_QUESTION))], where=source.location)
    except UserError as error:
        given = ", ".join(f"{name}={json.dumps(value)}" for name, value in arguments.items())
        rule, cure = (
            "the chat template must render a question with its arguments",
            "leave out the one that it can't take",
        )
        raise UserError(rule, value=f"{given}: {error.value}", cure=f"{cure}, or give it another value") from error
    _TRIED.add(key)


def load_tokenizer(source: ModelSource) -> "PreTrainedTokenizerBase":
    """Load the tokenizer, with the eos that ends a turn and a padding token that is another, and prove its round trip.

    A process reads the same files once. Each caller gets an object of its own over the one vocabulary: a template or
    a padding token that one caller sets is not another's.

    Raises:
        UserError: no tokenizer, no chat template, no token to pad with, or text that does not survive encode and
            decode (transformers 5.9 and 5.13 read some R1 repositories so that spaces are dropped).
    """
    return _load(source)[0]


def _load(source: ModelSource) -> "tuple[PreTrainedTokenizerBase, tuple[str, ...]]":
    """Return (the caller's own tokenizer, what was chosen for it)."""
    if source.folder and not (source.folder / "tokenizer.json").is_file():
        raise UserError(
            "a model folder needs its tokenizer",
            value=f"no tokenizer.json in {source.location}",
            cure="copy tokenizer.json and tokenizer_config.json from the base model into it",
        )
    files = [source.folder / name for name in _FILES] if source.folder else []
    stats = [file.stat() for file in files if file.is_file()]
    read, notes = _read_tokenizer(source, tuple((stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in stats))
    own = copy(read)
    # A deep copy of a real vocabulary takes longer than reading it anew.
    vars(own).update({name: copy(value) for name, value in vars(read).items() if isinstance(value, dict | list)})
    return own, notes


@lru_cache(maxsize=8)
def _read_tokenizer(
    source: ModelSource, _versions: tuple[tuple[int, int, int], ...]
) -> "tuple[PreTrainedTokenizerBase, tuple[str, ...]]":
    import transformers

    auto: Any = transformers.AutoTokenizer
    try:
        tokenizer: PreTrainedTokenizerBase = auto.from_pretrained(
            source.location, revision=source.revision, trust_remote_code=False
        )
    except Exception as error:
        # The border to a library that reads a stranger's files: a broken one raises whatever it happens to.
        raise explain_unreadable(source, error) from error
    # Of some vocabularies transformers would take the spaces before full stops away, with a warning.
    tokenizer.clean_up_tokenization_spaces = False
    # A row that is too long is dropped, and counted: no model computes it, as the warning says.
    tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
    _check_tokenizer(tokenizer, where=source.location)
    date = fix_date(tokenizer)
    _try_template(tokenizer, where=source.location)
    size = _embedding_size(source)
    _check_embedded(tokenizer, size=size, where=source.location)
    notes = (
        date,
        _tell_missing_opening(tokenizer),
        _set_eos(tokenizer),
        set_padding(tokenizer, size=size, where=source.location),
    )
    return tokenizer, tuple(filter(None, notes))


def _check_tokenizer(tokenizer: "PreTrainedTokenizerBase", *, where: str) -> None:
    """Raise UserError where the tokenizer loses text, has no eos or no chat template."""
    ids = tokenizer(ROUND_TRIP, add_special_tokens=False)["input_ids"]
    back = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    if back != ROUND_TRIP:
        raise UserError(
            f"the tokenizer of {where} must give back the text it is given",
            value=repr(back[:60]),
            cure="use the tokenizer.json of the base model and a transformers version that reads it right",
        )
    for what, there in (("eos token", tokenizer.eos_token_id is not None), ("chat template", tokenizer.chat_template)):
        if not there:
            raise UserError(
                f"a tokenizer must have its {what}",
                value=f"none in {where}",
                cure="copy it from the base model's folder",
            )


def _check_embedded(tokenizer: "PreTrainedTokenizerBase", *, size: int | None, where: str) -> None:
    """Raise UserError where a token that a text or the template has is beyond the model's embedding.

    A special token that is for nothing may be: padding that was added and never embedded is replaced.
    """
    added = tokenizer.added_tokens_decoder
    if size is None or max([tokenizer.vocab_size - 1, *added]) < size:
        return
    used = read_template(tokenizer)
    harmless = {index for index, token in added.items() if token.special and str(token) not in used}
    beyond = sorted(index for index in tokenizer.get_vocab().values() if index >= size and index not in harmless)
    if beyond:
        raise UserError(
            f"every token of {where} must have an embedding",
            value=f"{len(beyond)} without, the first {tokenizer.convert_ids_to_tokens(beyond[0])!r}, of {size}",
            cure="take the tokenizer that belongs to these weights, or resize the embedding (resize_token_embeddings)",
        )


def _try_template(tokenizer: "PreTrainedTokenizerBase", *, where: str) -> None:
    """Raise UserError where the template can't write a question, or does not within limits."""
    key = f"{tokenizer.chat_template}\0{tokenizer.special_tokens_map}"
    if key in _TRIED:
        return
    prompts = PromptFormat(tokenizer=tokenizer)
    asked = Rendering(
        lambda: prompts.render(_QUESTION), holds=("7919", "6841"), in_parts=lambda: render_parts(tokenizer)
    )
    others = (Rendering(render, may_fail=True) for render in list_conversations(tokenizer))
    try_template([asked, *others], where=where)
    _TRIED.add(key)


def _tell_missing_opening(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Return a note where the template heads a model's turn that was said, and not the one to be written; or ""."""
    from jinja2 import TemplateError

    prompts = PromptFormat(tokenizer=tokenizer, instruction="")
    turns = [{"role": "user", "content": _QUESTION}, {"role": "assistant", "content": "14760"}]
    try:
        prompt, asked, said = prompts.render(_QUESTION), prompts.render_turns(turns[:1]), prompts.render_turns(turns)
    except TemplateError:
        return ""
    if prompt != asked or not said.startswith(prompt):
        return ""
    # Mistral's and Llama 2's `[/INST]` heads every reply already.
    heading = said.removeprefix(prompt).partition("14760")[0].strip()
    return f"prompt: no generation prompt in the chat template: no {heading!r} before a served reply" if heading else ""


def _set_eos(tokenizer: "PreTrainedTokenizerBase") -> str:
    """Make the mark with which the template ends a model's turn its eos; return a note where that is another token.

    Gemma's `<end_of_turn>`, Phi's `<|end|>` and the first Llama 3's `<|eot_id|>` end every served turn, but their
    tokenizers name the end of a text: a model that was taught that would go on in the user's name.
    """
    prompts, own = PromptFormat(tokenizer=tokenizer), str(tokenizer.eos_token)
    if prompts.turn_end in (None, tokenizer.eos_token_id):
        return ""
    served = prompts.prompt_ids("1")
    tokenizer.eos_token = str(tokenizer.convert_ids_to_tokens(prompts.turn_end))
    if prompts.prompt_ids("1") != served:  # the template writes eos where a text ends, too
        tokenizer.eos_token = own
        return ""
    return f"eos: {tokenizer.eos_token}, with which the chat template ends a turn; the tokenizer's own is {own}"


def _embedding_size(source: ModelSource) -> int | None:
    """Return how many tokens the model has an embedding of; None where a folder holds a tokenizer alone."""
    if source.folder and not (source.folder / "config.json").is_file():
        return None
    config = source.read_config()
    size = config.get("vocab_size", config.get("text_config", {}).get("vocab_size"))
    return None if size is None else int(size)
