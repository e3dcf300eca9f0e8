"""Pages: a template with our scripts and styles inside, which loads nothing and runs nothing but them."""

import hashlib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from mathlete.text import strict_json

if TYPE_CHECKING:
    from jinja2 import Template

_LIBRARIES = ("chart-4.6.1.umd.min.js", "katex-0.19.1.min.js")
_STYLES = ("katex-0.19.1.min.css",)


def render(
    template: str,
    *,
    title: str,
    scripts: Sequence[str],
    content: Mapping[str, object],
    live: bool = False,
    **values: object,
) -> str:
    """Return a page's text. Nothing of a run is read as markup: Jinja escapes the tables, the scripts only set text.

    Should markup slip through all the same, the page's content security policy runs only the scripts whose hashes it
    names and loads nothing from anywhere.

    Args:
        template: the template's file.
        title: the page's name.
        scripts: our own scripts that it needs, by file.
        content: what they read, as JSON.
        live: whether the page may ask the server that it came from.
        values: the template's own names.
    """
    from markupsafe import Markup

    # Scripts and styles are the project's own files, which no run reaches: only they, and JSON that cannot end its
    # element, are marked as markup.
    texts = [*(_asset("assets", name) for name in _LIBRARIES), _join_scripts(scripts)]
    styles = [*(_asset("assets", name) for name in _STYLES), _asset("html", "report.css")]
    return _template(template).render(
        title=title,
        policy=Markup(policy(texts, live=live)),
        scripts=[Markup(text) for text in texts],
        styles=[Markup(style) for style in styles],
        data=Markup(island(content)),
        **values,
    )


@cache
def _template(name: str) -> "Template":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # StrictUndefined: a name that the template has and the code has not is an error, not an empty cell.
    environment = Environment(
        loader=PackageLoader("mathlete.report.html", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def _asset(folder: str, name: str) -> str:
    text = files("mathlete.report").joinpath(folder, name).read_text(encoding="utf-8")
    return text if text.endswith("\n") else text + "\n"


def _join_scripts(names: Sequence[str]) -> str:
    """Return our own scripts as one, none of whose names are the page's."""
    return '"use strict";\n(() => {\n' + "".join(_asset("html", name) for name in names) + "})();\n"


def policy(scripts: Sequence[str], *, live: bool) -> str:
    """Return the content security policy of a page with these scripts."""
    hashes = (b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    asked = "; connect-src 'self'" if live else ""
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; font-src data:; img-src data:{asked}"


def island(value: object) -> str:
    """Return JSON that cannot end the element it stands in."""
    return strict_json(value).replace("<", "\\u003c")
