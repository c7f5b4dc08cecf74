"""The JSON schema of `modelport.yaml`, for editors and for people. Committed as modelport.schema.json. Pure."""

from __future__ import annotations

import json
from typing import Any

from app.config.model import Config


def schema() -> dict[str, Any]:
    """The schema of what may be written: every key with its meaning, default and bounds."""
    made = Config.model_json_schema(mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made, "title": "modelport.yaml"}


def text() -> str:
    """The schema as the committed file holds it."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"
