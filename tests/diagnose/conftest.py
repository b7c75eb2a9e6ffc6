import pytest
from synthetic import Planted

from wrongturn import tasks


@pytest.fixture(autouse=True)
def planted_task(monkeypatch):
    """The toy task is known by name while these tests run."""
    monkeypatch.setitem(tasks._TASKS, "planted", Planted())
