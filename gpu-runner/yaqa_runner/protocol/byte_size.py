"""Sizes in bytes as people write them: ``4.5GB`` (decimal), ``4.2GiB`` (binary). As ``src/protocol/byte-size.ts``."""

from __future__ import annotations

import re

_DECIMAL = (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3))
_BINARY = (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))
_UNITS = {name.lower(): size for name, size in (*_DECIMAL, *_BINARY)}
_WRITTEN = re.compile(r"([0-9]{1,6})(?:\.([0-9]{1,3}))?([kmgt]i?b)|([0-9]{1,15})")
MOST_BYTES = 10**14


def parse_byte_size(text: str) -> int | None:
    """Whole bytes of ``4.5gb``, ``512mib`` or a bare number, in any case; ``None`` for all else, 0 and above 100 TB.

    kB, MB, GB and TB are powers of 1000; KiB, MiB, GiB and TiB of 1024.
    """
    found = _WRITTEN.fullmatch(text.lower())
    if found is None:
        return None
    whole, part, unit, plain = found.groups()
    if plain is not None:
        size = int(plain)
    else:
        thousandths = int(whole) * 1000 + int((part or "0").ljust(3, "0"))
        size = thousandths * _UNITS[unit] // 1000
    return size if 0 < size <= MOST_BYTES else None


def byte_size_text(size: int) -> str:
    """The one spelling of ``size``: in its largest decimal unit, else its largest binary one, else bare.

    A unit serves where three decimals are exact. ``parse_byte_size`` gives ``size`` back.
    """
    for units in (_DECIMAL, _BINARY):
        largest = next(((name, unit) for name, unit in units if unit <= size), None)
        if largest is not None and size * 1000 % largest[1] == 0:
            return _spelled(size * 1000 // largest[1], largest[0])
    return str(size)


def rounded_up_byte_size(size: int) -> str:
    """A size of at least ``size`` bytes that is written with three decimals of a decimal unit."""
    name, unit = next(((name, unit) for name, unit in _DECIMAL if unit <= size), _DECIMAL[-1])
    return _spelled(-(-size * 1000 // unit), name)


def _spelled(thousandths: int, unit: str) -> str:
    whole, part = divmod(thousandths, 1000)
    return f"{whole}.{part:03d}".rstrip("0").rstrip(".") + unit
