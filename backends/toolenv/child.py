"""Work in a tool environment: a script with a request on standard input, and JSON lines on standard output."""

from __future__ import annotations

import json
import os
import signal
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from backends.process.exit_reasons import KILLED, exit_in_words, signal_of
from backends.process.process import inherited
from backends.toolenv import guarded
from backends.toolenv.failures import ToolError, shortened

_TAIL_LINES: Final = 40
# A tool works on files that are here; whatever must be fetched is fetched before it.
_OFFLINE: Final = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "DO_NOT_TRACK": "1",
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MPLBACKEND": "agg",
}


def call(
    python: Path,
    script: Path,
    request: Mapping[str, Any],
    on_progress: Callable[[Mapping[str, Any]], None] | None = None,
    *,
    env: Mapping[str, str] | None = None,
) -> Any:
    """Run `python -I -u script` with the request as JSON on its standard input; returns what it says as its result.

    The script prints one JSON object a line: `{"progress": {…}}` as often as it likes, then `{"result": …}` or
    `{"error": "sentence"}`. Lines that are nothing of the sort (libraries print what they like) are passed over.
    ToolError: the script's own sentence; else why it ended, with the last line of its standard error.

    It has none of our secrets in its environment, and is offline; `env` comes on top. It ends with this process.
    """
    printed: deque[str] = deque(maxlen=_TAIL_LINES)
    answer: dict[str, Any] = {}

    def on_line(line: bytes) -> bool:
        said = _message(line)
        if said is None:
            printed.append(line[:4096].decode(errors="replace"))
        elif "progress" in said and not answer:
            if on_progress is not None and isinstance(said["progress"], dict):
                on_progress(said["progress"])
        elif not answer:
            answer.update(said)
        return bool(answer)

    code = guarded.run(
        [str(python), "-I", "-u", str(script)],
        {**inherited(os.environ), **_OFFLINE, "MPLCONFIGDIR": str(python.parent.parent / "cache"), **(env or {})},
        on_line,
        lambda line: printed.append(line.decode(errors="replace")),
        json.dumps(request).encode(),
    )
    if "error" in answer:
        raise ToolError(str(answer["error"]))
    if "result" not in answer:
        raise ToolError(_failure(script, code, list(printed)))
    return answer["result"]


def _message(line: bytes) -> dict[str, Any] | None:
    """The message on this line; None where it is none."""
    if not line.startswith(b"{"):
        return None
    try:
        said = json.loads(line)
    except ValueError:
        return None
    return said if isinstance(said, dict) and said.keys() & {"progress", "result", "error"} else None


def _failure(script: Path, code: int, printed: list[str]) -> str:
    """Why there is no result, in one sentence."""
    why = KILLED if signal_of(code) == signal.SIGKILL else exit_in_words(code, ())
    last = next((shortened(line) for line in reversed(printed) if line.strip()), "")
    return f"{script.stem} gave no result: {why}{f' ({last})' if last else ''}"
