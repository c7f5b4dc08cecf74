"""Ranks, scores, tokens and transcriptions through a real relay, and what of vLLM never passes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from app.dialects.parameters.table import SPECIFIED, fates
from app.keys import digest
from app.table import Key, Limits, PublicModel, Target
from backends.endpoint import Dialect
from backends.engine_profile import Act
from backends.kinds import PROFILES
from tests.fakes import tasks as fakes_tasks
from tests.fakes.engine import FakeEngine
from tests.rigs.raw_client import Reply
from tests.rigs.relay import Rig, backend, models, running
from tests.rigs.specifications import PARAMETERS, VALUES

# Every route of vLLM 0.32, by `grep` over its routers, but those that are ours, too.
VLLM = """
/abort_requests /classify /cohere/v2/chat /cohere/v2/chat/render /collective_rpc /fault_tolerance/apply
/fault_tolerance/status /finish_weight_update /generative_scoring /get_world_size /inference/v1/abort_requests
/inference/v1/generate /init_weight_transfer_engine /invocations /is_paused /is_scaling_elastic_ep /is_sleeping
/kv_event_sources /load /pause /ping /pooling /ready /release_kv_cache_memory /rerank /reset_encoder_cache
/reset_mm_cache /reset_prefix_cache /resume /scale_elastic_ep /score /server_info /shutdown_weight_transfer_engine
/sleep /start_draft_weight_update /start_profile /start_weight_update /static/swagger-ui.css /stop_profile
/update_weight_version /update_weights /v1/audio/translations /v1/chat/completions/batch
/v1/chat/completions/derender /v1/completions/derender /v1/completions/render
/v1/load_lora_adapter /v1/messages/render /v1/realtime /v1/responses/render /v1/responses/resp_1
/v1/responses/resp_1/cancel /v1/systemone /v1/unload_lora_adapter /v2/embed /v2/rerank /wake_up /weight_checker
/weight_info
"""
RANKING = {"model": "public", "query": "q", "documents": ["a", "bbb", "cc"]}
SCORING = {"model": "public", "text_1": "q", "text_2": ["a", "bbb"]}
TOKENS = {"model": "public", "prompt": "one two three"}
DETOKENS = {"model": "public", "tokens": [3, 4]}
EACH = [
    ("/v1/rerank", RANKING),
    ("/v1/score", SCORING),
    ("/v1/tokenize", TOKENS),
    ("/v1/detokenize", DETOKENS),
]
AUDIO = bytes(range(256)) * 8 + b"\r\n--B\r\n--BOUNDAR\r\n\r\n"


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    async with FakeEngine() as fake:
        yield fake


@pytest_asyncio.fixture
async def rig(engine: FakeEngine) -> AsyncIterator[Rig]:
    async with running({"engine": backend(engine.url)}, models("public", engine_name="fake")) as gateway:
        yield gateway


def form(
    *fields: tuple[str, str], file: bytes | None = AUDIO, disposition: str = 'name="file"; filename="a.wav"'
) -> tuple[bytes, dict[str, str]]:
    parts = [f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode() for name, value in fields]
    if file is not None:
        parts.append(
            f"Content-Disposition: form-data; {disposition}\r\nContent-Type: audio/wav\r\n\r\n".encode() + file
        )
    body = b"".join(b"--BOUNDARY\r\n" + part + b"\r\n" for part in parts) + b"--BOUNDARY--\r\n"
    return body, {"content-type": "multipart/form-data; boundary=BOUNDARY"}


async def transcribe(rig: Rig, *fields: tuple[str, str], **more: Any) -> Reply:
    body, headers = form(*fields, **more)
    return await rig.ask("/v1/audio/transcriptions", body, headers=headers)


# -- what passes


async def test_texts_are_ranked_under_the_clients_name_for_the_model(rig: Rig, engine: FakeEngine) -> None:
    reply = await rig.ask("/v1/rerank", {**RANKING, "top_n": 2})

    assert reply.status == 200
    assert [row["index"] for row in reply.json["results"]] == [1, 2]
    assert reply.json["results"][0]["document"] == {"text": "bbb"}
    assert reply.json["model"] == "public"
    assert engine.posts[0].path == "/v1/rerank"
    assert json.loads(engine.posts[0].body)["model"] == "fake"


async def test_texts_are_scored(rig: Rig, engine: FakeEngine) -> None:
    reply = await rig.ask("/v1/score", SCORING)

    assert [row["score"] for row in reply.json["data"]] == [0.01, 0.03]
    assert (reply.json["model"], engine.posts[0].path) == ("public", "/v1/score")


async def test_tokens_are_told_by_routes_that_lie_beside_v1(rig: Rig, engine: FakeEngine) -> None:
    told = await rig.ask("/v1/tokenize", {**TOKENS, "return_token_strs": True})
    chat = await rig.ask(
        "/v1/tokenize", {"model": "public", "messages": [{"role": "user", "content": "four words are here"}]}
    )
    text = await rig.ask("/v1/detokenize", DETOKENS)

    assert told.json == {
        "count": 3, "max_model_len": 2048, "tokens": [0, 1, 2], "token_strs": ["one", "two", "three"]
    }  # fmt: skip
    assert chat.json["count"] == 4
    assert text.json == {"prompt": "w3 w4"}
    assert [post.path for post in engine.posts] == ["/tokenize", "/tokenize", "/detokenize"]


async def test_what_is_ranked_is_counted(rig: Rig) -> None:
    await rig.ask("/v1/rerank", RANKING)

    labels = {"gen_ai_operation_name": "rerank", "gen_ai_request_model": "public"}
    assert rig.sample("gen_ai_client_token_usage_sum", **labels) == 9


async def test_only_listed_fields_reach_the_engine_and_the_others_are_named(rig: Rig, engine: FakeEngine) -> None:
    more = {"priority": -9, "größe": 1, "a\r\nb": 1, "cache_salt": "x", "max_tokens_per_doc": 7, "chat_template": None}
    reply = await rig.ask("/v1/rerank", {**RANKING, **more})

    assert set(json.loads(engine.posts[0].body)) == {"model", "query", "documents", "max_tokens_per_doc"}
    assert reply.headers["x-modelport-dropped-params"] == "cache_salt, priority"


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/tokenize", {**TOKENS, "chat_template": "{{ 1 }}"}, "chat_template"),
        ("/v1/rerank", {**RANKING, "mm_processor_kwargs": {}}, "mm_processor_kwargs"),
        ("/v1/tokenize", {**TOKENS, "chat_template_kwargs": {"tokenize": True}}, "chat_template_kwargs"),
        (
            "/v1/rerank",
            {**RANKING, "documents": [{"content": [{"type": "image_url", "image_url": {"url": "http://x/"}}]}]},
            "documents[0]",
        ),
        (
            "/v1/tokenize",
            {"model": "public", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages",
        ),
        ("/v1/rerank", {"model": "public", "documents": ["a"]}, "query"),
        ("/v1/rerank", {**RANKING, "documents": 7}, "documents"),
        ("/v1/score", {"model": "public", "text_1": "a"}, "text_1"),
        ("/v1/score", {**SCORING, "text_1": ["a", "b", "c"]}, "text_1"),
        ("/v1/tokenize", {"model": "public"}, "prompt"),
        ("/v1/tokenize", {**TOKENS, "messages": []}, "prompt"),
        ("/v1/detokenize", {**DETOKENS, "tokens": ["a"]}, "tokens[0]"),
        ("/v1/detokenize", {"tokens": [1]}, "model"),
    ],
)
async def test_what_is_wrong_is_named_and_reaches_no_engine(
    rig: Rig, engine: FakeEngine, path: str, body: dict[str, Any], param: str
) -> None:
    reply = await rig.ask(path, body)

    assert (reply.status, reply.error["param"]) == (400, param)
    assert engine.posts == []


# -- who may, and what cannot


@pytest.mark.parametrize(("path", "body"), EACH)
async def test_keys_and_names_count_as_everywhere(rig: Rig, path: str, body: dict[str, Any]) -> None:
    unknown = await rig.ask(path, {**body, "model": "nobody"})
    await rig.published(keys=(Key("office", digest("mp-0123456789")),))
    closed = await rig.ask(path, body)
    opened = await rig.ask(path, body, headers={"authorization": "Bearer mp-0123456789"})

    assert (unknown.status, unknown.error["code"]) == (404, "model_not_found")
    assert [closed.status, opened.status] == [401, 200]


@pytest.mark.parametrize(("path", "body"), EACH)
async def test_an_engine_that_cannot_is_told_by_the_models_name(
    engine: FakeEngine, path: str, body: dict[str, Any]
) -> None:
    other = backend(engine.url, kind="ollama", is_ours=False)
    async with running({"engine": other}, models("public")) as rig:
        reply = await rig.ask(path, body)

    assert (reply.status, reply.error["code"], reply.error["param"]) == (400, "not_supported", "model")
    assert "'public' does not" in reply.error["message"]
    assert "chats, completions and embeddings" in reply.error["message"]
    assert engine.posts == []


@pytest.mark.parametrize("scenario", ["status_404_detail", "status_501_vllm"])
async def test_a_route_that_the_engine_lacks_is_no_missing_model(rig: Rig, engine: FakeEngine, scenario: str) -> None:
    engine.script(scenario)

    reply = await rig.ask("/v1/rerank", RANKING)

    assert (reply.status, reply.error["code"]) == (400, "not_supported")
    assert reply.error["message"].startswith("'public' does not rank texts.")


async def test_where_the_first_engine_cannot_the_next_one_is_asked(engine: FakeEngine) -> None:
    known = {
        "public": PublicModel("public", (Target("engine", "fake"),), fallbacks=("spare",)),
        **models("spare", backend="two"),
    }
    known["spare"] = PublicModel("spare", (Target("two", "fake"),))
    backends = {"engine": backend(engine.url, kind="ollama"), "two": backend(engine.url, "two")}
    async with running(backends, known) as rig:
        reply = await rig.ask("/v1/score", SCORING)

    assert (reply.status, reply.json["model"]) == (200, "public")


@pytest.mark.parametrize(
    ("scenario", "status"),
    [
        ("status_500_vllm", 502),
        ("status_503_vllm", 503),
        ("empty_200", 502),
        ("json_not_object", 502),
        ("html_200", 502),
    ],
)
async def test_a_failure_is_told_as_everywhere(rig: Rig, engine: FakeEngine, scenario: str, status: int) -> None:
    engine.script(default=scenario)

    assert (await rig.ask("/v1/tokenize", TOKENS)).status == status


async def test_an_attempt_that_failed_is_repeated_once(rig: Rig, engine: FakeEngine) -> None:
    engine.script("accept_then_fin")

    assert (await rig.ask("/v1/rerank", RANKING)).status == 200
    assert len(engine.posts) == 2


# -- forms


async def test_what_is_spoken_is_written_down(rig: Rig, engine: FakeEngine) -> None:
    reply = await transcribe(rig, ("model", "public"), ("language", "de"), ("timestamp_granularities[]", "word"))

    assert (reply.status, reply.json["text"]) == (200, fakes_tasks.SAID)
    sent = fakes_tasks.form(engine.posts[0])
    assert sent == {"model": "fake", "language": "de", "timestamp_granularities[]": "word", "file": AUDIO}
    assert b"BOUNDARY" not in engine.posts[0].body


async def test_what_of_a_form_an_engine_does_not_know_is_left_out_and_named(rig: Rig, engine: FakeEngine) -> None:
    route = "/v1/audio/transcriptions"
    assert set(SPECIFIED["transcription"]) == PARAMETERS[route] == set(VALUES[route])
    listed = {"keywords", "known_speaker_names", "known_speaker_references", "languages", "include"}
    for name in sorted(PARAMETERS[route] - {"model", "file", "stream"}):
        field, said = f"{name}[]" if name in listed else name, VALUES[route][name]
        act = fates("transcription", PROFILES["vllm"])[name].act if said != "auto" else Act.DONE

        reply = await transcribe(rig, ("model", "public"), (field, said))

        assert reply.status == 200
        assert reply.headers.get("x-modelport-dropped-params") == (field if act is Act.DROPPED else None)
        assert (field in fakes_tasks.form(engine.posts[-1])) == (act is not Act.DROPPED)


async def test_a_remote_engine_gets_the_whole_form(engine: FakeEngine) -> None:
    async with running({"engine": backend(engine.url, kind="remote")}, models("public", engine_name="fake")) as rig:
        reply = await transcribe(rig, ("model", "public"), ("keywords[]", "a"))

    assert "x-modelport-dropped-params" not in reply.headers
    assert fakes_tasks.form(engine.posts[-1])["keywords[]"] == "a"


async def test_a_transcription_may_be_plain_text(rig: Rig) -> None:
    reply = await transcribe(rig, ("response_format", "text"), ("model", "public"))

    assert (reply.headers["content-type"], reply.body.decode()) == ("text/plain; charset=utf-8", fakes_tasks.SAID)


async def test_tokens_of_a_transcription_are_counted(rig: Rig) -> None:
    await transcribe(rig, ("model", "public"), ("prompt", "count"))

    labels = {"gen_ai_operation_name": "transcription", "gen_ai_request_model": "public"}
    assert rig.sample("gen_ai_client_token_usage_sum", gen_ai_token_type="input", **labels) == 14
    assert rig.sample("gen_ai_client_token_usage_sum", gen_ai_token_type="output", **labels) == 5


@pytest.mark.parametrize("scenario", ["empty_200", "html_200", "json_not_object", "ok"])
async def test_what_is_no_transcription_is_no_answer(rig: Rig, engine: FakeEngine, scenario: str) -> None:
    engine.script(scenario)

    reply = await transcribe(rig, ("model", "public"), ("prompt", "chat"))

    assert (reply.status, reply.error["code"]) == (502, "engine_broken_answer")


async def test_a_transcription_may_stream(rig: Rig) -> None:
    reply = await transcribe(rig, ("model", "public"), ("stream", "true"))

    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.text == fakes_tasks.SAID.replace(" ", "")
    assert {event["model"] for event in reply.events[:-1]} == {"public"}
    assert reply.events[-1] == "[DONE]"


@pytest.mark.parametrize(
    ("disposition", "kept"),
    [
        ('name="file"; filename="b.mp3"', b'filename="b.mp3"'),
        ("name=file; filename=c.mp3", b'filename="c.mp3"'),
        ("name=\"file\"; filename*=UTF-8''na%C3%AFve.mp3", 'filename="naïve.mp3"'.encode()),
        ('name="file"; filename="../..\\"/x.wav"', b'filename=".._..__'),
    ],
)
async def test_a_file_keeps_the_harmless_part_of_its_name(
    rig: Rig, engine: FakeEngine, disposition: str, kept: bytes
) -> None:
    assert (await transcribe(rig, ("model", "public"), disposition=disposition)).status == 200
    assert kept in engine.posts[0].body


@pytest.mark.parametrize(
    ("fields", "file", "status", "code"),
    [
        ([("model", "public"), ("model", "other")], AUDIO, 400, "duplicate_field"),
        ([], AUDIO, 400, "missing_field"),
        ([("model", "public")], None, 400, "missing_field"),
        ([("model", "nobody")], AUDIO, 404, "model_not_found"),
        ([("model", "public"), ("stream", "perhaps")], AUDIO, 400, "invalid_type"),
        ([("model", "public"), ("prompt", "x" * 70_000)], AUDIO, 413, "request_too_large"),
        ([("model", "public")] + [(f"f{n}", "x") for n in range(70)], AUDIO, 400, "invalid_form"),
        ([("model", "public"), ('a"; filename="b', "x")], AUDIO, 200, None),
        ([("model", "public"), ("bad name", "x")], AUDIO, 400, "invalid_form"),
    ],
)
async def test_a_form_that_is_wrong_is_refused(
    rig: Rig, fields: list[tuple[str, str]], file: bytes | None, status: int, code: str | None
) -> None:
    reply = await transcribe(rig, *fields, file=file)

    assert reply.status == status
    assert code is None or reply.error["code"] == code


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--BOUNDARY",
        b"--BOUNDARY--",
        b"preamble\r\n--BOUNDARY--\r\n",
        b"--BOUNDARY\r\nno end",
        b"--BOUNDARY\r\nContent-Disposition: form-data; name=model\r\n\r\npublic",
        b"--BOUNDARY\r\nContent-Disposition: form-data; name=model\r\n\r\npublic\r\n--BOUNDARYX\r\n",
        b"--BOUNDARY\r\nContent-Disposition: attachment; name=model\r\n\r\npublic\r\n--BOUNDARY--\r\n",
        b"--BOUNDARY\r\nContent-Disposition: form-data; name=a; name=b\r\n\r\npublic\r\n--BOUNDARY--\r\n",
        b"--BOUNDARY\r\nContent-Disposition: form-data; name*=utf-8''model\r\n\r\npublic\r\n--BOUNDARY--\r\n",
        b"--BOUNDARY\r\nContent-Disposition: form-data; name=model\r\n\r\npublic\r\n--BOUNDARY--\r\nmore",
    ],
)
async def test_what_is_no_form_is_refused(rig: Rig, engine: FakeEngine, body: bytes) -> None:
    headers = {"content-type": 'multipart/form-data; boundary="BOUNDARY"', "content-length": str(len(body))}

    reply = await rig.ask(
        "/v1/audio/transcriptions", body or b" ", headers=headers | {"content-length": str(len(body or b" "))}
    )

    assert (reply.status, reply.error["code"]) in ((400, "invalid_form"), (400, "missing_field"))
    assert engine.posts == []


@pytest.mark.parametrize(
    "kind",
    ["application/json", "multipart/form-data", "multipart/mixed; boundary=B", "multipart/form-data; boundary=a\tb"],
)
async def test_another_type_than_a_form_is_refused(rig: Rig, kind: str) -> None:
    reply = await rig.ask("/v1/audio/transcriptions", b"x", headers={"content-type": kind})

    assert (reply.status, reply.error["code"]) == (415, "unsupported_media_type")


async def test_a_form_beyond_the_limit_is_refused_by_what_it_announces(engine: FakeEngine) -> None:
    limits = Limits(max_body_bytes=1000)
    async with running({"engine": backend(engine.url)}, models("public"), limits) as rig:
        assert (await transcribe(rig, ("model", "public"))).status == 413


async def test_a_daemon_that_hears_nothing_says_so(engine: FakeEngine) -> None:
    daemon = backend(engine.url, kind="ollama")
    assert daemon.endpoint is not None
    deaf = msgspec.structs.replace(daemon, endpoint=msgspec.structs.replace(daemon.endpoint, dialect=Dialect.OLLAMA))
    async with running({"engine": deaf}, models("public")) as rig:
        reply = await transcribe(rig, ("model", "public"))

    assert (reply.status, reply.error["code"]) == (400, "not_supported")
    assert "transcribe speech" in reply.error["message"]


# -- what never passes


@pytest.mark.parametrize("path", VLLM.split())
async def test_no_other_route_of_vllm_is_reached(rig: Rig, engine: FakeEngine, path: str) -> None:
    for body in (b"", b'{"model":"public"}'):
        reply = await rig.ask(path, body)

        assert reply.status == 404
    assert [record.path for record in engine.requests] == []
