"""The entries of a registration in the configuration file: which may be written, and the text with them. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from app.config.yaml_document import parse
from app.config.yaml_edit import remove_entry, set_entry
from app.registration.journal import Made
from app.registration.order import ConfigEntry

_LEADS: Final = ("kind", "model", "url", "backend", "targets")  # what says where an entry leads


def tree_of(text: str) -> dict[str, Any]:
    """The configuration as it is written: `${NAME}` is not filled in. ConfigError where it is no YAML."""
    return parse(text, {}, is_lenient=True).tree


def at(tree: Any, keys: Sequence[str]) -> Any:
    """The value at a path of keys; None where there is none."""
    for key in keys:
        tree = tree.get(key) if isinstance(tree, Mapping) else None
    return tree


def is_ours(made: Sequence[Made], keys: Sequence[str], there: Any) -> bool:
    """Whether the registration made what is `there` at this path, whatever the user has added to it since."""
    return any(each.what == "entry" and each.keys == tuple(keys) and _is_same(each.value, there) for each in made)


def _is_same(made: Any, there: Any) -> bool:
    """Whether an entry leads where the one that was made leads: the same engine and the same model."""
    if isinstance(made, Mapping) and isinstance(there, Mapping):
        return all(made.get(key) == there.get(key) for key in _LEADS)
    return bool(made == there)


def conflicts(tree: Mapping[str, Any], entries: Sequence[ConfigEntry], made: Sequence[Made]) -> list[str]:
    """Each entry that is in the file already and is not the registration's own, by its place."""
    problems = []
    for entry in entries:
        there = at(tree, entry.keys)
        if there is None or (entry.is_shared and there == entry.value) or is_ours(made, entry.keys, there):
            continue
        problems.append(".".join(entry.keys))
    return problems


def taken(tree: Mapping[str, Any], name: str, made: Sequence[Made]) -> str | None:
    """What has this public name already, other than the registration itself: the place in the file; None: nothing."""
    models = at(tree, ("models",)) or {}
    if name in models and not is_ours(made, ("models", name), models[name]):
        return f"models.{name}"
    for public, model in models.items():
        if isinstance(model, Mapping) and name in (model.get("aliases") or ()):
            return f"models.{public}.aliases"
    for backend, settings in (at(tree, ("backends",)) or {}).items():
        keys = ("backends", str(backend), "adapters", name)
        adapters = settings.get("adapters") if isinstance(settings, Mapping) else None
        if not isinstance(adapters, Mapping) or name not in adapters:
            continue
        if not is_ours(made, keys, adapters[name]) and not is_ours(made, keys[:2], settings):
            return ".".join(keys)
    return None


def with_entries(text: str, entries: Sequence[ConfigEntry], made: Sequence[Made]) -> tuple[str, list[Made]]:
    """The text with the entries, without those that the registration made before and does not need any more, and what
    of it is the registration's own now. An entry that is there as it is to be stays as it is written, with what the
    user has added to it. ConfigError where the file cannot be edited.
    """
    own: list[Made] = []
    before = {each.keys: each for each in made if each.what == "entry"}
    wanted = {entry.keys for entry in entries}
    for entry in entries:
        there = at(tree_of(text), entry.keys)
        mine = before.get(entry.keys)
        is_as_made = mine is not None and mine.value == entry.value and _is_same(entry.value, there)
        if there != entry.value and not is_as_made:
            text = set_entry(text, entry.keys, entry.value)
        if mine is not None or there is None or not entry.is_shared:
            own.append(Made(what="entry", keys=entry.keys, value=entry.value))
    # Last, so that nothing refers to them any more.
    gone = [keys for keys in before if not any(keys == other[: len(keys)] for other in wanted)]
    return without(text, [before[keys] for keys in gone])[0], own


def without(text: str, made: Sequence[Made]) -> tuple[str, list[str]]:
    """The text without these entries of a registration, models first, and a sentence for each that stays because others
    use it, or because somebody wrote another one in its place. ConfigError where the file cannot be edited.
    """
    kept = []
    entries = [each for each in made if each.what == "entry"]
    for each in sorted(entries, key=lambda one: (one.keys[0] != "models", -len(one.keys))):
        there = at(tree_of(text), each.keys)
        if there is None:
            continue
        if not is_ours(entries, each.keys, there):
            line = f"{'.'.join(each.keys)} stays: it is not what was registered any more"
            kept += [line] if line not in kept else []
            continue
        own = (each.value.get("adapters") or {}) if isinstance(each.value, Mapping) else {}
        users = _users(tree_of(text), each.keys, own)
        if users:
            kept.append(f"{'.'.join(each.keys)} stays: {', '.join(users)} uses it")
            for name in own:
                text = remove_entry(text, (*each.keys, "adapters", name))
            continue
        text = remove_entry(text, each.keys)
        if len(each.keys) == 4 and at(tree_of(text), each.keys[:3]) in ({}, None):
            text = remove_entry(text, each.keys[:3])
    return text, kept


def _users(tree: Mapping[str, Any], keys: Sequence[str], own: Collection[str]) -> list[str]:
    """The public names that need the entry at this path; `own`: adapters that came with it."""
    if len(keys) != 2 or keys[0] != "backends":
        return []
    names = []
    for name, model in (at(tree, ("models",)) or {}).items():
        settings = model if isinstance(model, Mapping) else {}
        targets = [settings, *(settings.get("targets") or ())]
        if any(isinstance(target, Mapping) and target.get("backend") == keys[1] for target in targets):
            names.append(f"models.{name}")
    adapters = at(tree, (*keys, "adapters")) or {}
    return [*names, *(f"{'.'.join(keys)}.adapters.{name}" for name in adapters if name not in own)]
