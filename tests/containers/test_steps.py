"""What a Dockerfile says is done in an empty folder, and what comes of it answers."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.containers.dockerfile import IMAGES
from tests.containers.tree import Tree
from tests.journeys.gateway import KEY, MODEL, QUESTION
from tests.rigs.program import Program

LAST = {"docker/Dockerfile": "demo", "docker/Dockerfile.vllm": "gateway"}


def answers(tree: Tree, folder: Path) -> str:
    """Start what the image starts, ask the demo model as a client with a key does, and hold the health check."""
    argv, environment = tree.started({"API_KEY": KEY, "API_PORT": "0", "API_HOST": "127.0.0.1"})
    with Program(argv, environment, folder / "log") as gateway:
        url = gateway.line(r"listens on (http://\S+)")[1]
        assert tree.asked({"API_PORT": url.rpartition(":")[2]}).returncode == 0
        assert httpx.get(f"{url}/v1/models").status_code == 401
        gateway.line("demo: ready in")
        body = {"model": MODEL, "messages": QUESTION, "temperature": 0}
        key = {"Authorization": f"Bearer {KEY}"}
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, headers=key, timeout=60).json()
    assert tree.asked({"API_PORT": url.rpartition(":")[2]}).returncode == 1
    return str(answer["choices"][0]["message"]["content"])


@pytest.mark.parametrize("name", IMAGES)
def test_its_steps_in_an_empty_tree_make_a_gateway_that_answers(name: str, tmp_path: Path) -> None:
    """With the packages of the suite instead of those that lock files name."""
    tree = Tree(tmp_path / "root", borrows=True)

    tree.follow(name, LAST[name])

    assert "12" in answers(tree, tmp_path)
    assert any("libgomp1 tini" in step for step in tree.left_out)
    assert [step for step in tree.left_out if "pip" in step] == []


@pytest.mark.full
def test_its_steps_as_they_are_make_a_gateway_that_answers(tmp_path: Path) -> None:
    """With what lock files name, installed from the package index by hash."""
    tree = Tree(tmp_path / "root", borrows=False)

    tree.follow("docker/Dockerfile", "demo")

    assert "12" in answers(tree, tmp_path)
    assert list((tmp_path / "root/opt").rglob("borrowed.pth")) == []
