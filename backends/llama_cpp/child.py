"""The process of the embedded engine: llama.cpp's own HTTP server with one model, until its guard ends it.

Started by path with `python -I`; of ours it imports the door to the process that tells how likely prompts are
(likelihood/door.py), which needs the standard library only. The key comes by environment, never by argument.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from pathlib import Path

KEY_VARIABLE = "MODELPORT_ENGINE_KEY"
_HEAD_BYTES = 1024 * 1024
# As much as it computes in one piece anyway: after each piece its counters move, and other requests get a token.
_BATCH_TOKENS = 512
_WHOLE_BATCH_TOKENS = 2048
_NO_GPU = dict.fromkeys(("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "GGML_VK_VISIBLE_DEVICES"), "")
_ENDINGS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--model", required=True)
    parser.add_argument("--alias", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--slots", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--http-threads", type=int, required=True)
    parser.add_argument("--context", type=int, default=0, help="tokens over all slots; 0: the model's own")
    parser.add_argument("--chat-template", default="", help="a Jinja file in place of the model's own template")
    parser.add_argument("--gpu-layers", type=int, default=0)
    parser.add_argument("--cache-mib", type=int, default=0, help="host memory for prompts of earlier requests")
    parser.add_argument("--embed", action="store_true")
    parser.add_argument("--rerank", action="store_true")
    parser.add_argument("--likelihood-port", type=int, default=0, help="where the likelihood of prompts is asked for")
    parser.add_argument("--first-byte", type=float, default=600, help="seconds that whoever asks there waits")
    return parser.parse_args(argv)


def _obey_the_guard_only() -> None:
    """End when the guard sends TERM, and only then.

    A service manager sends TERM to every process of the group at once; an engine that ends by that breaks the streams
    that the supervisor is still draining. So the sender counts. Where the system does not name it, any TERM ends us.
    """
    while True:
        if hasattr(signal, "sigwaitinfo"):
            info = signal.sigwaitinfo(_ENDINGS)
            number, sender = info.si_signo, info.si_pid
        else:
            number, sender = signal.sigwait(_ENDINGS), os.getppid()
        if number == signal.SIGTERM and sender == os.getppid():
            os._exit(0)


def _says_how_to_pool(model: str) -> bool:
    """Whether the file says how token vectors become one vector; models that write text do not. It stands in the file's
    head.
    """
    with open(model, "rb") as file:  # noqa: PTH123
        return b".pooling_type" in file.read(_HEAD_BYTES)


def _open_likelihood(arguments: argparse.Namespace, key: str) -> None:
    """Listen for those who want to know how likely prompts are. That is computed on the CPU."""
    sys.path.append(str(Path(__file__).parents[2]))  # behind everything that is installed

    from backends.llama_cpp.likelihood import door

    listener = door.open_door(arguments.likelihood_port)
    context = arguments.context // arguments.slots
    options = [f"--model={arguments.model}", f"--alias={arguments.alias}", f"--threads={arguments.threads}"]
    env = {**os.environ, **_NO_GPU, KEY_VARIABLE: key}
    door.attend(listener, [*options, f"--context={context}"], env, door.patience(arguments.first_byte))


def main(argv: list[str]) -> None:
    """Load the model, serve it, and run until TERM."""
    arguments = _arguments(argv)
    # Before any other thread exists: they inherit the mask, and the waiting one then gets the signals.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDINGS)
    threading.Thread(target=_obey_the_guard_only, daemon=True).start()
    key = os.environ.pop(KEY_VARIABLE)
    if arguments.likelihood_port:
        _open_likelihood(arguments, key)

    import xllamacpp  # not before the threads' mask is set: it starts some

    params = xllamacpp.CommonParams()
    params.model.path = arguments.model
    params.model_alias = {arguments.alias}
    params.hostnames = ["127.0.0.1"]
    params.port = arguments.port
    params.reuse_port = False
    params.api_keys = [key]
    params.n_parallel = arguments.slots
    params.n_threads_http = arguments.http_threads
    params.n_ctx = arguments.context
    params.n_batch = _BATCH_TOKENS
    if arguments.chat_template:
        with open(arguments.chat_template, encoding="utf-8") as file:  # noqa: PTH123
            params.chat_template = file.read()
    params.n_gpu_layers = arguments.gpu_layers
    params.cpuparams.n_threads = arguments.threads
    params.cpuparams_batch.n_threads = arguments.threads
    if arguments.rerank or arguments.embed:
        params.n_batch = _WHOLE_BATCH_TOKENS
    if arguments.rerank:
        params.embedding = True
        params.n_ubatch = params.n_batch
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK
    if arguments.embed:
        params.embedding = True
        params.n_ubatch = params.n_batch  # an input is embedded in one piece
        if not _says_how_to_pool(arguments.model):
            params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    params.cache_ram_mib = arguments.cache_mib
    params.endpoint_metrics = True
    params.endpoint_slots = True
    params.endpoint_props = False
    params.ui = False
    server = xllamacpp.Server(params)
    print(f"listening on {server.listening_address}", flush=True)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main(sys.argv[1:])
