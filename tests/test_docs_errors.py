"""docs/troubleshooting.md quotes what the code says."""

import re
from pathlib import Path


def test_every_quoted_error_is_one_of_the_code(root: Path) -> None:
    files = [*(root / "src").rglob("*.py"), *(root / "eval").rglob("*.py")]
    code = "\n".join(file.read_text(encoding="utf-8") for file in files)
    quoted = re.findall(r"^\*\*(.+)\*\* *$", (root / "docs" / "troubleshooting.md").read_text(encoding="utf-8"), re.M)
    assert len(quoted) >= 20
    assert [rule for rule in quoted if rule not in code] == []
