"""Where a start of a run came from: its command, code, packages, seed and machine.

Nothing is read from the environment but its names of devices and ranks: no secret can end up here.
"""

import platform
import subprocess
import sys
from datetime import datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from ddpm_lightning.run.config.check import Node
from ddpm_lightning.run.config.paste import command

ROOT = Path(__file__).parents[3]
_PLAIN = ("--no-color", "--no-ext-diff")


def provenance(words: list[str], config: Node, is_changed: bool) -> dict[str, Any]:
    """Return plain values; `git` is None where the code does not lie in a git checkout.

    Args:
        is_changed: whether the checkout holds more than its revision.
    """
    revision = _git("rev-parse", "HEAD")
    metadata = [each.metadata for each in distributions()]  # .name and .version parse it twice
    return {
        "time": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": command("train.py", *words),
        "seed": config["seed"],
        "data_seed": config["data"].get("seed"),
        "git": revision and {"revision": revision.strip(), "changed": is_changed},
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "packages": dict(sorted((d["Name"], d["Version"]) for d in metadata)),
    }


def diff() -> str:
    """Return what the checkout holds beyond its revision, as a patch: changed files, and new ones
    of code and configuration.
    """
    changed = _git("diff", "HEAD", *_PLAIN) or ""
    new = _git("ls-files", "--others", "--exclude-standard", "-z", "conf", "*.py") or ""
    names = [name for name in new.split("\0") if name]
    patches = (_git("diff", "--no-index", *_PLAIN, "/dev/null", n, differs=True) for n in names)
    return changed + "".join(patch or "" for patch in patches)


def _git(*words: str, differs: bool = False) -> str | None:
    """Return what git prints; with differs, exit code 1 reports a difference."""
    try:
        result = subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, timeout=10, check=not differs
        )
    except (OSError, subprocess.SubprocessError):  # no git, no checkout
        return None
    return result.stdout.decode(errors="replace")
