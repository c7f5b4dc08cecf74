"""What is said of a bad configuration file: every mistake at once, each with its place."""

from __future__ import annotations

import pytest

from app.config.load import loads
from app.config.messages import shown
from app.config.yaml_document import ConfigError

SECRET = "do-not-show-me"


def errors(text: str, env: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loads(text, env or {}, source="f")
    return caught.value.errors


BAD = {
    "an unknown key": (
        "server: {prot: 1}",
        "server.prot: 'prot' is not a key here (nearest: port; known: host, port, ",
    ),
    "an unknown section": ("moddels: {}", "moddels: 'moddels' is not a key here (nearest: models; known: server, "),
    "an unknown kind": (
        "backends: {x: {kind: lama_cpp}}",
        "backends.x.kind: 'lama_cpp' is not a kind of backend (nearest: ",
    ),
    "no kind": ("backends: {x: {}}", "backends.x.kind: is missing (known: llama_cpp, vllm, remote, ollama)"),
    "a key inside a backend's section": (
        "backends: {x: {kind: ollama, timeouts: {conect_s: 1}}}",
        "backends.x.timeouts.conect_s: 'conect_s' is not a key here (nearest: connect_s; known: connect_s, ",
    ),
    "a sampling parameter that is none": (
        "models: {x: {backend: b, defaults: {temprature: 1}}}",
        "models.x.defaults.temprature: 'temprature' is not a key here (nearest: temperature; known: temperature, ",
    ),
    "a sampling parameter out of its range": (
        "models: {x: {backend: b, overrides: {top_p: 0}}}",
        "models.x.overrides.top_p: 0 is not a number of more than 0",
    ),
    "a host with a path": (
        "models: {x: {backend: b, allowed_media_domains: ['https://a/b']}}",
        "models.x.allowed_media_domains[0]: 'https://a/b' is not a host's name without scheme, port or path (or * for",
    ),
    "a missing key": ("backends: {x: {kind: llama_cpp}}", "backends.x.model: is missing: A GGUF file, or "),
    "a value out of a list": (
        "backends: {x: {kind: llama_cpp, model: m, start: never}}",
        "backends.x.start: 'never' is not allowed here (known: boot, demand)",
    ),
    "a budget of nothing": (
        f"keys: [{{name: a, sha256: {'a' * 64}, budget: {{per: day}}}}]",
        "keys[0].budget: needs either `tokens` or `money`",
    ),
    "a budget of two things": (
        f"keys: [{{name: a, sha256: {'a' * 64}, budget: {{per: day, tokens: 1, money: 1}}}}]",
        "keys[0].budget: needs either `tokens` or `money`, not both",
    ),
    "a budget without end": (
        f"keys: [{{name: a, sha256: {'a' * 64}, budget: {{tokens: 1}}}}]",
        "keys[0].budget.per: is missing: In each day, week",
    ),
    "a limit that lets nothing through": (
        f"keys: [{{name: a, sha256: {'a' * 64}, rpm: 0}}]",
        "keys[0].rpm: 0 is not a number of at least 1",
    ),
    "a key that is replaced by itself": (
        f"keys: [{{name: a, sha256: {'a' * 64}, replaced: [{{sha256: {'A' * 64}, until: 2030-01-01}}]}}]",
        "keys[0].replaced[0].sha256: is the digest of a key that is already there",
    ),
    "text for a number": ("server: {port: http}", "server.port: 'http' is not a whole number"),
    "half a thing": ("server: {relays: 1.5}", "server.relays: 1.5 is neither a number from 1 to 64 nor auto"),
    "not a number": ("server: {drain_s: .nan}", "server.drain_s: nan is not allowed here"),
    "a number for text": (
        "backends: {x: {kind: llama_cpp, model: 7}}",
        "backends.x.model: 7 is not text (write it in ",
    ),
    "too much": ("server: {port: 65536}", "server.port: 65536 is not a number of at most 65535"),
    "too little": ("server: {wait_s: 0}", "server.wait_s: 0 is not a number of more than 0"),
    "no truth": ("server: {docs: perhaps}", "server.docs: 'perhaps' is not true or false"),
    "a section that is text": ("server: fast", "server: 'fast' is not a mapping (key: value)"),
    "a list that is a mapping": ("keys: {a: 1}", "keys: a mapping is not a list"),
    "a mapping that is a list": ("models: [a]", "models: a list is not a mapping (key: value)"),
    "nothing in a string": ("models: {a: {backend: ''}}", "models.a.backend: is empty"),
    "a name without end": (f"models: {{a: {{backend: {'x' * 300}}}}}", "models.a.backend: is too long (at most 256)"),
    "a url with a user": (
        f"backends: {{x: {{kind: remote, url: 'http://me:{SECRET}@h/v1'}}}}",
        "backends.x.url: 'http://***@h/v1' is not an address http://… or https://… without a user",
    ),
    "a port that cannot be": (
        "backends: {x: {kind: remote, url: 'http://h:99999/v1'}}",
        "backends.x.url: 'http://h:99999/v1' has a port (1 to 65535) or an address in brackets that is not valid",
    ),
    "a port that is no number": (
        "backends: {x: {kind: ollama, url: 'http://h:80a'}}",
        "backends.x.url: 'http://h:80a' has a port (1 to 65535)",
    ),
    "a port where nobody listens": (
        "backends: {x: {kind: remote, url: 'http://h:0/v1'}}",
        "backends.x.url: 'http://h:0/v1' names port 0",
    ),
    "half a bracket": ("backends: {x: {kind: remote, url: 'http://[::1/v1'}}", "backends.x.url: 'http://[::1/v1' has "),
    "a url without host": (
        "backends: {x: {kind: remote, url: 'http:///v1'}}",
        "backends.x.url: 'http:///v1' names no host",
    ),
    "a host with a gap": (
        "backends: {x: {kind: remote, url: 'http://a..b/v1'}}",
        "backends.x.url: 'http://a..b/v1' has no host name that can be looked up",
    ),
    "a path that no request line can carry": (
        "backends: {x: {kind: remote, url: 'http://h/ü'}}",
        "backends.x.url: 'http://h/ü' has a path with characters that must be written as %XX",
    ),
    "an empty credential": (
        "backends: {x: {kind: remote, url: 'http://h', api_key: ''}}",
        "backends.x.api_key: is empty: give a key, or leave it out",
    ),
    "a credential with a line break": (
        f'backends: {{x: {{kind: remote, url: "http://h", api_key: "{SECRET}\\r\\n"}}}}',
        "backends.x.api_key: the value (not shown) holds a line break",
    ),
    "a header with a blank": (
        f"backends: {{x: {{kind: remote, url: 'http://h', headers: {{'x team': {SECRET}}}}}}}",
        "backends.x.headers: 'x team' is not a header's name",
    ),
    "a header's value with a line break": (
        f'backends: {{x: {{kind: remote, url: "http://h", headers: {{x-team: "{SECRET}\\nx: y"}}}}}}',
        "backends.x.headers: the value of 'x-team' holds a line break",
    ),
    "a header that is not theirs to set": (
        "backends: {x: {kind: remote, url: 'http://h', headers: {Transfer-Encoding: chunked}}}",
        "backends.x.headers: 'Transfer-Encoding' is set by the gateway itself",
    ),
    "a key instead of its digest": (
        f"keys: [{{name: k, sha256: {SECRET}}}]",
        "keys[0].sha256: the value (not shown) is not a SHA-256 digest, 64 hex digits",
    ),
    "a key that is no text": (
        f"backends: {{x: {{kind: remote, url: 'http://h', api_key: [{SECRET}]}}}}",
        "backends.x.api_key: the value (not shown) is not text",
    ),
    "a day that is none": (
        f"keys: [{{name: k, sha256: {'a' * 64}, expires: soon}}]",
        "keys[0].expires: 'soon' is not a date",
    ),
    "an origin that is none": (
        "server: {cors_origins: [example.com]}",
        "server.cors_origins[0]: 'example.com' is not an origin",
    ),
    "a path with an end": ("server: {root_path: /llm/}", "server.root_path: '/llm/' is not a path like /llm"),
    "a model without backend": ("models: {a: {}}", "models.a: needs either `backend` or `targets`"),
    "a model with both": (
        "models: {a: {backend: x, targets: [{backend: x}]}}",
        "models.a: needs either `backend` or `targets`, not both",
    ),
    "a model's own name beside targets": (
        "models: {a: {model: y, targets: [{backend: x}]}}",
        "models.a.model: belongs to each of the `targets`",
    ),
    "no targets": ("models: {a: {targets: []}}", "models.a.targets: is empty"),
    "an unknown backend": (
        "backends: {ollama: {kind: ollama}}\nmodels: {a: {backend: olama}}",
        "models.a.backend: 'olama' is not a backend here (known: ollama)",
    ),
    "an unknown backend of a target": (
        "models: {qwen-law: {targets: [{backend: vlm}]}}",
        "models.qwen-law.targets[0].backend: 'vlm' is not a backend here (known: none)",
    ),
    "an unknown fallback": (
        "models: {a: {backend: x, fallbacks: [zz]}}",
        "models.a.fallbacks[0]: 'zz' is not a model here",
    ),
    "a pair of one": ("pairs: {p: {base: a}}", "pairs.p: needs 2 to 8 models to compare, and has 1"),
    "an unknown model of a pair": ("pairs: {p: {base: a, tuned: zz}}", "pairs.p.tuned: 'zz' is not a model here"),
    "a model against itself": (
        "models: {a: {backend: x}}\npairs: {p: {base: a, tuned: a}}",
        "pairs.p.tuned: 'a' is the same model as 'base'",
    ),
    "an unknown default": ("default_model: zz", "default_model: 'zz' is not a model here"),
    "an unknown model of a key": (
        f"keys: [{{name: k, sha256: {'a' * 64}, models: [zz]}}]",
        "keys[0].models[0]: 'zz' is not a model here",
    ),
    "a star in the middle": ("models: {'a*b': {backend: x}}", "models.a*b: a `*` may only be the last character"),
    "a star with an alias": (
        "models: {'a*': {backend: x, aliases: [y]}}",
        "models.a*.aliases: is not possible for a name that ends in `*`",
    ),
    "a star with a route": (
        "models: {'a*': {backend: x, route: prefix}}",
        "models.a*.route: is not possible for a name that ends in `*`",
    ),
    "an unknown route": (
        "models: {a: {backend: x, route: prefixes}}",
        "models.a.route: 'prefixes' is not allowed here (known: least_busy, prefix, session)",
    ),
    "a name with a line break": ('models: {"a\\nb": {backend: x}}', "a public name has no blanks around it"),
    "an unknown fallback for all": (
        "models: {a: {backend: x, fallbacks: [{model: zz, for: all}]}}",
        "models.a.fallbacks[0]: 'zz' is not a model here",
    ),
    "a fallback that is a number": (
        "models: {a: {backend: x, fallbacks: [3]}}",
        "models.a.fallbacks[0]: 3 is not a public name, and not a mapping with `model` and `for`",
    ),
    "a fallback for nobody": (
        "models: {a: {backend: x, fallbacks: [{model: b, for: nobody}]}, b: {backend: x}}",
        "models.a.fallbacks[0].for: 'nobody' is not allowed here (known: allowed, all)",
    ),
    "a fallback with an unknown key": (
        "models: {a: {backend: x, fallbacks: [{model: b, four: all}]}, b: {backend: x}}",
        "models.a.fallbacks[0].four: 'four' is not a key here (nearest: for; known: model, for)",
    ),
    "a fallback without a model": (
        "models: {a: {backend: x, fallbacks: [{for: all}]}}",
        "models.a.fallbacks[0].model: is missing: A public name.",
    ),
    "a fallback on itself": (
        "models: {a: {backend: x, fallbacks: [a]}}",
        "models.a.fallbacks[0]: 'a' closes a circle: a → a",
    ),
    "a circle": (
        "models: {a: {backend: x, fallbacks: [b]}, b: {backend: x, fallbacks: [c]}, c: {backend: x, fallbacks: [bee]}, "
        "d: {backend: x, aliases: [bee], fallbacks: [b]}}",
        "models.d.fallbacks[0]: 'b' closes a circle: b → c → d → b",
    ),
    "an alias that is a name": (
        "models: {a: {backend: x, aliases: [b]}, b: {backend: x}}",
        "'b' is already a model's own name",
    ),
    "an alias of two": (
        "models: {a: {backend: x, aliases: [c]}, b: {backend: x, aliases: [c]}}",
        "models.b.aliases[0]: 'c' is already an alias of 'a'",
    ),
    "an alias with a star": ("models: {a: {backend: x, aliases: ['c*']}}", "models.a.aliases[0]: 'c*' is not possible"),
    "two keys of a name": (
        f"keys: [{{name: k, sha256: {'a' * 64}}}, {{name: k, sha256: {'b' * 64}}}]",
        "keys[1].name: 'k' is already another key's name",
    ),
    "a key twice": (
        f"keys: [{{name: k, sha256: {'a' * 64}}}, {{name: l, sha256: {'A' * 64}}}]",
        "keys[1].sha256: is the digest of a key that is already there",
    ),
    "a key twice in the file": ("server: {port: 1}\nserver: {port: 2}", "server: this key is there twice"),
    "a key twice in a list": (
        "models: {a: {targets: [{backend: x, backend: y}]}}",
        "models.a.targets[0].backend: this key is ",
    ),
    "a number as a name": ("models: {1: {backend: x}}", "models.1: a name must be text: write it in quotes"),
    "a list as a name": ("models: {[a]: 1}", "models: a key here is not a name"),
    "a thing that holds itself": ("models: &m\n  a: *m", "models.a: refers to itself"),
    "a variable that is not set": (
        "server: {host: '${NOPE}'}",
        "server.host: the environment variable NOPE is not set",
    ),
    "a variable without a name": ("server: {host: '${}'}", "server.host: '${' does not begin a variable"),
    "no models": ("server: {port: 1}", "models: is missing: nothing would be served"),
    "an empty file": ("", "models: is missing: nothing would be served"),
    "not a mapping": ("- a", "it is not a mapping (key: value)"),
    "not YAML": ("a: [1\nb: 2", "line 2: this is not YAML: "),
    "an unknown tag": ("models: !python/object:os.system {}", "line 1: this is not YAML: "),
    "a day that never was": ("models: 2026-13-45", "this is not YAML: month must be in 1..12"),
    "two documents": ("a: 1\n---\nb: 2", "line 2: this is not YAML: "),
    "references without number": (
        "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)),
        "it has more than 100000 values",
    ),
    "depth without end": ("[" * 20_000, "nested too deeply"),
}


@pytest.mark.parametrize(("text", "error"), BAD.values(), ids=BAD.keys())
def test_an_error_names_the_file_the_key_the_value_and_what_is_known(text: str, error: str) -> None:
    lines = errors(text)

    assert any(error in line for line in lines), lines
    assert all(line.startswith("f: ") for line in lines)
    assert SECRET not in "\n".join(lines)


def test_all_errors_of_a_file_come_at_once_and_each_once() -> None:
    text = """
server: {prot: 1, port: 70000}
backends:
  bad: {kind: llama_cpp, model: m, slots: 0}
  good: {kind: ollama, url: "${NOPE}"}
models:
  a: {backend: bad, fallbacks: [b]}
  b: {backend: god}
keys: [{name: k}]
"""

    assert [line.removeprefix("f: ").partition(": ")[0] for line in errors(text)] == [
        "backends.good.url",
        "server.port",
        "server.prot",
        "backends.bad.slots",
        "keys[0].sha256",
        "models.b.backend",
    ]


def test_messages_speak_of_the_file_and_not_of_the_library_that_checks_it() -> None:
    text = "\n".join(line for wrong, _ in BAD.values() for line in errors(wrong)).lower()

    assert not {"pydantic", "input should", "value error", "type=", "traceback", "extra_forbidden"} & {
        word
        for word in ("pydantic", "input should", "value error", "type=", "traceback", "extra_forbidden")
        if word in text
    }


def test_a_value_from_the_environment_is_not_shown() -> None:
    text = "backends: {x: {kind: remote, url: '${U}'}, y: {kind: remote, url: 'http://${U}:0'}}\nserver: {port: '${U}'}"

    assert SECRET not in "\n".join(errors(text, {"U": SECRET}))


@pytest.mark.parametrize(
    "address", [f"http://me:{SECRET}@h/v1", f"http://h?k={SECRET}", f"https://h/a?x=1&k={SECRET}#f"]
)
def test_an_address_is_shown_without_what_may_be_secret_in_it(address: str) -> None:
    assert SECRET not in shown(address)
    assert shown("a question? http://h/v1 then?") == "'a question? http://h/v1 then?'"


def test_shown_values_are_short_and_never_a_containers_content() -> None:
    assert shown("x" * 100) == f"'{'x' * 57}…'"
    assert [shown(value) for value in (None, True, 1.5, {"a": SECRET}, [SECRET])] == [
        "nothing",
        "true",
        "1.5",
        "a mapping",
        "a list",
    ]
    assert shown(object()) == "a object"
