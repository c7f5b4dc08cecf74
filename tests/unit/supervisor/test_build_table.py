"""app/supervisor/relays/build_table.py."""

from __future__ import annotations

import dataclasses
import datetime

import msgspec
import pytest

from app.config.load import loads
from app.config.model import Config
from app.ipc import Publish, frame, from_supervisor
from app.keys import StoredKeys
from app.routing import resolve
from app.supervisor.relays.build_table import build
from app.table import Backend, Budget, Key, KeyLimits, Limits, Price, Rules, Table, Target, Wildcard
from backends.endpoint import State

DIGEST = "ab" * 32
TEXT = f"""
server:
  max_body_bytes: 2048
  hold_s: 3
  root_path: /llm
  cors_origins: [https://example.com]
backends:
  demo: {{kind: llama_cpp, model: /a.gguf}}
  cloud: {{kind: remote, url: "http://127.0.0.1:9/v1"}}
  ollama: {{kind: ollama}}
models:
  small: {{backend: demo, aliases: [tiny], fallbacks: [big]}}
  big:
    targets:
      - {{backend: cloud, model: vendor/big, weight: 9}}
      - {{backend: ollama, model: "big:q4"}}
    aliases: [large]
  whatever: {{backend: cloud, fallbacks: [large]}}
  qwen: {{backend: ollama, reasoning: split}}
  "*": {{backend: ollama}}
  "ollama/*": {{backend: ollama, reasoning: split_opened}}
keys:
  - {{name: office, sha256: {DIGEST}, models: [tiny, "ollama/*"], expires: 2027-01-01}}
default_model: tiny
pairs:
  sizes: {{tuned: large, base: tiny, theirs: ollama/x}}
"""


def config() -> Config:
    return loads(TEXT, {}, source="t")


def backend(name: str, kind: str, models: tuple[str, ...] | None) -> Backend:
    return Backend(name, kind, State.READY, models=models, is_strict=kind == "ollama")


def table(*backends: Backend) -> Table:
    return build(config(), {backend.name: backend for backend in backends}, 7, draining=True, created=5)


def test_public_names_carry_their_targets_and_fallbacks() -> None:
    models = table().models

    assert list(models) == ["small", "big", "whatever", "qwen"]
    assert models["small"].targets == (Target("demo", "small"),)
    assert models["small"].fallbacks == ("big",)
    assert models["big"].targets == (Target("cloud", "vendor/big", 9), Target("ollama", "big:q4", 1))


def test_what_becomes_of_thinking_is_told_of_every_name() -> None:
    ollama = backend("ollama", "ollama", None)
    made = build(config(), {"ollama": msgspec.structs.replace(ollama, is_strict=False)}, 7)
    resolved = {name: resolve(made, name) for name in ("big", "qwen", "other", "ollama/other")}

    assert {name: each and each.model.reasoning for name, each in resolved.items()} == {
        "big": "keep",
        "qwen": "split",
        "other": "keep",
        "ollama/other": "split_opened",
    }


def test_an_adapter_thinks_as_its_model_does() -> None:
    text = (
        "backends: {gpu: {kind: vllm, model: /m, adapters: {law: /l}}}\nmodels: {a: {backend: gpu, reasoning: split}}"
    )
    gpu = Backend("gpu", "vllm", State.READY, adapters={"law": None})

    assert build(loads(text, {}, source="t"), {"gpu": gpu}, 1).models["law"].reasoning == "split"


def test_aliases_become_the_names_they_stand_for_everywhere() -> None:
    made = table()

    assert made.aliases == {"tiny": "small", "large": "big"}
    assert made.models["whatever"].fallbacks == ("big",)
    assert made.default_model == "small"
    assert made.keys[0].models == ("small", "ollama/*")


def test_a_pair_keeps_the_order_of_the_file_and_has_public_names() -> None:
    assert list(table().pairs["sizes"].items()) == [("tuned", "big"), ("base", "small"), ("theirs", "ollama/x")]


def test_a_model_that_is_an_adapter_is_as_missing_as_the_adapter() -> None:
    config = loads(
        "backends: {gpu: {kind: vllm, model: /m, adapters: {law: /l}}}\nmodels: {a: {backend: gpu, model: law}}",
        {},
        source="t",
    )
    served = Backend("gpu", "vllm", State.READY, adapters={"law": None})
    refused = Backend("gpu", "vllm", State.READY, adapters={"law": "it does nothing"})

    good = build(config, {"gpu": served}, 1)
    bad = build(config, {"gpu": refused}, 2)

    assert [(target.backend, target.model) for target in good.models["a"].targets] == [("gpu", "law")]
    (target,) = bad.models["a"].targets
    assert (bad.backends[target.backend].state, bad.backends[target.backend].reason) == (
        State.FAILED,
        "it does nothing",
    )


def test_a_fallback_says_for_whom_it_is_and_an_adapter_may_be_the_default_model() -> None:
    text = """
backends: {gpu: {kind: vllm, model: /m, adapters: {law: /l}}}
models:
  a: {backend: gpu, fallbacks: [b, {model: bee, for: all}, {model: law, for: allowed}]}
  b: {backend: gpu}
  c: {backend: gpu, aliases: [bee]}
default_model: law
"""
    gpu = Backend("gpu", "vllm", State.READY, adapters={"law": None})

    made = build(loads(text, {}, source="t"), {"gpu": gpu}, 1)

    assert made.models["a"].fallbacks == ("b", "c", "law")
    assert made.models["a"].fallbacks_for_all == ("c",)
    assert made.default_model == "law"


def test_a_relay_is_told_of_no_more_connections_than_it_can_have() -> None:
    told = {most: build(config(), {}, 1, max_connections=most).limits.max_connections for most in (None, 10, 4096)}

    assert told == {None: 2048, 10: 10, 4096: 2048}


def test_a_relay_is_told_whether_other_machines_reach_it() -> None:
    assert build(config(), {}, 1, is_loopback=True).is_loopback
    assert not build(config(), {}, 1, is_loopback=False).is_loopback


def test_wildcards_come_longest_first() -> None:
    assert table().wildcards == (Wildcard("ollama/", "ollama", "split_opened"), Wildcard("", "ollama"))


def test_keys_carry_their_digest_role_and_end() -> None:
    end = datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC).timestamp()

    assert table().keys == (Key("office", DIGEST, ("small", "ollama/*"), "user", end, id="office"),)


def test_a_key_for_batches_is_one_in_the_table() -> None:
    night = Config.model_validate({"keys": [{"name": "night", "sha256": DIGEST, "priority": "batch"}]})

    assert build(night, {}, 1).keys == (Key("night", DIGEST, is_batch=True, id="night"),)


def test_a_key_carries_its_team_and_its_limits() -> None:
    entry = {
        "name": "office",
        "sha256": DIGEST,
        "team": "law",
        "rpm": 600,
        "max_parallel": 4,
        "budget": {"money": 20, "per": "month"},
    }

    made = build(Config.model_validate({"keys": [entry]}), {}, 1).keys

    limits = KeyLimits(rpm=600, max_parallel=4, budget=Budget(20.0, "money", "month"))
    assert made == (Key("office", DIGEST, id="office", team="law", limits=limits),)


def test_a_replaced_key_opens_the_same_until_it_ends() -> None:
    old = {"sha256": "b" * 64, "until": "2027-01-01"}
    until = datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC).timestamp()
    entry = {"name": "office", "sha256": DIGEST, "replaced": [old], "rpm": 5}

    made = build(Config.model_validate({"keys": [entry]}), {}, 1).keys
    ending = build(Config.model_validate({"keys": [{**entry, "expires": "2026-12-24"}]}), {}, 1).keys

    assert [(key.id, key.sha256, key.expires) for key in made] == [
        ("office", "b" * 64, until),
        ("office", DIGEST, None),
    ]
    assert made[0].limits == made[1].limits == KeyLimits(rpm=5)
    assert ending[0].expires == ending[1].expires


def test_keys_of_the_store_come_before_those_of_the_file_and_their_aliases_are_replaced() -> None:
    kept = Key("remote", "c" * 64, ("tiny", "ollama/*"), id="k1")

    made = build(config(), {}, 1, stored=StoredKeys((kept,)))

    assert [key.name for key in made.keys] == ["remote", "office"]
    assert made.keys[0].models == ("small", "ollama/*")
    assert not made.is_open


def test_a_gateway_is_open_only_where_there_is_no_key_and_none_is_asked_for() -> None:
    nobody = Config.model_validate({})

    assert build(nobody, {}, 1).is_open
    assert not build(nobody, {}, 1, stored=StoredKeys(is_closed=True)).is_open
    assert build(nobody, {}, 1, stored=StoredKeys(missing="the store is away")).keys_missing == "the store is away"
    assert [build(nobody, {}, 1, stored=StoredKeys(is_unread=unread)).keys_unread for unread in (True, False)] == [
        True,
        False,
    ]


def test_a_model_costs_what_the_file_says_and_its_adapters_the_same() -> None:
    text = """
backends: {gpu: {kind: vllm, model: /m, adapters: {law: /l}}, ollama: {kind: ollama}}
models:
  a: {backend: gpu, price: {input: 0.5, output: 1.5, cached: 0.1}}
  b: {backend: gpu}
  "o/*": {backend: ollama, price: {input: 2}}
"""
    gpu = Backend("gpu", "vllm", State.READY, adapters={"law": None})

    made = build(loads(text, {}, source="t"), {"gpu": gpu}, 1)

    assert made.models["a"].price == made.models["law"].price == Price(0.5, 1.5, 0.1)
    assert made.models["b"].price is None
    assert made.wildcards[0].price == Price(2.0, 0.0, None)


def test_the_bounds_and_the_rest_of_the_server_section_are_taken_over() -> None:
    made = table()

    assert made.limits == msgspec.structs.replace(Limits(), max_body_bytes=2048, hold_s=3.0)
    assert (made.root_path, made.cors_origins) == ("/llm", ("https://example.com",))
    assert (made.version, made.draining, made.created) == (7, True, 5)


@dataclasses.dataclass(frozen=True)
class Naming:
    """What a backend lists, and what it is then asked for."""

    public: str
    backend: Backend
    asked: str


NAMINGS = {
    "an embedded engine takes any name": Naming("small", backend("demo", "llama_cpp", ("a.gguf",)), "small"),
    "a remote server has one model": Naming("whatever", backend("cloud", "remote", ("vendor/x",)), "vendor/x"),
    "a remote server has several": Naming("whatever", backend("cloud", "remote", ("x", "y")), "whatever"),
    "a remote server has that name": Naming("whatever", backend("cloud", "remote", ("whatever",)), "whatever"),
    "a remote server did not say": Naming("whatever", backend("cloud", "remote", None), "whatever"),
    "a daemon has that name": Naming("qwen", backend("ollama", "ollama", ("qwen:latest", "x")), "qwen:latest"),
    "a daemon has only another": Naming("qwen", backend("ollama", "ollama", ("llama:latest",)), "qwen"),
}


@pytest.mark.parametrize("naming", NAMINGS.values(), ids=NAMINGS.keys())
def test_an_engine_is_asked_for_its_own_name(naming: Naming) -> None:
    made = table(naming.backend)

    assert made.models[naming.public].targets[0].model == naming.asked
    assert made.backends == {naming.backend.name: naming.backend}


def test_a_table_survives_the_way_to_a_relay() -> None:
    made = table(backend("cloud", "remote", ("x",)))

    assert from_supervisor.decode(frame(Publish(made))[4:]) == Publish(made)


def test_a_vllm_of_ours_is_asked_for_its_model_by_the_backends_name() -> None:
    text = "backends: {gpu: {kind: vllm, model: /m}}\nmodels: {a: {backend: gpu}, b: {backend: gpu, model: lora}}"
    row = backend("gpu", "vllm", None)

    models = build(loads(text, {}, source="t"), {"gpu": row}, 1).models

    assert models["a"].targets == (Target("gpu", "gpu"),)
    assert models["b"].targets == (Target("gpu", "lora"),)


def test_rules_are_the_models_and_adapters_and_wildcards_have_them_too() -> None:
    given = {
        "backends": {"gpu": {"kind": "vllm", "model": "org/m", "adapters": {"law": "/law"}}},
        "models": {
            "base": {
                "backend": "gpu",
                "normalize": "strict",
                "defaults": {"temperature": 0.5},
                "overrides": {"stop": ["x"]},
                "chat_template_kwargs": ["style"],
                "allowed_media_domains": ["Pictures.example"],
            },
            "g/*": {"backend": "gpu", "normalize": "lenient"},
        },
    }
    gpu = Backend("gpu", "vllm", State.READY, adapters={"law": None})

    table = build(Config.model_validate(given), {"gpu": gpu}, 1)

    rules = Rules("strict", {"temperature": 0.5}, {"stop": ["x"]}, ("style",), ("pictures.example",))
    assert table.models["base"].rules == table.models["law"].rules == rules
    assert table.wildcards[0].rules == Rules("lenient")


ROUTED = """
backends:
  vllm: {kind: vllm, model: /m, command: [vllm], replicas: 2, adapters: {law: /law}}
  twin: {kind: vllm, model: /m, command: [vllm]}
  demo: {kind: llama_cpp, model: /a.gguf, replicas: 3}
  cloud: {kind: remote, urls: ["http://127.0.0.1:9/v1", "http://127.0.0.1:8/v1"]}
models:
  replicas: {backend: vllm}
  embedded: {backend: demo}
  one: {backend: twin}
  mixed: {targets: [{backend: twin}, {backend: demo}]}
  canary: {targets: [{backend: twin, weight: 9}, {backend: vllm}]}
  equal: {targets: [{backend: twin}, {backend: vllm, weight: 2}]}
  theirs: {backend: cloud}
  asked: {backend: cloud, route: prefix}
  loads: {backend: demo, route: least_busy}
  sticky: {backend: demo, route: session}
"""


def test_equal_replicas_of_engines_that_keep_prefixes_are_chosen_by_them_unless_the_file_says_otherwise() -> None:
    config = loads(ROUTED.replace("[vllm]", "vllm"), {}, source="t")
    kinds = {"vllm": "vllm", "vllm#2": "vllm", "twin": "vllm", "cloud": "remote", "cloud#2": "remote"}
    kinds |= dict.fromkeys(("demo", "demo#2", "demo#3"), "llama_cpp")
    rows = {name: backend(name, kind, None) for name, kind in kinds.items()}
    rows |= {name: msgspec.structs.replace(rows[name], adapters={"law": None}) for name in ("vllm", "vllm#2")}

    routes = {name: model.route for name, model in build(config, rows, 1).models.items()}

    assert routes == {
        **dict.fromkeys(("replicas", "embedded", "equal", "asked", "law"), "prefix"),
        **dict.fromkeys(("one", "mixed", "canary", "theirs", "loads"), "least_busy"),
        "sticky": "session",
    }
