"""For all tests: no deadline on single Hypothesis examples, which on a busy machine measures the machine."""

from __future__ import annotations

import pytest
from hypothesis import settings

settings.register_profile("wrongturn", deadline=None)
settings.load_profile("wrongturn")


@pytest.fixture
def one_thread():
    """torch on one thread, so that sums are added up in the same order."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
