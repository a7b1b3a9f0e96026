"""Who may do what is policy, on every route there is: what it forbids is refused and leaves no trace, and nothing else
is asked for. A route that has no row here fails."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from fastapi import Request

from asking import REFUND, answering, asked, pending, reply
from rig import Answer, Client, Rig, running
from strandline.core.records import SessionRecord
from strandline.http.auth import Action, Auth, Identity
from strandline.testing import ScriptedAgent

Names = dict[str, Any]
FAR = {"Strandline-Agent": "far"}
SAID = [{"type": "text", "text": "hello"}]


async def who(request: Request) -> dict[str, Any]:
    return {"user": request.headers.get("x-user", "ann"), "roles": request.headers.get("x-roles", "").split()}


class Rules:
    """A policy that knows actions only, and that the test changes while the server runs."""

    def __init__(self) -> None:
        self.permitted = set(Action)
        self.hidden = ""

    def __call__(self, identity: Identity, session: SessionRecord | None, action: Action) -> bool:
        return action in self.permitted and (session is None or session.id != self.hidden)


@pytest.fixture
def rules() -> Rules:
    return Rules()


@pytest.fixture
async def ruled(rules: Rules) -> AsyncIterator[Rig]:
    more = {"claim_timeout": 100.0, "prepare": lambda chat: chat.remote_agent("far", spawns=["far"])}
    async with running(auth=Auth(who, rules), **more) as rig:
        yield rig


# ---------------------------------------------------------------------- what there is before somebody asks


async def nothing(rig: Rig) -> Names:
    return {}


async def done(rig: Rig) -> Names:
    """A question with an answer, and a note of Bob's at it."""
    answer, call = await rig.begun()
    call.say("Good day.").finish()
    await answer.end()
    await rig.ended()
    noted = await rig.as_user("bob").ask(
        "POST", "/api/sessions/c/annotations", {"message": "u1", "type": "reaction", "data": {"name": "+1"}, "id": "a"}
    )
    assert noted.status == 201
    return {"run": call.run.id, "reply": call.run.message_id}


async def busy(rig: Rig) -> Names:
    """A reply that is being written, and two that read it."""
    answer, call = await rig.begun()
    call.say("Well. ")
    await answer.until_text("Well. ")
    joined = await rig.open("GET", f"/api/tanstack?runId={call.run.id}&offset=-1")
    feed = await rig.open("GET", "/api/sessions/c/events", headers={"Strandline-Reader": "mine"})
    await joined.until(lambda: joined.cursor)
    await feed.until(lambda: feed.cursor)
    await joined.drop()
    return {"run": call.run.id, "cursor": joined.cursor, "sent": feed.cursor}


async def suspended(rig: Rig) -> Names:
    """A reply that waits for an approval."""
    _, call = await asked(rig, lambda run: run.request_approval("refund", REFUND))
    (waiting,) = await pending(rig)
    mine = answering(await reply(rig), {"approved": True})
    return {"run": call.run.id, "decision": waiting["id"], "mine": mine}


async def waiting(rig: Rig) -> Names:
    """A question that a remote agent is to answer."""
    answer = await rig.post("c", headers=FAR)
    return {"run": answer.headers["strandline-run"]}


async def claimed(rig: Rig) -> Names:
    """The same, and a worker has taken it."""
    names = await waiting(rig)
    worker = Client(rig.app, {"x-roles": "agent"})
    taken = await worker.ask("POST", f"/api/agents/runs/{names['run']}/claim", {"holder": "w", "claim": "1"})
    assert taken.status == 200
    return names


# ---------------------------------------------------------------------- the table


@dataclass(frozen=True)
class Row:
    """``action`` is what ``route`` asks for, besides ``along``. ``passes`` and ``refused`` are status and code."""

    route: str
    action: Action
    world: Callable[[Rig], Any]
    passes: int = 200
    refused: tuple[int, str | None] = (404, "not-found")
    body: Callable[[Names], Any] = lambda names: None
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    user: str = "ann"
    along: frozenset[Action] = frozenset({Action.READ})
    about: str = ""

    def __str__(self) -> str:
        return f"{self.route} {self.about} {self.action}".replace("  ", " ")


def said(names: Names) -> Any:
    return {"message": {"id": "new", "role": "user", "parts": SAID}}


def run_input(names: Names) -> Any:
    return {"threadId": "c", "runId": "r", "messages": [{"id": "new", "role": "user", "content": "hello"}]}


def resumption(names: Names) -> Any:
    given = {"interruptId": names["decision"], "status": "resolved", "payload": {"approved": True}}
    return {"threadId": "c", "runId": "r", "messages": [], "resume": [given]}


def posted_back(names: Names) -> Any:
    return {"id": "c", "messages": [names["mine"]], "messageId": names["mine"]["id"]}


def written(**more: Any) -> Callable[[Names], Any]:
    return lambda names: {"producer": 1, "sequence": 1, **more}


ONE, CHAT, TANSTACK = "/api/sessions/{session_id}", "/api/chat/{chat_id}", "/api/tanstack"
NOT_YOURS = (403, "not-yours-to-decide")
NOT_THE_AUTHOR = (403, "not-the-author")
ABOUT = "POST /api/agents/runs/{run_id}/{question}"
A_WORKER = {"x-roles": "agent"}
TAKING = {"holder": "w", "claim": "1"}

ROWS = [
    Row("GET /api/sessions", Action.LIST, done, refused=(403, "forbidden")),
    Row("POST /api/sessions", Action.MANAGE, nothing, 201, body=lambda names: {"id": "c", "title": "Tides"}),
    Row(f"GET {ONE}", Action.READ, done),
    Row(f"PATCH {ONE}", Action.MANAGE, done, body=lambda names: {"title": "Tides"}),
    Row(f"DELETE {ONE}", Action.DELETE, done, 204),
    Row(f"GET {ONE}/messages", Action.READ, done),
    Row(f"POST {ONE}/messages", Action.SUBMIT, done, 202, body=said),
    Row(f"POST {ONE}/messages", Action.SUBMIT, nothing, 202, body=said, about="first"),
    Row(
        f"POST {ONE}/messages", Action.DECIDE, suspended, 202, NOT_YOURS, about="answer",
        body=lambda names: {"message": names["mine"], "messageId": names["mine"]["id"]},
    ),
    Row(
        f"POST {ONE}/messages", Action.READ, suspended, 202, about="answer", along=frozenset({Action.DECIDE}),
        body=lambda names: {"message": names["mine"], "messageId": names["mine"]["id"]},
    ),
    Row(f"PATCH {ONE}/messages/{{message_id}}", Action.EDIT, done, body=lambda names: {"parts": SAID * 2}),
    Row(f"DELETE {ONE}/messages/{{message_id}}", Action.EDIT, done, 204),
    Row(
        f"PATCH {ONE}/messages/{{message_id}}", Action.MODERATE, done, 200, NOT_THE_AUTHOR, user="bob",
        body=lambda names: {"parts": SAID * 2}, along=frozenset({Action.READ, Action.EDIT}),
    ),
    Row(
        f"DELETE {ONE}/messages/{{message_id}}", Action.MODERATE, done, 204, NOT_THE_AUTHOR, user="bob",
        along=frozenset({Action.READ, Action.EDIT}),
    ),
    Row(f"POST {ONE}/branch", Action.SUBMIT, done, body=lambda names: {"message": "u1"}),
    Row(f"POST {ONE}/steer", Action.SUBMIT, busy, 202, body=said),
    Row(f"POST {ONE}/stop", Action.STOP, busy, body=lambda names: {}),
    Row(f"GET {ONE}/decisions", Action.READ, suspended),
    Row(
        f"POST {ONE}/decisions/{{decision_id}}", Action.DECIDE, suspended, refused=NOT_YOURS,
        body=lambda names: {"approved": True},
    ),
    Row(
        f"POST {ONE}/decisions/{{decision_id}}", Action.READ, suspended, along=frozenset({Action.DECIDE}),
        body=lambda names: {"approved": True},
    ),
    Row(f"GET {ONE}/events", Action.READ, busy),
    Row(f"GET {ONE}/readers", Action.READ, busy),
    Row(f"POST {ONE}/ack", Action.READ, busy, 204, body=lambda names: {"reader": "mine", "cursor": names["sent"]}),
    Row(f"GET {ONE}/annotations", Action.READ, done, query="?message=u1"),
    Row(
        f"POST {ONE}/annotations", Action.ANNOTATE, done, 201,
        body=lambda names: {"message": "u1", "type": "reaction", "data": {"name": "+1"}},
    ),
    Row(f"DELETE {ONE}/annotations/{{annotation_id}}", Action.ANNOTATE, done, 204, user="bob"),
    Row(
        f"DELETE {ONE}/annotations/{{annotation_id}}", Action.MANAGE, done, 204, (403, "forbidden"),
        about="of another", along=frozenset({Action.ANNOTATE}),
    ),
    Row(
        "POST /api/chat", Action.SUBMIT, done,
        body=lambda names: {"id": "c", "messages": [said(names)["message"]]},
    ),
    Row("POST /api/chat", Action.DECIDE, suspended, refused=NOT_YOURS, body=posted_back, about="answer"),
    Row(
        "POST /api/chat", Action.READ, suspended, body=posted_back, about="answer", along=frozenset({Action.DECIDE}),
    ),
    Row(f"GET {CHAT}/stream", Action.READ, busy, refused=(204, None)),
    Row(f"GET {CHAT}/messages", Action.READ, done, refused=(200, None)),
    Row(f"POST {CHAT}/stop", Action.STOP, busy, body=lambda names: {}),
    Row(f"POST {TANSTACK}", Action.SUBMIT, done, body=run_input),
    Row(f"POST {TANSTACK}", Action.DECIDE, suspended, refused=NOT_YOURS, body=resumption, about="resume"),
    Row(
        f"POST {TANSTACK}", Action.READ, suspended, body=resumption, about="resume", along=frozenset({Action.DECIDE}),
    ),
    Row(
        f"POST {TANSTACK}", Action.READ, busy, about="again", query="?offset={cursor}",
        body=lambda names: {"threadId": "c", "runId": names["run"], "messages": []},
    ),
    Row(f"GET {TANSTACK}", Action.READ, busy, query="?runId={run}", about="join"),
    Row(f"GET {TANSTACK}", Action.READ, done, refused=(200, None), query="?threadId=c", about="load"),
    Row(f"GET {TANSTACK}/events", Action.READ, busy, query="?threadId=c&after={cursor}"),
    Row(f"POST {TANSTACK}/stop", Action.STOP, busy, body=lambda names: {"threadId": "c"}),
    Row(
        "POST /api/agents/{name}/runs", Action.AGENT, done, 201, headers=A_WORKER,
        body=lambda names: {"session": "c", **TAKING},
    ),
    Row(ABOUT, Action.AGENT, waiting, headers=A_WORKER, about="claim", body=lambda names: TAKING),
    Row(ABOUT, Action.AGENT, claimed, headers=A_WORKER, about="append", body=written(text="Good day.")),
    Row(ABOUT, Action.AGENT, claimed, headers=A_WORKER, about="replace", body=written(text="Good day.")),
    Row(ABOUT, Action.AGENT, claimed, headers=A_WORKER, about="restart", body=written()),
    Row(ABOUT, Action.AGENT, claimed, headers=A_WORKER, about="spawn", body=written(agent="far", prompt="Is it good?")),
    Row(ABOUT, Action.AGENT, claimed, headers=A_WORKER, about="heartbeat", body=written()),
    Row(ABOUT, Action.AGENT, claimed, headers=A_WORKER, about="end", body=written(sequence=0, status="completed")),
]  # fmt: skip

ABOUT_NO_SESSION = {
    "GET /api/agents": "asks for a role",
    "GET /api/agents/{name}/runs": "asks for a role, and the policy about every run: see below",
    "GET /api/doctor": "looks at the connection",
    "POST /api/doctor": "looks at the connection",
}


def url_of(row: Row, names: Names) -> str:
    path = row.route.partition(" ")[2] + row.query
    known = {
        "session_id": "c", "chat_id": "c", "message_id": "u1", "annotation_id": "a", "name": "far",
        "question": row.about, "run_id": names.get("run"), "decision_id": names.get("decision"), **names,
    }  # fmt: skip
    return path.format(**known)


async def requested(rig: Rig, row: Row, names: Names) -> Answer:
    """The beginning of the answer: that is where it is decided."""
    method = row.route.partition(" ")[0]
    answer = await rig.as_user(row.user).open(method, url_of(row, names), row.body(names), row.headers)
    if not answer.headers.get("content-type", "").startswith("text/event-stream"):
        await answer.end()
    else:
        await answer.drop()
    return answer


async def everything(rig: Rig) -> Any:
    """What is in the log, and in rows."""
    rows = {each.id: (each, await rig.store.outline(each.id)) for each in await rig.store.sessions()}
    said = {id: await rig.store.messages(id, [each.version for each in rows[id][1].messages]) for id in rows}
    return {id: await rig.log(id) for id in rows}, rows, said


# ---------------------------------------------------------------------- what it shows


def test_every_route_has_a_row(ruled: Rig) -> None:
    routes = {
        f"{method.upper()} {path}"
        for path, known in ruled.chat.app().openapi()["paths"].items()
        for method in known
    }  # fmt: skip
    assert routes == {row.route for row in ROWS} | set(ABOUT_NO_SESSION)


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_what_a_policy_forbids_is_refused_and_leaves_no_trace(ruled: Rig, rules: Rules, row: Row) -> None:
    names = await row.world(ruled)
    before = await everything(ruled)
    rules.permitted = set(Action) - {row.action}
    answer = await requested(ruled, row, names)
    status, code = row.refused
    assert (answer.status, answer.code if code else None) == (status, code), answer.body
    if status == 200:
        assert answer.json["messages"] == []
    assert await everything(ruled) == before


@pytest.mark.parametrize("row", ROWS, ids=str)
async def test_whoever_may_do_this_alone_may_do_it(ruled: Rig, rules: Rules, row: Row) -> None:
    names = await row.world(ruled)
    rules.permitted = {row.action, *row.along}
    answer = await requested(ruled, row, names)
    assert answer.status == row.passes, answer.body
    if row.passes == 200 and row.refused == (200, None):
        assert answer.json["messages"]


async def test_a_list_leaves_out_what_may_not_be_read(ruled: Rig, rules: Rules) -> None:
    await done(ruled)
    assert [each["id"] for each in (await ruled.ask("GET", "/api/sessions")).json["sessions"]] == ["c"]
    rules.permitted = {Action.LIST}
    assert (await ruled.ask("GET", "/api/sessions")).json["sessions"] == []


async def test_a_worker_is_offered_what_the_policy_lets_it_answer(ruled: Rig, rules: Rules) -> None:
    worker = Client(ruled.app, A_WORKER)
    names = await waiting(ruled)
    rules.permitted = {Action.AGENT}
    offered = await worker.open("GET", "/api/agents/far/runs")
    await offered.until(lambda: offered.frames)
    assert offered.frames[0].chunk["run"] == names["run"]
    rules.permitted, rules.hidden = set(Action), "c"
    await ruled.post("other", headers=FAR)
    shown = await worker.open("GET", "/api/agents/far/runs")
    await shown.until(lambda: shown.frames)
    assert [frame.chunk["session"] for frame in shown.frames] == ["other"], "the first one was passed over"
    for each in (offered, shown):
        await each.drop()


# ---------------------------------------------------------------------- roles


async def by_session(client: Client, names: Names) -> Answer:
    return await client.ask("POST", f"/api/sessions/c/decisions/{names['decision']}", {"approved": True})


async def by_message(client: Client, names: Names) -> Answer:
    body = {"message": names["mine"], "messageId": names["mine"]["id"]}
    return await client.ask("POST", "/api/sessions/c/messages", body)


async def by_ai_sdk(client: Client, names: Names) -> Answer:
    return await client.open("POST", "/api/chat", posted_back(names))


async def by_tanstack(client: Client, names: Names) -> Answer:
    return await client.open("POST", TANSTACK, resumption(names))


@pytest.mark.parametrize("answer", [by_session, by_message, by_ai_sdk, by_tanstack])
async def test_who_holds_a_role_decides_and_nobody_else(ruled: Rig, answer: Callable[..., Any]) -> None:
    await asked(ruled, lambda run: run.request_approval("refund", REFUND, roles=["boss", "support"]))
    (open_one,) = await pending(ruled)
    names = {"decision": open_one["id"], "mine": answering(await reply(ruled), {"approved": True})}
    before = await everything(ruled)
    agent: ScriptedAgent = ruled.agent
    for roles in ("", "bosses other"):
        refused = await answer(Client(ruled.app, {"x-user": "bob", "x-roles": roles}), names)
        assert (refused.status, refused.code) == NOT_YOURS
    assert await everything(ruled) == before
    taken = await answer(Client(ruled.app, {"x-user": "bob", "x-roles": "other support"}), names)
    assert taken.status in (200, 202), taken.body
    call = await agent.called(2)
    (decision,) = call.run.decisions
    assert (decision.outcome, decision.decided_by) == ("approved", "user:bob")
    assert call.run.user.user == "ann"
