"""The relays' routes of other APIs as `/openapi.json` describes them. Their bodies are defined by those APIs."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict


class _Open(BaseModel):
    """Fields that are not listed are those of the API."""

    model_config = ConfigDict(extra="allow")


class ResponseRequest(_Open):
    """OpenAI's Responses API, without what would need stored conversations."""

    model: str | None = None
    input: str | list[dict[str, Any]]
    stream: bool = False


class RenderRequest(_Open):
    """A request of `/v1/chat/completions`, of which only the prompt is made."""

    model: str | None = None
    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] = []


class RankRequest(_Open):
    """vLLM's rerank: documents to sort by how well they match the query."""

    model: str | None = None
    query: str
    documents: str | list[str]
    top_n: int = 0


class ScoreRequest(_Open):
    """vLLM's score: how well two texts match. vLLM has three names for each side."""

    model: str | None = None
    text_1: str | list[str] | None = None
    text_2: str | list[str] | None = None


class TokenRequest(_Open):
    """vLLM's tokenize: a prompt or a conversation."""

    model: str | None = None
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    return_token_strs: bool = False


class TokenList(BaseModel):
    """The tokens of a text."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class Rendering(BaseModel):
    """The prompt that an engine makes of a chat. `tokens`: null where the engine does not tell them."""

    prompt: str
    tokens: list[int] | None = None
    backend: str


class DetokenRequest(_Open):
    """vLLM's detokenize: tokens to turn into text."""

    model: str | None = None
    tokens: list[int]


class EvaluationRequest(_Open):
    """LLaMA-Factory's scores: texts for a reward model."""

    model: str | None = None
    messages: list[str]
    max_length: int | None = None


class EvaluationScores(BaseModel):
    """A reward model's score of each text."""

    id: str
    object: str
    model: str
    scores: list[float]


class TokenizerInfo(_Open):
    """What a model's tokenizer is: the members of its `tokenizer_config.json`, as far as the engine knows them."""

    tokenizer_class: str
    chat_template: str | None = None


class Text(BaseModel):
    """The text of tokens."""

    prompt: str


class MessageRequest(_Open):
    """Anthropic's Messages API."""

    model: str | None = None
    messages: list[dict[str, Any]]
    max_tokens: int
    stream: bool = False


class CountRequest(_Open):
    """Anthropic's count of the tokens of a conversation."""

    model: str | None = None
    messages: list[dict[str, Any]]


class ComparisonRequest(_Open):
    """A chat request to several models at once: `models`, or a configured `pair`, in place of `model`."""

    models: list[str] | None = None
    pair: str | None = None
    messages: list[dict[str, Any]]
    stream: bool = True
    blind: bool = False
    force: bool = False


class VoteRequest(BaseModel):
    """Which answer of a blind comparison is best: its index, `tie`, or `all_bad`."""

    id: str
    winner: int | str


class OllamaChat(_Open):
    """Ollama's chat."""

    model: str | None = None
    messages: list[dict[str, Any]] = []
    stream: bool = True
    options: dict[str, Any] = {}


class OllamaPrompt(_Open):
    """Ollama's generate: a prompt to continue."""

    model: str | None = None
    prompt: str = ""
    stream: bool = True
    options: dict[str, Any] = {}


class OllamaTexts(_Open):
    """Ollama's embed: texts to embed."""

    model: str | None = None
    input: str | list[str]


class OllamaName(_Open):
    """Ollama's show: a model to describe."""

    model: str


class OllamaError(BaseModel):
    """The body of every error under `/api/`."""

    error: str


class AnthropicFault(BaseModel):
    """What went wrong, in Anthropic's words for kinds of errors."""

    type: str
    message: str


class AnthropicError(BaseModel):
    """The body of every error of `/v1/messages`."""

    type: str = "error"
    error: AnthropicFault


Answers = dict[int | str, dict[str, Any]]


_AUDIO = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {"type": "string", "format": "binary"},
        "model": {"type": "string"},
        "stream": {"type": "boolean"},
    },
}


def foreign_routes(router: APIRouter, errors: Answers) -> None:
    """Add these routes to the router. They are only described there and never called."""
    _openai(router, errors)
    _compare(router, errors)
    _anthropic(router)
    _ollama(router)


def _stream(kind: str, failure: type[BaseModel] | None) -> Answers:
    responses: Answers = {
        200: {"content": {kind: {"schema": {"type": "string"}}}, "description": "The response, or a stream."}
    }
    if failure is not None:
        responses["default"] = {"model": failure, "description": "An error."}
    return responses


def _openai(router: APIRouter, errors: Answers) -> None:
    @router.post("/v1/chat/completions/render", responses=errors, tags=["models"])
    async def render(body: RenderRequest) -> Rendering:
        raise NotImplementedError

    @router.post("/v1/rerank", responses=errors, tags=["models"])
    async def rerank(body: RankRequest) -> _Open:
        raise NotImplementedError

    @router.post("/v1/score", responses=errors, tags=["models"])
    async def score(body: ScoreRequest) -> _Open:
        raise NotImplementedError

    @router.post("/v1/score/evaluation", responses=errors, tags=["models"])
    async def evaluation(body: EvaluationRequest) -> EvaluationScores:
        raise NotImplementedError

    @router.post("/v1/tokenize", responses=errors, tags=["models"])
    async def tokenize(body: TokenRequest) -> TokenList:
        raise NotImplementedError

    @router.post("/v1/detokenize", responses=errors, tags=["models"])
    async def detokenize(body: DetokenRequest) -> Text:
        raise NotImplementedError

    @router.post("/tokenize", responses=errors, tags=["models"])
    async def tokenize_at_root(body: TokenRequest) -> TokenList:
        raise NotImplementedError

    @router.post("/detokenize", responses=errors, tags=["models"])
    async def detokenize_at_root(body: DetokenRequest) -> Text:
        raise NotImplementedError

    @router.get("/tokenizer_info", responses=errors, tags=["models"])
    async def tokenizer_info(model: str | None = None) -> TokenizerInfo:
        raise NotImplementedError

    @router.post(
        "/v1/audio/transcriptions",
        responses={**_stream("text/event-stream", None), **errors},
        openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _AUDIO}}}},
        tags=["models"],
    )
    async def transcriptions() -> _Open:
        raise NotImplementedError

    @router.post("/v1/responses", responses=_stream("text/event-stream", None), tags=["models"])
    async def responses(body: ResponseRequest) -> _Open:
        raise NotImplementedError


def _compare(router: APIRouter, errors: Answers) -> None:
    @router.post("/v1/compare", responses={**_stream("text/event-stream", None), **errors}, tags=["comparisons"])
    async def compare(body: ComparisonRequest) -> _Open:
        raise NotImplementedError

    @router.get("/v1/compare/pairs", responses=errors, tags=["comparisons"])
    async def pairs() -> _Open:
        raise NotImplementedError

    @router.post("/v1/compare/votes", responses=errors, tags=["comparisons"])
    async def vote(body: VoteRequest) -> _Open:
        raise NotImplementedError

    @router.get("/v1/compare/votes", responses=errors, tags=["comparisons"])
    async def votes() -> _Open:
        raise NotImplementedError

    @router.get("/v1/compare/runs", responses=errors, tags=["comparisons"])
    async def runs() -> _Open:
        raise NotImplementedError

    @router.get("/v1/compare/runs/{run}", responses=errors, tags=["comparisons"])
    async def run_report(run: str) -> _Open:
        raise NotImplementedError

    @router.get("/v1/compare/runs/{run}/report.html", responses=errors, tags=["comparisons"])
    async def run_page(run: str) -> str:
        raise NotImplementedError


def _anthropic(router: APIRouter) -> None:
    failure: Answers = {"default": {"model": AnthropicError, "description": "An error."}}

    @router.post("/v1/messages", responses=_stream("text/event-stream", AnthropicError), tags=["anthropic"])
    async def messages(body: MessageRequest) -> _Open:
        raise NotImplementedError

    @router.post("/v1/messages/count_tokens", responses=failure, tags=["anthropic"])
    async def count_tokens(body: CountRequest) -> _Open:
        raise NotImplementedError


def _ollama(router: APIRouter) -> None:
    failure: Answers = {"default": {"model": OllamaError, "description": "An error."}}
    lines = _stream("application/x-ndjson", OllamaError)

    @router.get("/", tags=["ollama"])
    async def root() -> str:
        raise NotImplementedError

    @router.get("/api/version", tags=["ollama"])
    async def ollama_version() -> _Open:
        raise NotImplementedError

    @router.get("/api/tags", responses=failure, tags=["ollama"])
    async def tags() -> _Open:
        raise NotImplementedError

    @router.get("/api/ps", responses=failure, tags=["ollama"])
    async def running() -> _Open:
        raise NotImplementedError

    @router.post("/api/show", responses=failure, tags=["ollama"])
    async def show(body: OllamaName) -> _Open:
        raise NotImplementedError

    @router.post("/api/chat", responses=lines, tags=["ollama"])
    async def chat(body: OllamaChat) -> _Open:
        raise NotImplementedError

    @router.post("/api/generate", responses=lines, tags=["ollama"])
    async def generate(body: OllamaPrompt) -> _Open:
        raise NotImplementedError

    @router.post("/api/embed", responses=failure, tags=["ollama"])
    async def embed(body: OllamaTexts) -> _Open:
        raise NotImplementedError

    @router.post("/api/embeddings", responses=failure, tags=["ollama"])
    async def embeddings_of_one(body: OllamaPrompt) -> _Open:
        raise NotImplementedError
