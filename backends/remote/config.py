"""What an operator writes for a backend of kind `remote`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field

from backends.config.base import BackendConfig
from backends.config.fields import Address, BaseUrl, Credential, Headers


class RemoteConfig(BackendConfig):
    """An OpenAI-compatible endpoint that somebody else runs, or several of one model: `url` or `urls`."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["url"]}, {"required": ["urls"]}]})

    kind: Literal["remote"]
    url: BaseUrl | None = Field(None, description="Its base URL, as an SDK takes it: usually ends in `/v1`.")
    urls: tuple[BaseUrl, ...] = Field((), description="Several instead, which share the requests.")
    addresses: Literal["dns"] | tuple[Address, ...] | None = Field(
        None,
        description="Where the host of `url` is, each address an engine of its own; `dns`: as its name has them.",
    )
    api_key: Credential | None = Field(
        None, description="Sent as `Authorization: Bearer`; use ${NAME} to take it from the environment."
    )
    headers: Headers = Field(default_factory=dict, description="More headers to send.")
    context_length: int | None = Field(
        None, ge=1, description="Tokens of context of its models, where its list of models does not say."
    )

    @property
    def base_url(self) -> str:
        """`url`, or the first of `urls`, without a slash at the end."""
        return (self.url or self.urls[0]).rstrip("/")

    def address(self) -> Mapping[str, object]:
        """Its URL, and its addresses where they are given."""
        return {"url": self.base_url, "addresses": self.addresses}

    def followed_host(self) -> str | None:
        """The host of its URL, with `addresses: dns`."""
        return urlsplit(self.url).hostname if self.addresses == "dns" and self.url is not None else None

    def engines(self) -> tuple[RemoteConfig, ...]:
        """One configuration for each engine that this entry stands for: for each of its `urls` or `addresses`."""
        if self.urls:
            return tuple(self.model_copy(update={"url": url, "urls": ()}) for url in self.urls)
        if isinstance(self.addresses, tuple) and self.addresses:
            return tuple(self.model_copy(update={"addresses": (address,)}) for address in self.addresses)
        return (self,)
