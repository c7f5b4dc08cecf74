"""Fields that programs read in more than one way: twice, in other letters, with escapes."""

from __future__ import annotations

import json
import random

import pytest

from app.errors import Problem
from app.relay.http import member_names
from app.relay.http.multipart import read as read_form
from app.relay.planning.plan import FORMS, plan_form
from tests.unit.dialects.test_openai_request import table

REFUSED = {
    "capitals": b'{"model":"pub","MODEL":"Zaubertrank"}',
    "one capital": b'{"Model":"Zaubertrank"}',
    "wide letters": '{"ｍｏｄｅｌ":"Zaubertrank"}'.encode(),
    "a long s": '{"ſtream":true}'.encode(),
    "an escape": rb'{"mod\u0065l":"Zaubertrank"}',
    "an escape beside it": rb'{"model":"pub","mod\u0065l":"Zaubertrank"}',
    "an escape before it": rb'{"mod\u0065l":"Zaubertrank","model":"pub"}',
    "an escaped capital": rb'{"model":"pub","\u004dodel":"Zaubertrank"}',
    "an escape, and the name inside": rb'{"a":{"model":1},"mod\u0065l":"Zaubertrank"}',
    "twice": b'{"model":"pub","model":"Zaubertrank"}',
    "twice, any field": b'{"tomorrow":1,"tomorrow":2}',
    "twice, the same": b'{"n":1,"n":1}',
    "twice, the first is the beginning of the second": b'{"n":1,"n":12}',
    "twice, the second is the beginning of the first": b'{"n":12,"n":1}',
    "twice, far away": b'{"n":1,"a":[1,2],"b":{"n":1},"n":2}',
    "twice, the second hidden in a text": b'{"n":12345678,"x":"    ,\\"x\\":\\"\\"}","n":1}   ',
    "twice, and nothing else": b'{"n":1,"n":1,"n":1}',
    "many answers": b'{"N":1000}',
    "a bound": b'{"max_Tokens":1}',
    "a template": b'{"Chat_Template":"x"}',
    "messages": b'{"messages":[],"Messages":[]}',
    "usage": b'{"stream_options":{"Include_Usage":true}}',
    "usage twice": b'{"stream_options":{"include_usage":true,"include_usage":false}}',
    "usage with an escape": rb'{"stream_options":{"include\u005fusage":true}}',
}


@pytest.mark.parametrize("body", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("pad", [0, 2 * member_names.SHORT_BYTES])
def test_what_may_be_read_in_two_ways_is_refused(body: bytes, pad: int) -> None:
    padded = body.rstrip()[:-1] + b',"pad":"' + b" " * pad + b'"}'

    with pytest.raises(Problem) as refusal:
        member_names.members(padded)

    assert (refusal.value.status, refusal.value.code) == (400, "duplicate_field")
    assert "Zaubertrank" not in refusal.value.message


TAKEN = {
    "inside": b'{"a":{"model":1,"Model":2,"model":3},"model":"pub"}',
    "in a text": b'{"model":"pub","x":"\\"model\\":1,\\"model\\":2"}',
    "an escape in a value": rb'{"model":"p\u0075b"}',
    "an escape in a name that nobody knows": rb'{"\u00fcber":1}',
    "white space": b' \n{ "model" :\t"pub" , "n" : 1 , "tools" : [ 1 , 2 ] } ',
    "nothing": b" { } ",
    "another name that is near": b'{"models":1,"mode":2,"streams":3}',
}


@pytest.mark.parametrize("body", TAKEN.values(), ids=TAKEN)
@pytest.mark.parametrize("pad", [0, 2 * member_names.SHORT_BYTES])
def test_what_can_be_read_in_one_way_only_passes(body: bytes, pad: int) -> None:
    by_name = member_names.members(body + b" " * pad)

    assert {name: json.loads(bytes(raw)) for name, raw in by_name.items()} == json.loads(body)


def test_a_field_is_found_twice_wherever_it_stands() -> None:
    """Against a reader that keeps every pair; with names and values that are beginnings of each other."""
    dice = random.Random(7)
    keys, values = ["n", "m", "nm", "a b"], ["1", "12", "123", '"1"', '"12"', "[1]", '{"n":1}', "null", '" ,\\"n\\":1"']
    for _ in range(20_000):
        pairs = [(dice.choice(keys), dice.choice(values)) for _ in range(dice.randrange(5))]
        blank = dice.choice(["", " ", "\n "])
        body = "{" + ",".join(f'{blank}"{key}"{blank}:{value}{blank}' for key, value in pairs) + "}"
        body += " " * dice.choice([0, member_names.SHORT_BYTES])
        is_twice = len({key for key, _ in pairs}) < len(pairs)
        try:
            member_names.members(body.encode())
        except Problem:
            assert is_twice, body
        else:
            assert not is_twice, body


def test_more_fields_than_any_request_has_are_refused() -> None:
    body = json.dumps({str(n): 1 for n in range(member_names.MAX_MEMBERS + 1)}).encode()

    with pytest.raises(Problem) as refusal:
        member_names.members(body)
    assert refusal.value.code == "too_many_fields"


def form(*fields: tuple[str, str]) -> bytes:
    parts = [f'--b\r\ncontent-disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields]
    parts.append('--b\r\ncontent-disposition: form-data; name="file"; filename="a.wav"\r\n\r\nx\r\n--b--\r\n')
    return "".join(parts).encode()


@pytest.mark.parametrize("name", ["Model", "MODEL", "Stream", "File", "STREAM"])
def test_a_form_has_its_names_in_one_spelling_too(name: str) -> None:
    made = read_form(form(("model", "m"), (name, "true")), b"b")

    with pytest.raises(Problem) as refusal:
        plan_form(FORMS["/v1/audio/transcriptions"], made, "x", table(m="remote"), None)
    assert (refusal.value.code, refusal.value.param) == ("duplicate_field", name.lower())


@pytest.mark.parametrize("name", ["language", "timestamp_granularities[]", "prompt"])
def test_other_fields_of_a_form_may_come_twice(name: str) -> None:
    made = read_form(form(("model", "m"), (name, "a"), (name, "b")), b"b")

    assert plan_form(FORMS["/v1/audio/transcriptions"], made, "x", table(m="remote"), None).name == "m"
