"""Links of the pages lead to files and to headings; what forks, the site and people who cite read is as the code is."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

PAGES = [*(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")), *sorted(ROOT.glob("docs/*.md"))]
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives a page's headings: letters and digits in lower case, hyphens for blanks."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    titles = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target, anchor in LINK.findall(text):
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(file), f"{page.name}: {target}#{anchor}"


def test_the_sites_navigation_has_every_page() -> None:
    named = re.findall(r"[\w-]+\.md", (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:")[1])
    pages = {page.name for page in (ROOT / "docs").glob("*.md")}
    assert {*named} == pages | {"index.md", "contributing.md", "changelog.md"}
    assert len(named) == len({*named})


def test_the_citation_is_of_this_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    for name in ("version", "license", "keywords"):
        assert citation[name] == project[name]
    assert citation["title"] == project["name"]


def test_forks_run_what_ci_runs_and_an_issue_asks_for_the_doctor() -> None:
    github = ROOT / ".github"
    (job,) = yaml.safe_load((github / "workflows" / "ci.yml").read_text(encoding="utf-8"))["jobs"].values()
    assert ".ci/run" in [step.get("run") for step in job["steps"]]
    form = yaml.safe_load((github / "ISSUE_TEMPLATE" / "bug.yml").read_text(encoding="utf-8"))
    fields = {field["id"]: field for field in form["body"]}
    assert "`mathlete doctor`" in fields["doctor"]["attributes"]["label"]
    assert fields["doctor"]["validations"]["required"]
