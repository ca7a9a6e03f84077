"""Keeps stdout for events: whatever a library prints goes to stderr."""

from __future__ import annotations

import logging
import os
import sys
from typing import TextIO


def claim_stdout() -> TextIO:
    """A stream to the process's stdout; descriptor 1 and ``sys.stdout`` point to stderr from now on."""
    sys.stdout.flush()
    own = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return own


def configure_logging(verbose: bool) -> None:
    """Logs on stderr, one line each; third parties' progress bars off."""
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.INFO if verbose else logging.WARNING,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    # Imported late: transformers takes a second, and a wrong command line should be answered at once.
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
