"""The engines: GPUs, programs, daemons and servers of others, models of the hub, memory. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from app.doctor.diagnosis import Says, error, ok, warn
from app.doctor.facts import SHM, AttachedFacts, MachineFacts, ProgramFacts
from backends.huggingface.cache import in_words


def gpu(facts: MachineFacts) -> Says:
    """NVIDIA's driver, as NVML reports it."""
    seen = facts.gpu
    config = facts.config.config
    runs = {name: each.as_managed() for name, each in config.backends.items()} if config is not None else {}
    named = [name for name, run in runs.items() if run is not None and run.named_devices]
    if seen.gpus:
        listed = ", ".join(
            f"{index} {name} ({in_words(used)} of {in_words(memory)} used)" for index, name, memory, used in seen.gpus
        )
        yield ok(f"driver {seen.driver}, CUDA {seen.cuda}: {listed}")
        if seen.hidden:
            yield warn(
                f"CUDA_VISIBLE_DEVICES hides {seen.hidden} of them", "Unset it, or name those that are to serve."
            )
    for index, reason in seen.lost:
        yield warn(
            f"GPU {index} does not answer: {reason}",
            "Look into the kernel's log (dmesg, Xid), and restart the machine.",
        )
    if seen.gpus or seen.lost:
        return
    if seen.has_devices and seen.trouble is not None:
        yield warn(
            f"there are NVIDIA's devices, and NVML does not answer ({seen.trouble})",
            "Load or reinstall the driver (nvidia-smi must work), or restart after an update of it; in a container "
            "--gpus all.",
        )
    elif named:
        yield error(
            f"no GPU is to be seen, and {', '.join(named)} names `devices`",
            "Install NVIDIA's driver, start the container with --gpus all, or leave `devices` out to run on the CPU.",
        )
    elif seen.has_others:
        yield ok("there are accelerators of another maker; which engine has them is not the gateway's to say")
    else:
        yield ok("none: engines compute on the CPU")


def programs(facts: MachineFacts) -> Says:
    """What engines are started with, and its version."""
    lacking = [file for file, is_there in facts.libraries.items() if not is_there]
    for each in facts.programs:
        yield from _program(each, lacking)


def _program(each: ProgramFacts, lacking: Sequence[str]) -> Says:
    if each.backend is None:
        version = f" {each.version}" if each.version else ""
        where = f"{each.what}{version}: {each.path}" if each.path else f"{each.what}: not installed"
        yield ok(f"{where} (no backend uses it)")
        return
    name = f"backends.{each.backend}"
    if each.path is None and each.trouble is not None:
        is_known = any(file in each.trouble for file in lacking)
        again = f"Install it anew (pip install --force-reinstall {each.command})."
        yield error(
            f"{name}: {each.what} cannot be loaded: {each.trouble}".rstrip("."),
            "Install what `libraries` names." if is_known else again,
        )
    elif each.path is None:
        what = "is not a program that can be run" if each.is_file else "is not there"
        yield error(
            f"{name}: '{each.command}' {what}",
            f"Install {each.what} in an environment of its own, and name its program under `command`.",
        )
    elif each.trouble is not None and each.is_mute:
        yield warn(
            f"{name}: the version of {each.path} is not known: {each.trouble}".rstrip("."),
            f"Where it should be {each.what}, start it by hand to see what it waits for.",
        )
    elif each.trouble is not None:
        yield error(
            f"{name}: {each.path} does not work: {each.trouble}".rstrip("."), f"Install {each.what} anew, and try it."
        )
    elif each.flaw is not None:
        what, fix = _advised(each.flaw)
        yield warn(f"{name}: {what}", fix)
    else:
        yield ok(f"{name}: {each.what} {each.version} ({each.path})")


def _advised(flaw: str) -> tuple[str, str]:
    """What is wrong, and what to do: the last sentence where there are several."""
    what, is_cut, fix = flaw.rstrip(".").rpartition(". ")
    return (what, f"{fix}.") if is_cut else (fix, "Install a newer version.")


def attached(facts: MachineFacts) -> Says:
    """Daemons and servers that somebody else runs, asked as the gateway asks them."""
    for each in facts.attached:
        yield from _attached(each)
    if not facts.attached:
        yield ok("no backend is somebody else's")


def _attached(each: AttachedFacts) -> Says:
    name = f"backends.{each.backend}"
    if not each.is_up and each.is_implied:
        yield ok(f"no Ollama daemon at {each.where}, and none is configured")
    elif not each.is_up:
        yield error(
            f"{name}: nothing serves at {each.where}: {each.reason or 'it is not up'}".rstrip("."),
            "Start it, or correct its address; `modelport status` shows when it is there.",
        )
    elif each.flaw is not None:
        what, fix = _advised(each.flaw)
        yield warn(f"{name}: {what}", fix)
    else:
        version = f" version {each.version}" if each.version else ""
        models = f", models: {each.models}" if each.models is not None else ""
        yield ok(f"{name}: {each.where} answers{version}{models}")


def hub(facts: MachineFacts) -> Says:
    """Models of the Hugging Face hub: whether they are here, and whether they can come. The hub is not asked."""
    for each in facts.hub:
        name = f"backends.{each.backend}: {each.model}"
        if each.is_here:
            yield ok(f"{name} is in the cache")
        elif each.is_offline:
            yield error(
                f"{name} is not in the cache, and HF_HUB_OFFLINE forbids its download",
                "Download it once without that variable, or name a folder as `model`.",
            )
        else:
            token = "with a token" if each.has_token else "without a token: gated models refuse that"
            yield ok(f"{name} is downloaded at its first start, {token}")
    if not facts.hub:
        yield ok("no backend takes a model from it")


def memory(facts: MachineFacts) -> Says:
    """What `modelport plan` says: whether each engine fits."""
    plan = facts.plan
    if plan is None:
        yield ok("not known without a configuration" if facts.config.config is None else "not known")
        return
    for seat in plan.seats:
        notes = [note for note in seat.notes if SHM not in note]
        if not seat.is_possible and notes:
            what, fix = _told(notes[0])
            yield error(f"backends.{seat.backend}: {what}", fix)
        elif not seat.fits and notes:
            yield ok(f"backends.{seat.backend}: {notes[0].partition(':')[0]}: it takes turns with the others")
    if all(seat.is_possible for seat in plan.seats):
        count = len(plan.seats)
        yield ok(f"{plan.memory_gb:.1f} GB, engines of ours: {count}")


def _told(note: str) -> tuple[str, str]:
    """A note of the plan as what is so and what to do; its sentences have the advice behind `; ` or `: set`."""
    what, _, advice = note.rstrip(".").partition("; ")
    if not advice:
        what, is_cut, setting = what.partition(": set ")
        advice = f"set {setting}" if is_cut else "take a smaller model or a shorter context"
    return what, f"{advice[:1].upper()}{advice[1:]}."
