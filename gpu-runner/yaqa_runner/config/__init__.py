"""The lists that the control plane reads too. ``npm run schemas`` copies them here from the repo's ``config/``."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any


def read_list(name: str) -> dict[str, Any]:
    """The JSON object of ``name``, for example ``source-files.json``."""
    document: dict[str, Any] = json.loads(files(__name__).joinpath(name).read_text(encoding="utf-8"))
    return document
