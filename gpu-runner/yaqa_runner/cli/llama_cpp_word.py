"""llama.cpp's word on finished GGUF folders, where this machine can give it: the control plane's own verification.

The runner has no llama.cpp of its own. In a checkout with ``npm run setup`` done, ``yaqa-bot verify`` judges a folder;
anywhere else nobody does, and the summary says so.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[3]
LIMIT_SECONDS = 30 * 60


def llama_cpp_command() -> list[str] | None:
    """The command that verifies a folder, or ``None`` where the control plane or its llama.cpp is not at hand."""
    program = CHECKOUT / "bin" / "yaqa-bot.mjs"
    bundled = CHECKOUT / "node_modules" / "node" / "bin" / "node"
    node = str(bundled) if bundled.is_file() else shutil.which("node")
    package = CHECKOUT / "node_modules" / "node-llama-cpp" / "package.json"
    if node is None or not program.is_file() or not package.is_file():
        return None
    return [node, str(program), "verify"]


def llama_cpp_word(folder: Path, verification: Path) -> str:
    """One line on the GGUF variant in ``folder``: what llama.cpp measured, why it fails, or why it was not asked."""
    command = llama_cpp_command()
    if command is None:
        return (
            "not judged by llama.cpp: it is not on this machine. "
            "`yaqa-bot verify FOLDER` judges it in a checkout after `npm run setup`."
        )
    try:
        finished = subprocess.run(
            [*command, str(folder), "--verification", str(verification), "--json"],
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_SECONDS,
        )
        answer: dict[str, Any] = json.loads(finished.stdout.strip().splitlines()[-1])
        checks = [str(check) for variant in answer["variants"] for check in variant["checks"]]
    except (OSError, ValueError, KeyError, IndexError, TypeError, subprocess.TimeoutExpired) as error:
        return f"not judged by llama.cpp: {type(error).__name__}"
    failed = [check for check in checks if check.startswith("failed: ")]
    told = failed or [check for check in checks if check.startswith("llama.cpp")]
    return told[-1] if told else "not judged by llama.cpp: it said nothing"
