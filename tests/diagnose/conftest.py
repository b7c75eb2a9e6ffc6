import pytest
from synthetic import Planted

from wrongturn.tasks import registry


@pytest.fixture(autouse=True)
def planted_task(monkeypatch):
    """The toy task is known by name while these tests run."""
    monkeypatch.setitem(registry._TASKS, "planted", Planted())
