"""Keys of the store over three gateways: made, changed and revoked at one, and so at all; also while it is away."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from app.keys import digest
from tests.journeys.gateway import until
from tests.rigs import team
from tests.rigs.postgres import PostgresServer
from tests.rigs.team import MODEL, GatewayTeam, TeamMember

ROOT_KEY = "mp-of-the-file"
FILE = [{"name": "root", "sha256": digest(ROOT_KEY), "role": "admin"}]
BODY = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
Figures = Callable[[str, object], None]


def asked(url: str, key: str) -> tuple[int, str | None]:
    """The status of a chat with this key, and its error's code."""
    headers = {"authorization": f"Bearer {key}"}
    reply = httpx.post(f"{url}/v1/chat/completions", json=BODY, headers=headers, timeout=60, trust_env=False)
    return reply.status_code, None if reply.is_success else reply.json()["error"]["code"]


def seen_after(three: GatewayTeam, key: str, wanted: tuple[int, str | None], since: float) -> list[float]:
    """The seconds since then until each gateway answers that to this key."""
    seconds: dict[str, float] = {}

    def are_all_there() -> bool:
        for member in three.members:
            if member.name not in seconds and asked(member.url, key) == wanted:
                seconds[member.name] = round(time.monotonic() - since, 3)
        return len(seconds) == len(three.members)

    until(are_all_there)
    return list(seconds.values())


def made(member: TeamMember, name: str, **terms: Any) -> str:
    return str(member.order("POST", "/admin/keys", {"name": name, **terms})["key"])


def test_a_key_is_made_changed_rotated_and_revoked_at_one_gateway_and_so_at_all(
    tmp_path: Path, postgres: PostgresServer, record_property: Figures
) -> None:
    with team.running(tmp_path, store=postgres.database(), keys=FILE) as three:
        first, second, third = three.members
        rounds: dict[str, list[float]] = {"made": [], "narrowed": [], "rotated": [], "revoked": []}
        for number in range(3):
            name = f"office-{number}"
            key = made(first, name)
            rounds["made"] += seen_after(three, key, (200, None), time.monotonic())

            second.order("POST", f"/admin/keys/{name}/edit", {"models": ["paced"], "expires": "2020-01-01"})
            rounds["narrowed"] += seen_after(three, key, (401, "invalid_api_key"), time.monotonic())

            second.order("POST", f"/admin/keys/{name}/edit", {"expires": None})
            newer = third.order("POST", f"/admin/keys/{name}/rotate", {"grace_s": 600})["key"]
            rounds["rotated"] += seen_after(three, newer, (200, None), time.monotonic())
            assert seen_after(three, key, (200, None), time.monotonic())

            third.order("POST", f"/admin/keys/{name}/revoke")
            rounds["revoked"] += seen_after(three, newer, (401, "invalid_api_key"), time.monotonic())
            assert [asked(url, key)[0] for url in three.urls] == [401, 401, 401]

        assert [asked(url, ROOT_KEY)[0] for url in three.urls] == [200, 200, 200]
        assert len({member.health()["store"]["gateway"] for member in three.members}) == 3
        for what, seconds in rounds.items():
            record_property(f"{what}, until all three go by it", f"{max(seconds):.3f} s at most, of {len(seconds)}")


def test_running_streams_of_a_revoked_key_become_what_the_file_says(
    tmp_path: Path, postgres: PostgresServer, record_property: Figures
) -> None:
    settings: dict[str, Any] = {"store": postgres.database(), "keys": FILE}
    with team.running(tmp_path, engine_options=("--pace", "0.1"), **settings) as three:
        finished = streams_of_a_revoked_key(three, "finishing", record_property)
        urls = [engine.url for engine in three.engines]
        team.write_config(three.config, team.team_config(urls, server={"revoked_streams": "end"}, **settings))
        for member in three.members:
            member.order("POST", "/admin/reload")
        ended = streams_of_a_revoked_key(three, "ending", record_property)

    assert [each[-1] for each in finished] == ["[DONE]"] * 3
    assert [json.loads(each[-1])["error"]["code"] for each in ended] == ["key_revoked"] * 3
    assert min(map(len, finished)) > 25 > max(map(len, ended))


def streams_of_a_revoked_key(three: GatewayTeam, name: str, record_property: Figures) -> list[list[str]]:
    """The events of a stream at each gateway, whose key is revoked once they have begun."""
    key = made(three.members[0], name)
    seen_after(three, key, (200, None), time.monotonic())
    body = {**BODY, "stream": True, "max_tokens": 30}
    events: list[list[str]] = []
    with contextlib.ExitStack() as opened:
        client = opened.enter_context(httpx.Client(timeout=60, trust_env=False))
        headers = {"authorization": f"Bearer {key}"}
        streams = []
        for url in three.urls:
            sent = client.stream("POST", f"{url}/v1/chat/completions", json=body, headers=headers)
            streams.append(opened.enter_context(sent).iter_lines())
            assert next(streams[-1]).startswith("data: ")

        three.members[1].order("POST", f"/admin/keys/{name}/revoke")
        since = time.monotonic()
        for lines in streams:
            events.append([])
            with contextlib.suppress(httpx.RemoteProtocolError):  # cut, behind its last event
                for line in lines:
                    events[-1] += [line.removeprefix("data: ")] if line else []
        record_property(f"{name}: the last stream was over", f"{time.monotonic() - since:.2f} s later")
    assert [asked(url, key) for url in three.urls] == [(401, "invalid_api_key")] * 3
    return events


def test_while_the_store_is_away_its_keys_are_good_for_as_long_as_the_file_says(
    tmp_path: Path, record_property: Figures
) -> None:
    with PostgresServer() as server:
        store = {"url": server.database(), "key_cache_s": 4}
        with team.running(tmp_path, store=store, keys=FILE) as three:
            key = made(three.members[0], "office")
            gone = made(three.members[0], "gone")
            seen_after(three, gone, (200, None), time.monotonic())
            three.members[2].order("POST", "/admin/keys/gone/revoke")
            seen_after(three, gone, (401, "invalid_api_key"), time.monotonic())

            server.kill()
            since = time.monotonic()
            refused = three.members[1].request("POST", "/admin/keys/office/revoke")
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_unavailable")
            still = [asked(url, key) for url in three.urls]
            over = seen_after(three, key, (503, "keys_unavailable"), since)
            others = [asked(url, ROOT_KEY) for url in three.urls], [asked(url, "mp-nobody") for url in three.urls]

            server.start()
            since = time.monotonic()
            back = seen_after(three, key, (200, None), since)

        assert still == [(200, None)] * 3
        assert others == ([(200, None)] * 3, [(503, "keys_unavailable")] * 3)
        record_property("key_cache_s 4: refused after the store was killed", f"{min(over)} to {max(over)} s")
        record_property("the store is back: the key opens again", f"{max(back)} s at most")


def test_a_gateway_that_starts_while_the_store_is_away_knows_what_it_knew(tmp_path: Path) -> None:
    with PostgresServer() as server, team.running(tmp_path, store=server.database(), gateways=2) as two:
        old, new = two.members
        key = made(old, "office")
        seen_after(two, key, (200, None), time.monotonic())
        until(lambda: "office" in (old.state / "keys.json").read_text())
        for member in two.members:
            assert member.stop() == 0
        (new.state / "keys.json").unlink()
        server.kill()

        old.start()
        new.start()
        until(lambda: all(_listens(member) for member in two.members))

        assert asked(old.url, key) == (200, None)
        assert asked(old.url, "mp-nobody") == (401, "invalid_api_key")
        # It has no key at all, and is not open for that.
        assert asked(new.url, key) == (503, "keys_unavailable")

        server.start()
        assert seen_after(two, key, (200, None), time.monotonic())


def test_a_gateway_with_an_empty_store_is_open_until_the_first_key_and_never_again(
    tmp_path: Path, postgres: PostgresServer
) -> None:
    with team.running(tmp_path, store=postgres.database(), gateways=2) as two:
        one, other = two.members
        assert [httpx.post(f"{url}/v1/chat/completions", json=BODY).status_code for url in two.urls] == [200, 200]

        key = made(one, "office", role="admin")
        until(lambda: asked(other.url, "mp-nobody") == (401, "invalid_api_key"))
        assert [asked(url, key) for url in two.urls] == [(200, None)] * 2

        other.order("POST", "/admin/keys/office/revoke")
        until(lambda: asked(one.url, key) == (401, "invalid_api_key"))
        other.stop()
        other.start()
        other.wait_ready()
        assert [asked(url, "mp-nobody") for url in two.urls] == [(401, "invalid_api_key")] * 2


def _listens(member: TeamMember) -> bool:
    try:
        return httpx.get(f"{member.url}/livez", timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False
