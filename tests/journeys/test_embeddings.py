"""Embeddings as openai-python asks for them: base64 unless told otherwise, and safe to send twice."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import openai
import pytest
from openai import OpenAI

from tests.journeys.gateway import MODEL, Fake, Gateway


@pytest.fixture(params=[False])
def client(request: pytest.FixtureRequest, gateway: Gateway) -> Iterator[OpenAI]:
    """No retries; strict when a test asks for it."""
    with OpenAI(
        base_url=gateway.base_url, api_key="none", max_retries=0, _strict_response_validation=request.param
    ) as openai_client:
        yield openai_client


def test_texts_become_vectors_in_their_order(client: OpenAI) -> None:
    answer = client.embeddings.create(model="fake/fake", input=["one", "two", "three"])

    assert answer.model == "fake/fake"
    assert [one.index for one in answer.data] == [0, 1, 2]
    assert all(isinstance(number, float) for one in answer.data for number in one.embedding)


def test_numbers_and_base64_say_the_same(client: OpenAI) -> None:
    packed = client.embeddings.create(model="fake/fake", input="one").data[0].embedding
    plain = client.embeddings.create(model="fake/fake", input="one", encoding_format="float").data[0].embedding

    assert packed == pytest.approx(plain, rel=1e-6)


@pytest.mark.parametrize("client", [True], ids=["strict"], indirect=True)
def test_strict_validation_takes_numbers_and_refuses_the_sdks_own_base64(client: OpenAI) -> None:
    """It checks before it unpacks the base64 that it asked for itself (docs/wire.md)."""
    assert client.embeddings.create(model="fake/fake", input="one", encoding_format="float").data[0].embedding
    with pytest.raises(openai.APIResponseValidationError):
        client.embeddings.create(model="fake/fake", input="one")


def test_embeddings_are_tried_once_more_where_a_chat_is_not(gateway: Gateway, fake: Fake) -> None:
    """An embedding has no side effect, so an engine that may have had the request gets it a second time."""
    request_id = uuid.uuid4().hex
    with (
        OpenAI(base_url=gateway.base_url, api_key="none", max_retries=0) as client,
        pytest.raises(openai.InternalServerError) as failed,
    ):
        client.embeddings.create(
            model="fake/fault:accept_then_fin", input="one", extra_headers={"x-request-id": request_id}
        )

    assert failed.value.code == "engine_disconnected"
    assert len(fake.requests(request_id)) == 2


def test_a_model_that_writes_text_says_that_it_cannot(gateway: Gateway) -> None:
    with (
        OpenAI(base_url=gateway.base_url, api_key="none", max_retries=0) as client,
        pytest.raises(openai.BadRequestError) as refused,
    ):
        client.embeddings.create(model=MODEL, input="one")

    assert refused.value.code == "not_supported"
