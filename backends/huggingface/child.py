"""The process that downloads models from the Hugging Face hub into the cache on this machine, and then ends.

Started by path with `python -I`. What to download comes as JSON, one object for each argument (`Want`); a token comes
by environment, never by argument. It prints lines: `downloaded N of M bytes[, checked K]`, and in the end `complete` or
`failed: SENTENCE`. The commit and the files of each model are written to the file that its `pin` names.

Files of more than a few megabytes are resumed where an earlier process ended: huggingface_hub itself begins each file
anew. They are put where it looks for them, and it links them into the snapshot.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[2]))  # behind everything that is installed

from backends.huggingface.cache import (
    IS_COMMIT,
    PART,
    File,
    Pin,
    folder_of,
    have_bytes,
    in_words,
    is_harmless,
    is_whole,
    needed,
    remember,
)

AT_ONCE = 4  # files
LOOK_S = 0.5  # between looks at how much is here
REPORT_S = 5.0  # between two lines about the same percentage
PIECE_BYTES = 1024 * 1024
LARGEST_BYTES = 50 * 1000**3  # what the hub sends in one answer; above it only its own protocol can


class Failed(Exception):
    """Why the download failed: a sentence for the operator, with the remedy."""


@dataclass(frozen=True)
class Want:
    """One repository to download. `commit`: the one that it is pinned to, None before it was looked up; `pin`: the file
    into which commit and files are written.
    """

    model: str
    revision: str | None
    commit: str | None
    pin: str


@dataclass(frozen=True)
class ResolvedModel:
    """A repository at one commit, with the files that are needed of it."""

    want: Want
    commit: str
    files: tuple[File, ...]


class Download:
    """The download of everything that is wanted."""

    def __init__(self, wants: Sequence[Want], cache: Path) -> None:
        self._wants = wants
        self._cache = cache
        self._reported = (-1, -1, 0.0)  # percent downloaded, percent checked, when
        self._checked: dict[Path, int] = {}  # bytes by file: each is written by one thread
        self._since = time.time()

    def run(self) -> None:
        """Look everything up, wait for processes that download the same, check the disk, download, write the pins.

        Raises Failed.
        """
        models = [self._look_up(want) for want in self._wants]
        with contextlib.ExitStack() as stack:
            for name in sorted({model.want.model for model in models}):
                self._lock(stack, name, models)
            self._check_disk(models)
            files = [(model, file) for model in models for file in model.files]
            with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
                doing = {pool.submit(self._download, model, file) for model, file in files}
                try:
                    while doing:
                        done, doing = concurrent.futures.wait(doing, LOOK_S, concurrent.futures.FIRST_COMPLETED)
                        for one in done:
                            one.result()
                        self._report(models)
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
        for model in models:
            folder = folder_of(self._cache, model.want.model)
            with contextlib.suppress(OSError):
                # A list of all files of the repository: with it huggingface_hub takes those that are not needed for
                # missing.
                (folder / "trees" / f"{model.commit}.json").unlink()
            at = folder / "snapshots" / model.commit
            sizes = {file.path: (at / file.path).stat().st_size for file in model.files}
            _write_pin(Pin(model.want.model, model.want.revision, model.commit, sizes), Path(model.want.pin))

    def _look_up(self, want: Want) -> ResolvedModel:
        from huggingface_hub import HfApi

        try:
            with _translated(want):
                info = HfApi().model_info(
                    want.model, revision=want.commit or want.revision, files_metadata=True, timeout=30
                )
        except Failed:
            cached = _in_cache(self._cache, want)
            if cached is None:
                raise
            print("the hub does not answer as it should; what is here is complete", flush=True)
            return cached
        files = {
            one.rfilename: File(
                one.rfilename,
                one.size or 0,
                (one.lfs.sha256 if one.lfs is not None else one.blob_id) or "",
                one.lfs.sha256 if one.lfs is not None else None,
            )
            for one in info.siblings or ()
        }
        if info.sha is None or not IS_COMMIT.fullmatch(info.sha):
            raise Failed(f"the hub does not say which commit of '{want.model}' it has")
        chosen = tuple(files[path] for path in needed(list(files)))
        for file in chosen:
            if not is_harmless(file):
                raise Failed(
                    f"the hub names {file.path!r} as a file of '{want.model}', which is not a path inside a model"
                )
        return ResolvedModel(want, info.sha, chosen)

    def _lock(self, stack: contextlib.ExitStack, name: str, models: Sequence[ResolvedModel]) -> None:
        """Only one process at a time downloads a model; others wait, and report what it does."""
        path = self._cache / ".locks" / folder_of(self._cache, name).name / "modelport.lock"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file: IO[str] = stack.enter_context(path.open("w"))
            while not _is_locked(file):
                self._report(models)
                time.sleep(LOOK_S)
        except OSError as exc:
            if exc.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise

    def _check_disk(self, models: Sequence[ResolvedModel]) -> None:
        missing = sum(file.size_bytes for model in models for file in model.files) - self._here_bytes(models)
        free = shutil.disk_usage(self._cache).free
        if missing > free:
            raise Failed(
                f"the disk is too full: {models[0].want.model!r} needs {in_words(missing)} more, and {in_words(free)} "
                "are free where the hub's cache is: make room, or name a folder on a larger disk with "
                "`env: {HF_HOME: …}` of the backend"
            )

    def _here_bytes(self, models: Sequence[ResolvedModel]) -> int:
        return sum(
            have_bytes(folder_of(self._cache, model.want.model), model.commit, file, self._since)
            for model in models
            for file in model.files
        )

    def _report(self, models: Sequence[ResolvedModel]) -> None:
        """Print how far it is, when that has changed by a percent or not been printed for a while."""
        total = sum(file.size_bytes for model in models for file in model.files)
        here = self._here_bytes(models)
        checked = sum(list(self._checked.values()))
        percents = here * 100 // max(total, 1), checked * 100 // max(total, 1)
        if self._reported[:2] != percents or time.monotonic() - self._reported[2] >= REPORT_S:
            self._reported = (*percents, time.monotonic())
            print(f"downloaded {here} of {total} bytes" + (f", checked {checked}" if checked else ""), flush=True)

    def _download(self, model: ResolvedModel, file: File) -> None:
        from huggingface_hub import hf_hub_download

        folder = folder_of(self._cache, model.want.model)
        pointer = folder / "snapshots" / model.commit / file.path
        with _translated(model.want):
            with contextlib.suppress(OSError):
                if pointer.stat().st_size != file.size_bytes:
                    pointer.unlink()
                    (folder / "blobs" / file.blob).unlink()
            if file.sha256 is not None and not pointer.exists() and 0 < file.size_bytes < LARGEST_BYTES:
                _fetch(model, file, folder / "blobs" / file.blob, self._checked)
            hf_hub_download(model.want.model, file.path, revision=model.commit, cache_dir=self._cache)


def _fetch(model: ResolvedModel, file: File, blob: Path, checked: dict[Path, int]) -> None:
    """Download the file to `blob`, from where an earlier process ended. `checked`: bytes whose digest was computed."""
    from huggingface_hub import hf_hub_url

    if blob.exists():
        return
    url = hf_hub_url(model.want.model, file.path, revision=model.commit)
    part = blob.with_name(blob.name + PART)
    blob.parent.mkdir(parents=True, exist_ok=True)
    for is_last in (False, True):
        here = min(part.stat().st_size if part.exists() else 0, file.size_bytes)
        with part.open("r+b" if part.exists() else "w+b") as to:
            to.truncate(here)
            to.seek(here)
            _append(url, to, here, file.size_bytes)
        if _digest(part, checked) == file.sha256:
            break
        part.unlink()
        if is_last:
            raise Failed(f"the file {file.path!r} of '{model.want.model}' arrives broken from the hub: try again later")
    part.replace(blob)


def _append(url: str, to: BinaryIO, here: int, size_bytes: int) -> None:
    """The rest of a file, of which `here` bytes are written already.

    huggingface_hub has nothing public that goes on with a file: its members that are used here may change with any
    release (tests/unit/house/test_declared_edges.py).
    """
    from huggingface_hub import constants
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils._headers import build_hf_headers

    constants.DOWNLOAD_CHUNK_SIZE = PIECE_BYTES  # what is lost when this process is killed
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    http_get(url, to, resume_size=here, headers=headers, expected_size=size_bytes)


def _digest(path: Path, checked: dict[Path, int]) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
            checked[path] = checked.get(path, 0) + len(piece)
    return digest.hexdigest()


def _write_pin(pin: Pin, path: Path) -> None:
    try:
        remember(pin, path)
    except OSError as exc:
        text = f"the model '{pin.model}' is here, but its list of files cannot be written to the state folder"
        raise Failed(f"{text} {path.parent.parent} ({exc.strerror}): make room there and start it again") from exc


def _is_locked(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _in_cache(cache: Path, want: Want) -> ResolvedModel | None:
    """The model as the cache has it, when that looks whole: for a machine without a network. None otherwise."""
    folder = folder_of(cache, want.model)
    commit = want.commit or want.revision or "main"
    if not IS_COMMIT.fullmatch(commit):
        try:
            commit = (folder / "refs" / commit).read_text().strip()
        except OSError:
            return None
    snapshot = folder / "snapshots" / commit
    sizes = {str(path.relative_to(snapshot)): path for path in snapshot.rglob("*") if path.is_file()}
    files = tuple(File(name, sizes[name].stat().st_size, sizes[name].resolve().name, None) for name in needed([*sizes]))
    return ResolvedModel(want, commit, files) if is_whole(snapshot, [file.path for file in files]) else None


@contextlib.contextmanager
def _translated(want: Want) -> Iterator[None]:
    """Raise Failed, in our words, for what the library raises; its own text holds addresses."""
    import httpx2
    from huggingface_hub import errors

    name, token = f"'{want.model}'", "`env: {HF_TOKEN: …}` of the backend"
    try:
        yield
    except errors.GatedRepoError as exc:
        text = f"the model {name} is gated: ask for access on its page on the hub, and put a token with it into {token}"
        raise Failed(text) from exc
    except errors.RevisionNotFoundError as exc:
        revision = want.commit or want.revision or "main"
        raise Failed(f"the hub has the model {name}, but not the revision '{revision}': check `revision`") from exc
    except errors.RepositoryNotFoundError as exc:
        text = f"the hub has no model {name}, or it is private: check `model`; a private one needs a token in {token}"
        raise Failed(text) from exc
    except errors.HFValidationError as exc:
        raise Failed(f"{name} is neither a folder here nor the name of a model on the hub: check `model`") from exc
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError, httpx2.HTTPError) as exc:
        raise Failed(_http_failure(name, token, exc)) from exc
    except OSError as exc:
        if exc.errno in (errno.ENOSPC, errno.EDQUOT):
            text = f"the disk became full while {name} was downloaded: make room, and it continues from there"
            raise Failed(text) from exc
        if exc.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            raise Failed(
                "the folder of the hub's cache cannot be written: see `env: {HF_HOME: …}` of the backend"
            ) from exc
        raise Failed(f"the download of {name} was interrupted ({type(exc).__name__}); it continues from there") from exc


def _http_failure(name: str, token: str, exc: Exception) -> str:
    status = next((code for one in (exc, exc.__cause__) if (code := _status(one)) is not None), None)
    if status in (401, 403):
        return f"the hub refuses the token for {name} (status {status}): put one that may read it into {token}"
    if status is not None:
        return f"the hub answers with status {status} when asked for {name}: try again later"
    return (
        f"the model {name} is not complete on this machine, and the hub cannot be reached ({type(exc).__name__}): "
        "check the network, or copy the model here and name its folder as `model`"
    )


def _status(exc: BaseException | None) -> int | None:
    status = getattr(getattr(exc, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def main(argv: Sequence[str], env: Mapping[str, str]) -> int:
    """Download what the arguments say: `child.py WANT…`. Returns the exit code."""
    wants = [Want(**_checked(json.loads(word))) for word in argv]
    try:
        cache = Path(env["HF_HUB_CACHE"])
        cache.mkdir(parents=True, exist_ok=True)
        Download(wants, cache).run()
    except Failed as exc:
        print(f"failed: {exc}", flush=True)
        return 1
    except OSError as exc:
        print(f"failed: the hub's cache cannot be used: {exc.strerror or type(exc).__name__}", flush=True)
        return 1
    print("complete", flush=True)
    return 0


def _checked(want: dict[str, Any]) -> dict[str, Any]:
    return {name: want.get(name) for name in ("model", "revision", "commit", "pin")}


if __name__ == "__main__":
    code = main(sys.argv[1:], os.environ)
    sys.stdout.flush()
    os._exit(code)  # whatever is still being downloaded
