"""The folder the embedded engine is tested on."""

from __future__ import annotations

from pathlib import Path

import pytest

from wrongturn.engines.embedded import packaged


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packaged reasoner; only where there is none, a small random one (which needs the lab's libraries)."""
    if (packaged() / "graph.onnx").exists():
        return packaged()
    pytest.importorskip("torch")
    from wrongturn.lab.export import write
    from wrongturn.lab.model import ModelConfig, Reasoner

    config = ModelConfig(layers=2, heads=2, width=32, ffn=48)
    state = {name: tensor.numpy() for name, tensor in Reasoner(config).state_dict().items()}
    return write(config, state, tmp_path_factory.mktemp("random"))
