"""A prompt that does not fit: the same error from every engine, on every route and in every dialect."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest

from app.dialects.engine_errors import refusal
from app.table import Limits
from backends.endpoint import ModelFacts
from backends.errors import EngineFailed, Rejected
from backends.prompt_too_long import Length, TooLong, failed, length_of
from tests.fakes.talker import Talker, TalkerReply, piece, whole
from tests.rigs.raw_client import chat
from tests.rigs.relay import backend, models, running

VLLM = "This model's maximum context length is 4096 tokens. However, "
NESTED = json.dumps(
    {
        "error": {
            "code": 400,
            "message": "request (2680 tokens) exceeds the available context size (256 tokens), try increasing it",
            "type": "exceed_context_size_error",
            "n_prompt_tokens": 2680,
            "n_ctx": 256,
        }
    }
)
TOLD: dict[str, tuple[object, Length]] = {
    "vLLM": (
        f"{VLLM}you requested 0 output tokens and your prompt contains at least 5000 input tokens, for a total of at "
        "least 5000 tokens.",
        Length(5000, 4096, 0, is_least=True),
    ),
    "vLLM, of the answer": (
        f"{VLLM}you requested 500 output tokens and your prompt contains 4000 input tokens, for a total of 4500.",
        Length(4000, 4096, 500),
    ),
    "vLLM, without an answer": (f"{VLLM}your prompt contains 5000 input tokens, which exceeds", Length(5000, 4096)),
    "vLLM, by letters": (
        f"{VLLM}your prompt contains 99999 characters (more than 65536 characters, which is the upper bound for 4096 "
        "input tokens).",
        Length(None, 4096),
    ),
    "vLLM, of its input": ("Input length (5000) exceeds model's maximum context length (4096).", Length(5000, 4096)),
    "vLLM, of its engine": (
        "The decoder prompt (length 5000) is longer than the maximum model length of 4096. Make sure",
        Length(5000, 4096),
    ),
    "vLLM, of responses": ("The engine prompt length 5000 exceeds the max_model_len 4096.", Length(5000, 4096)),
    "vLLM, a bound": (
        "'max_tokens' or 'max_completion_tokens' is too large: 8192. This model's maximum context length is 512 tokens "
        "and your request has 20 input tokens (8192 > 512 - 20).",
        Length(20, 512, 8192),
    ),
    "vLLM, embeddings": (
        f"{VLLM}you requested 5000 tokens in the input for embedding generation. Please reduce the length",
        Length(5000, 4096),
    ),
    "OpenAI, older": (
        f"{VLLM}you requested 8203 tokens (7691 in the messages, 512 in the completion). Please reduce the length",
        Length(7691, 4096, 512),
    ),
    "OpenAI": (
        {
            "error": {
                "message": "Your input exceeds the context window of this model.",
                "code": "context_length_exceeded",
            }
        },
        Length(),
    ),
    "a code alone": ({"error": {"message": "No.", "code": "context_length_exceeded"}}, Length()),
    "Anthropic": ("prompt is too long: 213462 tokens > 200000 maximum", Length(213462, 200000)),
    "Anthropic, of the answer": (
        "input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000, decrease input length",
        Length(188240, 200000, 21333),
    ),
    "SGLang": (
        "The input (61709 tokens) is longer than the model's context length (40960 tokens).",
        Length(61709, 40960),
    ),
    "SGLang, in all": (
        "Requested token count exceeds the model's maximum context length of 40960 tokens. You requested a total of "
        "45000 tokens: 41000 tokens from the input messages and 4000 tokens for the completion.",
        Length(41000, 40960, 4000),
    ),
    "SGLang, of its memory": (
        {
            "object": "error",
            "message": "Input length (160062 tokens) exceeds the maximum allowed length (59862 tokens).",
        },
        Length(160062, 59862),
    ),
    "TGI": (
        {
            "error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 5000 `inputs` "
            "tokens and 20 `max_new_tokens`",
            "error_type": "validation",
        },
        Length(5000, 4096, 20),
    ),
    "TEI": (
        {
            "message": "Input validation error: `inputs` must have less than 512 tokens. Given: 600",
            "type": "Validation",
        },
        Length(600, 512),
    ),
    "llama.cpp": (json.loads(NESTED), Length(2680, 256)),
    "llama.cpp, embeddings": (
        "input (901 tokens) is too large to process. increase the physical batch size (current batch size: 512)",
        Length(901, 512),
    ),
    "llama.cpp, older": ("the request exceeds the available context size. try increasing the context size", Length()),
    "llama.cpp, while it writes": ("Context size has been exceeded.", Length()),
    "Ollama": ({"error": NESTED}, Length(2680, 256)),
    "Ollama, without shift": ("the prompt is longer than the context length currently available", Length()),
    "Ollama, embeddings": ("the input length exceeds the context length", Length()),
    "LM Studio": (
        "Trying to keep the first 111490 tokens when context the overflows. However, the model is loaded with context "
        "length of only 32768 tokens, which is not enough.",
        Length(111490, 32768),
    ),
    "LM Studio, newer": (
        "The number of tokens to keep from the initial prompt is greater than the context length (n_keep: 5000>= "
        "n_ctx: 4096).",
        Length(5000, 4096),
    ),
    "LiteLLM": (
        f"litellm.ContextWindowExceededError: litellm.BadRequestError: OpenAIException - {VLLM}your messages resulted "
        "in 5000 tokens.",
        Length(5000, 4096),
    ),
    "LiteLLM, JSON inside": (
        'litellm.BadRequestError: Hosted_vllmException - {"error":{"message":"' + VLLM + "your request has 5000 input "
        'tokens","code":400}}',
        Length(5000, 4096),
    ),
    "TensorRT-LLM": ("Prompt length (5000) exceeds maximum input length (4096).", Length(5000, 4096)),
    "TensorRT-LLM, in all": (
        "The sum of prompt length (5000.0), query length (0) and max_tokens (100) should not exceed max_num_tokens "
        "(4096)",
        Length(5000, 4096),
    ),
    "OpenRouter": (
        "This endpoint's maximum context length is 32768 tokens. However, you requested about 40000 tokens (36000 of "
        "text input, 4000 in the output).",
        Length(36000, 32768, 4000),
    ),
    "Gemini": (
        "The input token count (1196265) exceeds the maximum number of tokens allowed (1048575).",
        Length(1196265, 1048575),
    ),
    "xAI": (
        "This model's maximum prompt length is 131072 but the request contains 537812 tokens.",
        Length(537812, 131072),
    ),
    "Mistral": (
        "Prompt contains 40000 tokens and 0 draft tokens, too large for model with 32768 maximum context length",
        Length(40000, 32768),
    ),
    "Groq": ("Please reduce the length of the messages or completion.", Length()),
    "Bedrock": ("Input is too long for requested model.", Length()),
    "details": ({"detail": [{"msg": f"Value error, {VLLM}your request has 5000 input tokens"}]}, Length(5000, 4096)),
}


@pytest.mark.parametrize(("error", "length"), TOLD.values(), ids=TOLD)
def test_every_engines_words_are_understood_with_their_numbers(error: object, length: Length) -> None:
    assert length_of(error) == length


@pytest.mark.parametrize("status", [400, 413, 422, 500])
@pytest.mark.parametrize(("error", "length"), TOLD.values(), ids=TOLD)
def test_it_is_a_400_of_one_code_whatever_status_says_it(error: object, length: Length, status: int) -> None:
    body = error.encode() if isinstance(error, str) else json.dumps(error).encode()

    said = refusal("engine", status, {}, body, 0.0)

    assert isinstance(said, TooLong)
    assert (said.status, said.code, said.type) == (400, "context_length_exceeded", "invalid_request_error")
    assert said.length == length
    for number in (length.prompt if length.limit else None, length.limit):
        assert number is None or str(number) in said.message


OTHERS: list[object] = [
    "max_tokens must be at least 1, got -7.",
    "min_tokens must be less than or equal to max_tokens=10, got 50",
    "max_tokens=8192 cannot be greater than max_model_len=2048. Please request fewer output tokens.",
    "truncate_prompt_tokens=9000 cannot be greater than max_model_len = 2048.",
    "This model supports at most 4096 completion tokens",
    "Request too large for model `x` on tokens per minute (TPM): Limit 6000, Requested 8000, please reduce your "
    "message size and try again.",
    "Invalid 'tools[0].function.name': string too long. Expected a string with maximum length 64.",
    "The stop sequence exceeds the maximum allowed length of 16",
    "Request body too large: exceeds maximum size 1048576 bytes",
    "number of images exceeds the limit of 4 per prompt",
    "CUDA out of memory",
    {"detail": [{"msg": "field required", "input": "prompt is too long: 5 tokens > 4 maximum"}]},
    None,
    7,
    [],
]


@pytest.mark.parametrize("error", OTHERS)
def test_what_only_looks_like_it_is_another_error(error: object) -> None:
    assert length_of(error) is None
    assert isinstance(failed("engine", error, "no"), EngineFailed)


@pytest.mark.parametrize("status", [401, 429, 503, 502, 504])
def test_what_is_no_refusal_of_the_request_stays_what_it_is(status: int) -> None:
    assert not isinstance(refusal("engine", status, {}, json.dumps({"error": VLLM}).encode(), 0.0), Rejected)


def test_the_context_that_is_known_here_completes_the_sentence() -> None:
    error = TooLong("engine", Length(5000))
    error.placed(4096, "prompt")

    assert error.message.startswith("This model's maximum context length is 4096 tokens, and the request has 5000.")
    assert error.param == "prompt"


# -- over a real relay

BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": chat(),
    "/v1/completions": {"model": "fake", "prompt": "x"},
    "/v1/embeddings": {"model": "fake", "input": "x"},
    "/v1/rerank": {"model": "fake", "query": "x", "documents": ["y"]},
    "/v1/score": {"model": "fake", "text_1": "x", "text_2": "y"},
    "/v1/tokenize": {"model": "fake", "prompt": "x"},
    "/v1/responses": {"model": "fake", "input": "x"},
    "/v1/messages": {"model": "fake", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]},
    "/v1/messages/count_tokens": {"model": "fake", "messages": [{"role": "user", "content": "x"}]},
    "/api/chat": {"model": "fake", "messages": [{"role": "user", "content": "x"}]},
    "/api/generate": {"model": "fake", "prompt": "x"},
    "/api/embed": {"model": "fake", "input": "x"},
}
PARAMS = {"/v1/chat/completions": "messages", "/v1/completions": "prompt", "/v1/responses": "input"}
PARAMS |= {"/v1/embeddings": "input"}
LONG = {"message": f"{VLLM}your prompt contains 5000 input tokens", "type": "BadRequestError", "code": 400}
WRITES = [path for path in BODIES if path in (*PARAMS, "/v1/messages", "/api/chat", "/api/generate")]
WRITES.remove("/v1/embeddings")
COUNT = "/v1/messages/count_tokens"
ANTHROPICS = "prompt is too long: 5000 tokens > 4096 maximum"
OURS = "This model's maximum context length is 4096 tokens, and the request has 5000. Shorten it."


def refusing(path: str, body: Any) -> TalkerReply:
    return 400, {"error": LONG}


def streaming(path: str, body: Any) -> TalkerReply:
    return [{"error": LONG}]


def words(path: str, told: Any) -> str:
    """What a refusal of this route says; its shape is checked."""
    if path.startswith("/api/"):
        assert list(told) == ["error"]
        return str(told["error"])
    if path.startswith("/v1/messages"):
        assert (told["type"], told["error"]["type"]) == ("error", "invalid_request_error")
    else:
        assert (told["error"]["type"], told["error"]["code"]) == ("invalid_request_error", "context_length_exceeded")
        assert told["error"]["param"] == PARAMS.get(path, told["error"]["param"])
    return str(told["error"]["message"])


@pytest.mark.parametrize(
    ("path", "kind"),
    # A remote engine cannot be asked for a count of Anthropic's.
    [each for each in product(BODIES, ("vllm", "llama_cpp", "remote")) if each != (COUNT, "remote")],
)
async def test_a_refusal_is_the_same_on_every_route(path: str, kind: str) -> None:
    async with Talker(refusing) as engine, running({"engine": backend(engine.url, kind=kind)}, models("fake")) as rig:
        reply = await rig.ask(path, {**BODIES[path], "stream": False})

    assert (reply.status, words(path, reply.json)) == (400, ANTHROPICS if "/messages" in path else OURS)


@pytest.mark.parametrize("path", [path for path in BODIES if path != COUNT])
async def test_under_a_good_status_it_is_a_400_too(path: str) -> None:
    def behave(path: str, body: Any) -> TalkerReply:
        return 200, {"error": LONG}

    async with Talker(behave) as engine, running({"engine": backend(engine.url)}, models("fake")) as rig:
        reply = await rig.ask(path, {**BODIES[path], "stream": False})

    assert (reply.status, words(path, reply.json)) == (400, ANTHROPICS if "/messages" in path else OURS)


@pytest.mark.parametrize("behave", [refusing, streaming], ids=["a status", "an event"])
@pytest.mark.parametrize("path", [path for path in WRITES if path != "/v1/responses"])
async def test_of_a_stream_it_is_a_status_too_also_when_the_engine_makes_it_the_first_event(
    path: str, behave: Any
) -> None:
    async with Talker(behave) as engine, running({"engine": backend(engine.url)}, models("fake")) as rig:
        reply = await rig.ask(path, {**BODIES[path], "stream": True})

    assert (reply.status, words(path, reply.json)) == (400, ANTHROPICS if "/messages" in path else OURS)


@pytest.mark.parametrize("behave", [refusing, streaming], ids=["a status", "an event"])
async def test_a_stream_of_responses_says_it_in_its_last_event_and_ends_well(behave: Any) -> None:
    """Codex makes room for a `response.failed` of this code; a status is the end for it, and a cut stream is asked for
    again."""
    async with Talker(behave) as engine, running({"engine": backend(engine.url)}, models("fake")) as rig:
        reply = await rig.ask("/v1/responses", {"model": "fake", "input": "x", "stream": True})

    *begin, error, last = reply.events
    assert (reply.status, reply.is_whole) == (200, True)
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert [each["type"] for each in begin] == ["response.created", "response.in_progress"]
    assert (error["type"], error["code"], error["param"]) == ("error", "context_length_exceeded", "input")
    assert (last["type"], last["response"]["status"]) == ("response.failed", "failed")
    assert last["response"]["error"] == {"code": "context_length_exceeded", "message": OURS}
    assert [each["sequence_number"] for each in reply.events] == [0, 1, 2, 3]


async def test_another_refusal_of_such_a_stream_stays_a_status() -> None:
    def no(path: str, body: Any) -> TalkerReply:
        return 400, {"error": "I do not like it."}

    async with Talker(no) as engine, running({"engine": backend(engine.url)}, models("fake")) as rig:
        reply = await rig.ask("/v1/responses", {"model": "fake", "input": "x", "stream": True})

    assert (reply.status, reply.error["code"]) == (400, "invalid_request")


@pytest.mark.parametrize("path", WRITES)
async def test_in_a_stream_that_is_open_it_is_the_last_event(path: str) -> None:
    def behave(path: str, body: Any) -> TalkerReply:
        return [piece("Hello"), {"error": LONG}] if "messages" in body else [text("Hello"), {"error": LONG}]

    def text(said: str) -> dict[str, object]:
        return {"object": "text_completion", "choices": [{"index": 0, "text": said, "finish_reason": None}]}

    async with Talker(behave) as engine, running({"engine": backend(engine.url)}, models("fake"), Limits()) as rig:
        reply = await rig.ask(path, {**BODIES[path], "stream": True})

    assert reply.status == 200
    assert reply.is_whole is (path == "/v1/responses")
    told = reply.body.decode()
    assert "Hello" in told
    assert (ANTHROPICS if "/messages" in path else OURS) in told
    assert "context_length_exceeded" in told or "/messages" in path or path.startswith("/api/")


async def test_the_context_is_known_where_the_engine_does_not_say_it() -> None:
    def behave(path: str, body: Any) -> TalkerReply:
        return 500, {"error": "the input length exceeds the context length"}

    known = {"fake": ModelFacts(context_length=777)}
    async with Talker(behave) as engine, running({"engine": backend(engine.url, facts=known)}, models("fake")) as rig:
        openai = await rig.ask("/v1/completions", BODIES["/v1/completions"])
        message = await rig.ask("/v1/messages", BODIES["/v1/messages"])

    assert openai.error["message"] == (
        "This model's maximum context length is 777 tokens, and the request has more. Shorten it."
    )
    assert openai.error["param"] == "prompt"
    assert message.json["error"]["message"] == "prompt is too long: at least 778 tokens > 777 maximum"


async def test_a_bound_that_does_not_fit_is_told_to_anthropics_clients_as_theirs_is() -> None:
    def behave(path: str, body: Any) -> TalkerReply:
        told = "you requested 500 output tokens and your prompt contains 4000 input tokens, for a total of 4500."
        return 400, {"error": {"message": VLLM + told}}

    async with Talker(behave) as engine:
        served = {"engine": backend(engine.url, kind="remote")}
        async with running(served, models("fake")) as rig:
            message = await rig.ask("/v1/messages", BODIES["/v1/messages"])
            openai = await rig.ask(body=chat(max_tokens=500))

    assert message.json["error"]["message"] == (
        "input length and `max_tokens` exceed context limit: 4000 + 500 > 4096, decrease input length or `max_tokens` "
        "and try again"
    )
    assert openai.error["message"] == (
        "This model's maximum context length is 4096 tokens, and the request has 4000 and asks for 500 more. Shorten "
        "it, or lower `max_tokens`."
    )


async def test_a_prompt_that_cannot_fit_is_not_asked_again_without_its_bound() -> None:
    async with Talker(refusing) as engine, running({"engine": backend(engine.url)}, models("fake")) as rig:
        reply = await rig.ask(body=chat(max_tokens=500))

    assert reply.error["code"] == "context_length_exceeded"
    assert len(engine.asked) == 1


async def test_an_answer_that_fits_is_not_touched() -> None:
    async with (
        Talker(lambda path, body: whole(VLLM)) as engine,
        running({"engine": backend(engine.url)}, models("fake")) as rig,
    ):
        assert (await rig.ask(body=chat())).text == VLLM
