"""Pictures need their extra, and spectra are eigenvalues."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from yaqa_runner.cli.plots import effective_spectrum, require_matplotlib
from yaqa_runner.protocol.failures import InvalidSpec


def test_a_spectrum_is_the_shares_of_the_eigenvalues() -> None:
    turn = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(0))).Q
    factor = turn @ torch.diag(torch.tensor([1.0, 4.0, 2.0, 0.0, 3.0])) @ turn.T
    assert torch.allclose(
        effective_spectrum(factor), torch.tensor([0.4, 0.3, 0.2, 0.1, 0.0], dtype=torch.float64), atol=1e-6
    )
    assert not bool(effective_spectrum(torch.zeros(3, 3)).any())


def test_without_matplotlib_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    require_matplotlib()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InvalidSpec) as caught:
        require_matplotlib()
    assert "yaqa-runner[plots]" in caught.value.remedy
