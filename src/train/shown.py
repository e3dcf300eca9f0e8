"""What a step shows while it works and when it is done, and what it leaves where its input was bad."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from mathlete.command import progress
from mathlete.errors import UserError
from mathlete.folders import STARTED
from mathlete.rows import RowFiles
from mathlete.runs import Advance


@contextmanager
def bar(title: str) -> Iterator[Advance]:
    """Show a progress bar for one step."""
    with progress(title) as shown:
        task = shown.add_task("", total=None)

        def advance(done: int, total: int | None, words: str) -> None:
            shown.update(task, completed=min(done, total or done), total=total, description=words)

        yield advance


@contextmanager
def delete_if_bad_input(files: RowFiles) -> Iterator[None]:
    """Delete what was made of input that proves bad midway; delete the folder and those above that are empty then.

    What an earlier command left there stays: it was good, and another one may go on with it.
    """
    resumed = any(path.exists() for path in files.list_made())
    try:
        yield
    except UserError:
        if not resumed:
            for path in (files.folder / STARTED, *files.list_made()):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            with suppress(OSError):  # not empty, or a link
                for empty in (files.folder, *files.folder.parents[:2]):
                    empty.rmdir()
        raise
