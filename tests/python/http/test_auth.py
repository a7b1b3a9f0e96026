"""Auth: who is calling is asked on every request, through the application's own dependency, and normalised."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException

from rig import running
from strandline.core.records import SessionRecord
from strandline.errors import Misconfigured, Unauthorized, Unprocessable
from strandline.http.auth import (
    Action,
    Auth,
    Identity,
    identity_dependency,
    jwt_bearer,
    open_on_loopback,
    owner_only,
    refuse_public_bind,
    resolve_auth,
)
from strandline.http.problems import ProblemRoute


def make(auth: Any) -> FastAPI:
    """An application with one route that says who is calling."""
    who = identity_dependency(resolve_auth(auth))
    router = APIRouter(route_class=ProblemRoute)

    @router.get("/me")
    async def me(identity: Identity = Depends(who)) -> dict[str, Any]:  # noqa: B008
        roles, claims = sorted(identity.roles), dict(identity.claims)
        return {"user": identity.user, "device": identity.device, "roles": roles, "claims": claims}

    app = FastAPI()
    app.include_router(router, prefix="/api")
    return app


async def call(app: FastAPI, path: str = "/api/me", **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://api.example") as http:
        return await http.get(path, headers={name.replace("_", "-"): value for name, value in headers.items()})


def returning(value: Any) -> Callable[[], Any]:
    def current_user() -> Any:
        return value

    return current_user


SOME_UUID = uuid.UUID("12345678-1234-5678-1234-567812345678")


@pytest.mark.parametrize(
    ("returned", "user"),
    [
        ("ann", "ann"),
        ("Ann Müller", "Ann Müller"),
        (42, "42"),
        (SOME_UUID, str(SOME_UUID)),
        (Identity("ann"), "ann"),
        ({"user": "ann"}, "ann"),
        ({"user": 42, "roles": None}, "42"),
    ],
)
async def test_what_a_dependency_may_return(returned: Any, user: str) -> None:
    assert (await call(make(returning(returned)))).json() == {"user": user, "device": None, "roles": [], "claims": {}}


async def test_a_mapping_may_say_everything() -> None:
    returned = {"user": "ann", "device": "phone", "roles": ["admin", "ops"], "claims": {"tenant": 3}, "more": 1}
    assert (await call(make(returning(returned)))).json() == {
        "user": "ann",
        "device": "phone",
        "roles": ["admin", "ops"],
        "claims": {"tenant": 3},
    }


@pytest.mark.parametrize("returned", [None, {"user": None}, "", "  ", "x" * 201, "a\nb", {"user": "a\x00"}])
async def test_nobody_signed_in_or_no_usable_user_id_is_401(returned: Any) -> None:
    answer = await call(make(returning(returned)))
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("returned", [object(), True, b"ann", ["ann"], {"name": "ann"}, {"user": ["ann"]}, 1.5])
async def test_a_dependency_that_returns_nonsense_is_a_fault_of_the_server(returned: Any) -> None:
    answer = await call(make(returning(returned)))
    assert (answer.status_code, answer.json()["code"]) == (500, "misconfigured")


async def test_a_dependency_may_refuse_in_its_own_words() -> None:
    def current_user() -> str:
        raise HTTPException(401, "cookie expired")

    answer = await call(make(current_user))
    assert (answer.status_code, answer.json()) == (401, {"detail": "cookie expired"})


async def test_sub_dependencies_yields_and_parameters_work() -> None:
    steps: list[str] = []

    async def database() -> AsyncIterator[dict[str, str]]:
        steps.append("open")
        yield {"s3cret": "ann"}
        steps.append("close")

    async def current_user(
        db: dict[str, str] = Depends(database),  # noqa: B008
        x_session: str = Header(default=""),
    ) -> AsyncIterator[str | None]:
        yield db.get(x_session)
        steps.append("user done")

    app = make(current_user)
    assert (await call(app, x_session="s3cret")).json()["user"] == "ann"
    assert steps == ["open", "user done", "close"]
    assert (await call(app, x_session="guess")).status_code == 401


async def test_a_dependency_with_a_bad_parameter_is_a_422() -> None:
    def current_user(x_tenant: int = Header()) -> str:
        return f"user-{x_tenant}"

    answer = await call(make(current_user), x_tenant="seven")
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request")
    assert "x-tenant" in answer.json()["detail"]


async def test_overrides_of_the_application_work() -> None:
    def current_user() -> str:
        raise AssertionError("not in this test")

    app = make(current_user)
    app.dependency_overrides[current_user] = lambda: "tester"
    assert (await call(app)).json()["user"] == "tester"


async def test_the_dependency_is_shared_with_the_application_within_a_request() -> None:
    calls = 0

    def current_user() -> str:
        nonlocal calls
        calls += 1
        return "ann"

    who = identity_dependency(resolve_auth(current_user))
    app = FastAPI()

    @app.get("/api/me")
    async def me(identity: Identity = Depends(who), user: str = Depends(current_user)) -> list[str]:  # noqa: B008
        return [identity.user, user]

    assert (await call(app)).json() == ["ann", "ann"]
    assert calls == 1


# --- devices --------------------------------------------------------------------------------------------------------


async def test_the_device_comes_from_the_header_or_the_query() -> None:
    app = make(returning("ann"))
    assert (await call(app, strandline_device="phone")).json()["device"] == "phone"
    assert (await call(app, "/api/me?device=tablet")).json()["device"] == "tablet"
    assert (await call(app, "/api/me?device=tablet", strandline_device="phone")).json()["device"] == "phone"
    assert (await call(app, "/api/me?device=")).json()["device"] is None


async def test_a_device_the_application_vouches_for_wins() -> None:
    app = make(returning(Identity("ann", device="badge")))
    assert (await call(app, strandline_device="phone")).json()["device"] == "badge"


@pytest.mark.parametrize("device", ["a b", "a/b", "..", "x" * 201, "a%00"])
async def test_a_device_that_is_no_id_is_a_422(device: str) -> None:
    answer = await call(make(returning("ann")), strandline_device=device)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid-id")


# --- identities and policies ----------------------------------------------------------------------------------------


def test_an_identity_never_changes_and_can_be_a_key() -> None:
    claims = {"tenant": 1}
    roles = ["admin"]
    ann = Identity("ann", roles=roles, claims=claims)  # type: ignore[arg-type]
    claims["tenant"] = 2
    assert ann.claims == {"tenant": 1}
    assert ann.roles == frozenset({"admin"})
    with pytest.raises(TypeError):
        ann.claims["tenant"] = 3  # type: ignore[index]
    assert {ann: 1}[Identity("ann", roles=frozenset({"admin"}), claims={"tenant": 1})] == 1
    assert "tenant" not in repr(ann)


def test_an_identity_is_checked_when_it_is_made() -> None:
    with pytest.raises(TypeError, match="must be a str"):
        Identity(42)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="roles"):
        Identity("ann", roles="admin")  # type: ignore[arg-type]
    with pytest.raises(Unauthorized):
        Identity("")
    with pytest.raises(Unprocessable):
        Identity("ann", device="a b")


def session_of(owner: str) -> SessionRecord:
    return SessionRecord(id="s1", epoch="abcd", owner=owner, created_at=0, updated_at=0, last_seq=0)


@pytest.mark.parametrize("action", set(Action) - {Action.AGENT})
def test_a_session_belongs_to_its_creator(action: Action) -> None:
    ann = Identity("ann")
    assert owner_only(ann, session_of("ann"), action)
    assert not owner_only(ann, session_of("bob"), action)
    assert owner_only(ann, None, action)


def test_actions_are_what_the_routes_need() -> None:
    assert [str(action) for action in Action] == [
        "read",
        "submit",
        "edit",
        "moderate",
        "stop",
        "decide",
        "list",
        "manage",
        "delete",
        "annotate",
        "agent",
    ]


@pytest.mark.parametrize(("role", "may"), [("agent", True), ("agent:far", True), ("agents", False), ("user", False)])
def test_only_workers_answer_in_sessions_and_they_do_nothing_else(role: str, may: bool) -> None:
    worker = Identity("w", roles=frozenset({role}))
    assert owner_only(worker, session_of("ann"), Action.AGENT) is may
    assert not owner_only(Identity("ann"), session_of("ann"), Action.AGENT)
    assert not any(owner_only(worker, session_of("ann"), action) for action in set(Action) - {Action.AGENT})


# --- what auth= may be ----------------------------------------------------------------------------------------------


def test_auth_may_be_an_auth_or_a_bare_dependency() -> None:
    current_user = returning("ann")
    own = Auth(current_user, policy=lambda *_: True)
    assert resolve_auth(own) is own
    assert resolve_auth(current_user) == Auth(current_user, owner_only, loopback_only=False)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (None, r"is missing.*open_on_loopback\(\).*jwt_bearer\(key\).*FastAPI dependency"),
        ("secret", "is a str"),
        (open_on_loopback, r"call it: auth=open_on_loopback\("),
        (jwt_bearer, r"call it: auth=jwt_bearer\("),
        (owner_only, "is a policy"),
        (Depends(returning("ann")), r"pass the function itself"),
    ],
)
def test_a_wrong_auth_says_what_to_write(value: Any, hint: str) -> None:
    with pytest.raises(Misconfigured, match=hint):
        resolve_auth(value)


def test_a_policy_that_would_always_say_yes_is_refused() -> None:
    async def looks_it_up(*_: Any) -> bool:
        return False

    class Lookup:
        async def __call__(self, *_: Any) -> bool:
            return False

    for policy in (looks_it_up, Lookup()):
        with pytest.raises(Misconfigured, match="must not be async"):
            Auth(returning("ann"), policy=policy)  # type: ignore[arg-type]
    with pytest.raises(Misconfigured, match="functions"):
        Auth("ann")  # type: ignore[arg-type]


# --- the command line -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "LOCALHOST", "::1", "[::1]"])
def test_the_open_mode_may_listen_on_loopback(host: str) -> None:
    refuse_public_bind(open_on_loopback(), host)


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "192.168.1.2", "api.example", "127.1", "localhost.example"])
def test_the_open_mode_may_not_listen_beyond_loopback(host: str) -> None:
    with pytest.raises(Misconfigured, match="open_on_loopback"):
        refuse_public_bind(open_on_loopback(), host)
    refuse_public_bind(resolve_auth(returning("ann")), host)


async def test_what_a_dependency_holds_is_let_go_of_before_the_stream_begins() -> None:
    held = 0

    async def session_of_the_database() -> AsyncIterator[str]:
        nonlocal held
        held += 1
        try:
            yield "ann"
        finally:
            held -= 1

    async with running(auth=session_of_the_database) as rig:
        answer, call = await rig.begun()
        feed = await rig.open("GET", "/api/sessions/c/events")
        call.say("said")
        await answer.until(lambda: answer.text == "said")
        await feed.until(lambda: feed.frames)
        assert held == 0
