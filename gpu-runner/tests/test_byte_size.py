"""Sizes as people write them: one spelling each, nothing lost."""

from __future__ import annotations

import random

import pytest

from yaqa_runner.protocol.byte_size import MOST_BYTES, byte_size_text, parse_byte_size, rounded_up_byte_size


@pytest.mark.parametrize(
    ("written", "size", "text"),
    [
        ("4.5GB", 4_500_000_000, "4.5GB"),
        ("4500mb", 4_500_000_000, "4.5GB"),
        ("4.5GiB", 4_831_838_208, "4.5GiB"),
        ("0.5gb", 500_000_000, "500MB"),
        ("1KiB", 1024, "1.024kB"),
        ("1536MiB", 1_610_612_736, "1.5GiB"),
        ("999", 999, "999"),
        ("100TB", MOST_BYTES, "100TB"),
        ("10kb", 10_000, "10kB"),
    ],
)
def test_a_size_has_one_spelling(written: str, size: int, text: str) -> None:
    assert parse_byte_size(written) == size
    assert byte_size_text(size) == text


@pytest.mark.parametrize("written", ["", "GB", "4,5GB", "4.5", "4.5G", "-1GB", "1.2345GB", "1e9", "0", "0.0kB", "4 GB"])
def test_what_is_no_size_is_none(written: str) -> None:
    assert parse_byte_size(written) is None


def test_no_size_is_lost_in_its_spelling_or_rounded_down() -> None:
    numbers = random.Random(0)
    for _ in range(20_000):
        size = min(MOST_BYTES, numbers.randint(1, 10**6) * numbers.choice([1, 7, 1024, 10**3, 2**20, 10**6, 10**8]))
        assert parse_byte_size(byte_size_text(size)) == size
        rounded = parse_byte_size(rounded_up_byte_size(size))
        assert rounded is not None and size <= rounded <= size + max(1, size // 500)
