"""The notebook that downloads vLLM's wheels on Kaggle: with internet, run once, its output mounted by the submission.

So nothing of vLLM's gigabyte leaves the user's line. Each wheel is asked for by the hash in its lock, and the lock lies
beside the wheels, where the submission's notebook compares it with its own.
"""

from pathlib import Path

from mathlete.kaggle_image import PYTHON, VLLM_LOCK
from mathlete.runs import write_atomically, write_json
from mathlete.submission.metadata import DOWNLOADS, DOWNLOADS_FOLDER, KERNEL_FILE, Names, downloads_metadata
from mathlete.submission.notebook import write_cells

_TITLE = """\
# {title}

Downloads the wheels of vLLM for the submission's notebook, which mounts the output of this one. Built by
`python -m submit build --engine vllm` of mathlete. Do not edit: build it again."""
_DOWNLOAD = """\
import subprocess
import sys
from pathlib import Path

assert sys.version_info[:2] == ({version}), f"built for Python {python}, this image has {{sys.version}}"
lock = Path("{lock}")
lock.write_text(\"\"\"\\
{text}\"\"\")
pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
subprocess.check_call([*pip, "--quiet", "--disable-pip-version-check", "--dest", ".", "--requirement", str(lock)])
"""
_LIST = """\
wheels = sorted(Path().glob("*.whl"))
print(len(wheels), "wheels,", round(sum(wheel.stat().st_size for wheel in wheels) / 2**20), "MiB")
wanted = sum("sha256:" in line for line in lock.read_text().splitlines())
assert len(wheels) == wanted, f"{{wanted}} wheels are in the lock, {{len(wheels)}} came"
""".replace("{{", "{").replace("}}", "}")


def write_downloads(kaggle: Path, names: Names, *, lock: str, image: str) -> Path:
    """Write the notebook and its metadata into a folder beside the submission's; return that folder."""
    folder = kaggle / DOWNLOADS_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    version = PYTHON.replace(".", ", ")
    cells = [
        ("markdown", "", _TITLE.format(title=names.vllm.replace("-", " "))),
        ("code", "download", _DOWNLOAD.format(version=version, python=PYTHON, lock=VLLM_LOCK, text=lock)),
        ("code", "list", _LIST),
    ]
    write_atomically(folder / DOWNLOADS, write_cells(cells))
    write_json(folder / KERNEL_FILE, downloads_metadata(names, image=image))
    return folder
