"""The fake daemon's routes: what each reads, and what it returns."""

from __future__ import annotations

import json

from tests.fakes.ollama import PLAIN, FakeOllama, Handler, Reply
from tests.fakes.ollama_chat import chat, generate
from tests.fakes.ollama_go import dumps, mismatch
from tests.fakes.ollama_models import Refused
from tests.fakes.ollama_v1 import v1_chat, v1_completions, v1_embeddings
from tests.rigs.transcripts import Json

NO_EMBEDDINGS = "This server does not support embeddings. Start it with `--embeddings`"


def read(reply: Reply) -> Json:
    """The body, decoded; Go's error when it is not JSON."""
    if not reply.body.strip():
        raise Refused(400, "EOF" if reply.is_v1 else "missing request body")
    try:
        body = json.loads(reply.body)
    except ValueError as exc:
        raise Refused(400, "unexpected EOF") from exc
    if not isinstance(body, dict):
        raise Refused(400, mismatch(body, "Request", "map"))
    return body


async def root(daemon: FakeOllama, reply: Reply, path: str) -> None:
    await reply.send(200, b"Ollama is running", PLAIN)


async def version(daemon: FakeOllama, reply: Reply, path: str) -> None:
    await reply.send_json({"version": daemon.version})


async def status(daemon: FakeOllama, reply: Reply, path: str) -> None:
    await reply.send_json({"cloud": {"disabled": True, "source": "env"}})


async def tags(daemon: FakeOllama, reply: Reply, path: str) -> None:
    await reply.send_json(daemon.store.tags())


async def ps(daemon: FakeOllama, reply: Reply, path: str) -> None:
    await reply.send_json(daemon.store.ps())


async def show(daemon: FakeOllama, reply: Reply, path: str) -> None:
    await reply.send_json(daemon.store.show(str(read(reply).get("model"))))


async def v1_models(daemon: FakeOllama, reply: Reply, path: str) -> None:
    await reply.send_json(daemon.store.listed())


async def v1_model(daemon: FakeOllama, reply: Reply, path: str) -> None:
    await reply.send_json(daemon.store.listed(path.removeprefix("/v1/models/")))


async def native_chat(daemon: FakeOllama, reply: Reply, path: str) -> None:
    await chat(daemon, reply, read(reply))


async def native_generate(daemon: FakeOllama, reply: Reply, path: str) -> None:
    await generate(daemon, reply, read(reply))


async def openai_chat(daemon: FakeOllama, reply: Reply, path: str) -> None:
    await v1_chat(daemon, reply, read(reply))


async def openai_completions(daemon: FakeOllama, reply: Reply, path: str) -> None:
    await v1_completions(daemon, reply, read(reply))


async def openai_embeddings(daemon: FakeOllama, reply: Reply, path: str) -> None:
    await v1_embeddings(daemon, reply, read(reply), NO_EMBEDDINGS)


async def embed(daemon: FakeOllama, reply: Reply, path: str) -> None:
    asked = read(reply)
    model = daemon.store.find(str(asked.get("model")))
    daemon.restart(model)
    if "embedding" not in model.capabilities:
        raise Refused(501, NO_EMBEDDINGS)
    given = asked.get("input")
    texts = [given] if isinstance(given, str) else list(given or ())
    num_ctx = (asked.get("options") or {}).get("num_ctx", daemon.num_ctx)
    if any(2 * len(text.split()) > num_ctx for text in texts) and asked.get("truncate") is False:
        raise Refused(400, "the input length exceeds the context length")
    vectors = [[float(len(text)), 0.25, -0.5][: asked.get("dimensions") or 3] for text in texts]
    counts = {"load_duration": 700000, "prompt_eval_count": sum(len(text.split()) for text in texts)}
    await reply.send_json({"model": asked["model"], "embeddings": vectors, "total_duration": 900000, **counts})


async def embeddings(daemon: FakeOllama, reply: Reply, path: str) -> None:
    asked = read(reply)
    model = daemon.store.find(str(asked.get("model")))
    daemon.restart(model)
    if "embedding" not in model.capabilities:
        raise Refused(500, NO_EMBEDDINGS)
    await reply.send_json({"embedding": [float(len(asked["prompt"])), 0.25, -0.5]})


async def blob_head(daemon: FakeOllama, reply: Reply, path: str) -> None:
    try:
        is_there = daemon.store.has_blob(path.rpartition("/")[2])
    except Refused:
        await reply.send(400, b"", "application/json; charset=utf-8")
        return
    await reply.send(200 if is_there else 404, b"", "" if is_there else "application/json; charset=utf-8")


async def blob_post(daemon: FakeOllama, reply: Reply, path: str) -> None:
    daemon.store.take_blob(path.rpartition("/")[2], reply.body)
    await reply.send(201, b"", "")


async def create(daemon: FakeOllama, reply: Reply, path: str) -> None:
    asked = read(reply)
    await _progress(reply, asked, list(daemon.store.create(asked)))


async def pull(daemon: FakeOllama, reply: Reply, path: str) -> None:
    asked = read(reply)
    await _progress(reply, asked, list(daemon.store.pull(str(asked.get("model") or asked.get("name")))))


async def _progress(reply: Reply, asked: Json, lines: list[Json]) -> None:
    if asked.get("stream") is False:
        last = lines[-1]
        await reply.send(500 if "error" in last else 200, dumps(last), "application/json")
        return
    await reply.start("application/x-ndjson")
    await reply.stream([dumps(line) + b"\n" for line in lines])
    await reply.end()


async def copy(daemon: FakeOllama, reply: Reply, path: str) -> None:
    asked = read(reply)
    daemon.store.copy(asked["source"], asked["destination"])
    await reply.send(200, b"", "")


async def delete(daemon: FakeOllama, reply: Reply, path: str) -> None:
    daemon.store.delete(str(read(reply).get("model")))
    await reply.send(200, b"", "")


ROUTES: dict[tuple[str, str], Handler] = {
    ("GET", "/"): root,
    ("HEAD", "/"): root,
    ("GET", "/api/version"): version,
    ("HEAD", "/api/version"): version,
    ("GET", "/api/status"): status,
    ("GET", "/api/tags"): tags,
    ("HEAD", "/api/tags"): tags,
    ("GET", "/api/ps"): ps,
    ("POST", "/api/show"): show,
    ("POST", "/api/chat"): native_chat,
    ("POST", "/api/generate"): native_generate,
    ("POST", "/api/embed"): embed,
    ("POST", "/api/embeddings"): embeddings,
    ("HEAD", "/api/blobs/*"): blob_head,
    ("POST", "/api/blobs/*"): blob_post,
    ("POST", "/api/create"): create,
    ("POST", "/api/pull"): pull,
    ("POST", "/api/copy"): copy,
    ("DELETE", "/api/delete"): delete,
    ("POST", "/v1/chat/completions"): openai_chat,
    ("POST", "/v1/completions"): openai_completions,
    ("POST", "/v1/embeddings"): openai_embeddings,
    ("GET", "/v1/models"): v1_models,
    ("GET", "/v1/models/*"): v1_model,
}


def allowed(path: str) -> str:
    """The methods of a path; empty where there is none."""
    return ", ".join(method for method, pattern in ROUTES if pattern == path)
