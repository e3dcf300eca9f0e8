"""Hooks of mkdocs: README, CONTRIBUTING and CHANGELOG are pages of the site, too, and links between pages hold there.

A link from a page to a file that is no page (a source, a folder) stays as its text, where the file is there; where it
is not, the build fails, as on every dead link (`strict` in mkdocs.yml).
"""

import logging
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""{file of the root: its page}."""
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")
_log = logging.getLogger("mkdocs.hooks.site")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the root."""
    for name, page in PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        # As if it lay in docs/: pictures are looked for there.
        text = re.sub(r"\]\(docs/", "](", text)
        files.append(File.generated(config, page, content=_turn_links(text, name)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn a page's links out of docs/ into links of the site."""
    return _turn_links(markdown, page.file.src_path)


def _turn_links(text: str, page: str) -> str:
    def turn(link: re.Match[str]) -> str:
        words, target, anchor = link[1], link[2].removeprefix("../"), link[3] or ""
        if target in PAGES:
            return f"[{words}]({PAGES[target]}{anchor})"
        if target in PAGES.values() or (ROOT / "docs" / target).is_file():
            return f"[{words}]({target}{anchor})"
        if not (ROOT / target).exists():
            _log.warning("%s links to %s, which is not there", page, link[2])
        return words

    return LINK.sub(turn, text)
