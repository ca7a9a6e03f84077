"""Renders a repo's chat template in a process with limits: a template may loop for ever, or take all memory.

``python -m yaqa_runner.evaluate.chat_process``: one JSON object on stdin, the text as one JSON string on stdout.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

LIMIT_CPU_SECONDS = 10
LIMIT_BYTES = 512 * 2**20
#: Importing takes its time where much else goes on.
LIMIT_SECONDS = 120


def render_apart(
    template: str, messages: list[dict[str, str]], special_tokens: dict[str, Any], maximum_characters: int
) -> str | None:
    """The conversation as ``template`` renders it; ``None``: it does not, or not within the limits.

    Args:
        template: Jinja, as the repo has it.
        messages: ``role`` and ``content`` of each.
        special_tokens: What templates find under the names of special tokens.
        maximum_characters: Longer texts are none.
    """
    asked = {"template": template, "messages": messages, "special": special_tokens, "maximum": maximum_characters}
    try:
        done = subprocess.run(
            [sys.executable, "-m", __name__],
            input=json.dumps(asked, default=str),
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=LIMIT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        logger.info("the chat template does not come to an end")
        return None
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or [f"its process ended with {done.returncode}"]
        logger.info("the chat template does not render: %s", last[0][:300])
        return None
    text = json.loads(done.stdout)
    return text if isinstance(text, str) else None


def _limit() -> None:
    """Limits on what this process takes from now on, where the system has such."""
    try:
        import resource
    except ImportError:
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + 1 + LIMIT_CPU_SECONDS
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        held = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    except OSError:
        return
    resource.setrlimit(resource.RLIMIT_AS, (held + LIMIT_BYTES, held + LIMIT_BYTES))


def main() -> int:
    """Render what stdin asks for."""
    from transformers.utils.chat_template_utils import render_jinja_template

    asked = json.load(sys.stdin)
    _limit()
    rendered, _ = render_jinja_template(
        conversations=[asked["messages"]],
        chat_template=asked["template"],
        add_generation_prompt=True,
        **asked["special"],
    )
    text = rendered[0]
    sys.stdout.write(json.dumps(text if 0 < len(text) <= asked["maximum"] else None))
    return 0


if __name__ == "__main__":
    sys.exit(main())
