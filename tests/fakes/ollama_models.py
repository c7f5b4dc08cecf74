"""The fake daemon's store: models, blobs, what is in memory, and what the daemon reports of them."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fakes.ollama_go import time_of
from tests.rigs.transcripts import Json, transcripts

GGUF = b"GGUF"
REAL_BYTES = 1 << 20  # a file of this size is a model that can run
REGISTRY = "https://registry.ollama.ai/v2/library"
NO_NETWORK = "dial tcp: lookup registry.ollama.ai on 198.51.100.53:53: no such host"
_NAME = re.compile(r"[A-Za-z0-9_.-]+(?:[/:][A-Za-z0-9_.-]+)*\Z")


class Refused(Exception):
    """A refusal: its status and the daemon's text."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass
class Model:
    """One model. `parameters` are those of its Modelfile."""

    name: str
    parameters: Json = field(default_factory=dict)
    capabilities: tuple[str, ...] = ("completion",)
    system: str = ""
    parent: str = ""
    template: str = ""
    length: int = 8192
    digest: str = ""
    size: int = 98362763
    modified: float = field(default_factory=time.time)
    file: Path | None = None  # runs on a real engine
    weights: str = ""  # the digest of its blob

    def __post_init__(self) -> None:
        self.weights = self.weights or hashlib.sha256(self.name.encode()).hexdigest()
        self.digest = self.digest or hashlib.sha256(repr((self.name, self.parameters)).encode()).hexdigest()

    @property
    def details(self) -> Json:
        return {
            "parent_model": self.parent,
            "format": "gguf",
            "family": "llama",
            "families": ["llama"],
            "parameter_size": "134.52M",
            "quantization_level": "Q4_1",
        }


@dataclass
class Loaded:
    """A model in memory."""

    num_ctx: int
    expires: float
    shift: bool = True  # how it was loaded


def full(name: str) -> str:
    """The name with its tag, which is `latest` where it has none."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


class Store:
    """The models, for `/api/tags`, `show`, `ps`, `blobs`, `create`, `copy`, `delete` and `pull`."""

    def __init__(self) -> None:
        self.models: dict[str, Model] = {}
        self.blobs: dict[str, bytes] = {}
        self.folder = Path(tempfile.gettempdir()) / f"fake-ollama-{os.getpid()}"  # made when a real model comes
        self.loaded: dict[str, Loaded] = {}
        self.registry: dict[str, Model] = {}  # what a pull finds; everything else has no network
        stop = {"stop": ["<|im_start|>", "<|im_end|>"], "temperature": 0.7}
        recorded = transcripts()["004_tags"].objects[0]["models"][0]
        template = transcripts()["007_show"].objects[0]["template"]
        self.add(Model("smollm2:135m", parameters=stop, template=template, digest=recorded["digest"]))

    def add(self, model: Model) -> Model:
        """Add this model."""
        self.models[full(model.name).lower()] = model
        return model

    def find(self, name: str) -> Model:
        """The model of that name in any spelling; 400 for an invalid name, 404 for one that is not there."""
        if not _NAME.match(name):
            raise Refused(400, "invalid model name")
        model = self.models.get(full(name).lower())
        if model is None:
            raise Refused(404, f"model '{name}' not found")
        return model

    def tags(self) -> Json:
        """The models as `/api/tags` lists them."""
        listed = sorted(self.models.values(), key=lambda m: full(m.name).rpartition(":")[::2])
        return {
            "models": [
                {
                    "name": full(m.name),
                    "model": full(m.name),
                    "modified_at": time_of(m.modified),
                    "size": m.size,
                    "digest": m.digest,
                    "details": {**m.details, "context_length": m.length, "embedding_length": 576},
                    "capabilities": list(m.capabilities),
                }
                for m in listed
            ]
        }

    def listed(self, name: str | None = None) -> Json:
        """The models as `/v1/models` lists them, the newest first; or one of them."""
        if name is not None and full(name).lower() not in self.models:
            raise Refused(404, f"model '{full(name)}' not found")
        rows = sorted(self.models.values(), key=lambda m: -m.modified)
        entries: list[Json] = [
            {"id": full(m.name), "object": "model", "created": int(m.modified), "owned_by": "library"} for m in rows
        ]
        if name is None:
            return {"object": "list", "data": entries}
        return next(entry for entry in entries if str(entry["id"]).lower() == full(name).lower())

    def show(self, name: str) -> Json:
        """What `/api/show` returns, without the licence and the tensors."""
        model = self.models.get(full(name).lower())
        if model is None:
            raise Refused(404, f"model '{full(name)}' not found")
        pairs = [
            (key, each)
            for key, value in model.parameters.items()
            for each in (value if isinstance(value, list) else [value])
        ]
        lines = [f"{key:<30} " + (f'"{each}"' if isinstance(each, str) else str(each)) for key, each in pairs]
        info = transcripts()["007_show"].objects[0]["model_info"]
        parameters: Json = {"parameters": "\n".join(lines)} if lines else {}
        return {
            **parameters,
            "modelfile": f"# FROM {model.name}\n\nFROM /usr/lib/ollama/models/blobs/sha256-{model.weights}\n",
            "template": model.template,
            **({"system": model.system} if model.system else {}),
            "details": model.details,
            "model_info": {**info, "llama.context_length": model.length},
            "capabilities": list(model.capabilities),
            "modified_at": time_of(model.modified),
        }

    def ps(self) -> Json:
        """What is in memory now."""
        now = time.time()
        self.loaded = {key: each for key, each in self.loaded.items() if each.expires > now}
        rows = [(self.models[key], each) for key, each in self.loaded.items() if key in self.models]
        return {
            "models": [
                {
                    "name": full(m.name),
                    "model": full(m.name),
                    "size": 209505483,
                    "digest": m.digest,
                    "details": m.details,
                    "expires_at": time_of(each.expires),
                    "size_vram": 0,
                    "context_length": each.num_ctx,
                }
                for m, each in rows
            ]
        }

    # -- making models

    def has_blob(self, digest: str) -> bool:
        """Whether the blob is there; 400 for an invalid digest."""
        if not re.fullmatch(r"sha256[:-][0-9a-f]{64}", digest):
            raise Refused(400, "invalid digest format")
        return digest in self.blobs

    def take_blob(self, digest: str, data: bytes) -> None:
        """Store a blob; 400 when its bytes do not have that digest."""
        got = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if got != digest:
            raise Refused(400, f'digest mismatch, expected "{digest}", got "{got}"')
        self.blobs[digest] = data

    def create(self, asked: Json) -> Iterator[Json]:
        """The lines of the response; the last one is success or an error."""
        model = Model(str(asked.get("model") or asked.get("name")), parent=asked.get("from") or "")
        if asked.get("from"):
            base = self.models.get(full(asked["from"]).lower())
            if base is None:
                yield {"status": "pulling manifest"}
                yield {"error": f'pull model manifest: Get "{self._manifest(asked["from"])}": {NO_NETWORK}'}
                return
            model.parameters, model.template = dict(base.parameters), base.template
            model.file, model.length, model.weights = base.file, base.length, base.weights
        else:
            yield {"status": "parsing GGUF"}
            digest = next(iter((asked.get("files") or {}).values()))
            problem = self._gguf(digest, model)
            if problem is not None:
                yield {"error": problem}
                return
            model.weights = digest.removeprefix("sha256:")
            yield {"status": "verifying conversion"}
            yield {"status": f"using existing layer {digest}"}
            yield {"status": "using autodetected template chatml"}
            model.parameters = {"stop": ["<|im_start|>", "<|im_end|>"]}
            yield from self._layers(asked)
        model.parameters |= asked.get("parameters") or {}
        model.template = asked.get("template") or model.template
        model.system = asked.get("system") or ""
        model.capabilities = ("completion", "tools") if ".Tools" in model.template else ("completion",)
        model.digest = hashlib.sha256(repr((model.name, model.parameters, model.template)).encode()).hexdigest()
        yield {"status": "writing manifest"}
        self.add(model)
        yield {"status": "success"}

    def _layers(self, asked: Json) -> Iterator[Json]:
        given = [asked[key] for key in ("system", "parameters") if asked.get(key)]
        for each in given:
            yield {"status": f"creating new layer sha256:{hashlib.sha256(repr(each).encode()).hexdigest()}"}
        if not given:
            yield {"status": f"using existing layer sha256:{hashlib.sha256(b'params').hexdigest()}"}

    def _gguf(self, digest: str, model: Model) -> str | None:
        """What is wrong with the GGUF file; None for nothing."""
        blob = self.blobs.get(digest)
        if blob is None:
            path = f"/usr/lib/ollama/models/blobs/{digest.replace(':', '-')}"
            return f"open {path}: no such file or directory"
        if not blob.startswith(GGUF):
            return "supplied file was not in GGUF format"
        if len(blob) > REAL_BYTES:
            self.folder.mkdir(exist_ok=True)
            model.file = self.folder / f"{digest.removeprefix('sha256:')}.gguf"
            model.file.write_bytes(blob)
        return None

    def close(self) -> None:
        """Remove its files."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @staticmethod
    def _manifest(name: str) -> str:
        model, _, tag = full(name).rpartition(":")
        return f"{REGISTRY}/{model}/manifests/{tag}"

    def pull(self, name: str) -> Iterator[Json]:
        """The lines of the response; those about progress are from Ollama's source, not recorded."""
        yield {"status": "pulling manifest"}
        model = self.registry.get(full(name).lower())
        if model is None:
            yield {"error": f'pull model manifest: Get "{self._manifest(name)}": {NO_NETWORK}'}
            return
        digest = f"sha256:{model.digest}"
        for completed in range(0, model.size + 1, max(1, model.size // 4)):
            part: dict[str, Any] = {"completed": completed} if completed else {}
            yield {"status": f"pulling {model.digest[:12]}", "digest": digest, "total": model.size, **part}
        yield {"status": "verifying sha256 digest"}
        yield {"status": "writing manifest"}
        self.add(model)
        yield {"status": "success"}

    def copy(self, source: str, destination: str) -> None:
        """Copy a model; 404 when it is not there."""
        model = self.find(source)
        self.add(Model(destination, model.parameters, model.capabilities, model.system, template=model.template))

    def delete(self, name: str) -> None:
        """Delete a model; 404 when it is not there."""
        self.find(name)
        gone = self.models.pop(full(name).lower())
        self.loaded.pop(full(name).lower(), None)
        if not any(each.weights == gone.weights for each in self.models.values()):
            self.blobs.pop(f"sha256:{gone.weights}", None)
