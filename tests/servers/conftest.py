"""A vLLM server on loopback that serves the packaged reasoner. Where it cannot be had, tests fail: none is skipped."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from wrongturn.engines.embedded import packaged
from wrongturn.tasks.graph_text import VOCAB

PATIENCE = 600  # seconds; a boot takes about 60 on two idle cores

# --max-logprobs is the whole vocabulary and no more: asked for alternatives that do not exist, vLLM's engine dies.
# Blocks of 32 tokens are the smallest its attention on a CPU takes. The checkpoint knows no chat, so one is made up:
# the last message is the prompt.
OPTIONS = {
    "--served-model-name": "graph_search",
    "--dtype": "float32",
    "--max-logprobs": str(len(VOCAB)),
    "--block-size": "32",
    "--max-num-seqs": "64",
    "--chat-template": "{{ bos_token }}{{ messages[-1].content }}",
}
SWITCHES = ("--enforce-eager", "--enable-prompt-tokens-details")
QUIET = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}  # the first is in GiB


@pytest.fixture(scope="session")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of a server that is up: one of our own, or the one that ``WRONGTURN_VLLM_URL`` names."""
    if address := os.environ.get("WRONGTURN_VLLM_URL"):
        yield address
        return
    python = os.environ.get("WRONGTURN_VLLM_PYTHON", ".venv-vllm/bin/python")
    if not Path(python).exists():
        pytest.fail(f"{python}: no vLLM there; `make test-servers` installs it")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--port", port]
    command += ["--model", str(packaged()), *SWITCHES, *(part for option in OPTIONS.items() for part in option)]
    log = tmp_path_factory.mktemp("vllm") / "log"
    begun = time.monotonic()
    with log.open("wb") as file:
        server = subprocess.Popen(command, stdout=file, stderr=file, env=os.environ | QUIET, start_new_session=True)
    try:
        while not answers(port):
            if server.poll() is not None or time.monotonic() - begun > PATIENCE:
                pytest.fail(f"vLLM did not come up:\n{log.read_text(errors='replace')[-4000:]}")
            time.sleep(1)
        print(f"vLLM was up after {time.monotonic() - begun:.0f} s")
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        with suppress(subprocess.TimeoutExpired):
            server.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)  # whatever of its processes is left


def answers(port: str) -> bool:
    """Whether the server is healthy, and warm: its very first completion takes long."""
    try:
        httpx.get(f"http://127.0.0.1:{port}/health").raise_for_status()
        body = {"prompt": [1, 5], "max_tokens": 4, "logprobs": 1}
        httpx.post(f"http://127.0.0.1:{port}/v1/completions", json=body, timeout=PATIENCE).raise_for_status()
    except httpx.HTTPError:
        return False
    return True
