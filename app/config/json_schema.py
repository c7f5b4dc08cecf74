"""The JSON schema of `modelport.yaml`, for editors and for people; committed as modelport.schema.json. Pure."""

from __future__ import annotations

import json
from typing import Any

from app.config.model import Config


def schema() -> dict[str, Any]:
    """The schema as a dictionary: every key with its meaning, default and bounds."""
    generated = Config.model_json_schema(mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **generated, "title": "modelport.yaml"}


def text() -> str:
    """The schema as JSON text, as the committed file has it."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"
