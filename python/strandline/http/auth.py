"""Who is calling, and what they may do (DESIGN §11).

An ``Auth`` is a FastAPI dependency that says who is calling, and a policy that says what they may do. The application
brings its own dependency (cookie sessions, existing users), or takes ``jwt_bearer``, or, on its own machine only,
``open_on_loopback``. There is no default: a Strandline without auth does not start.
"""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from fastapi import Depends
from starlette.requests import HTTPConnection

from strandline.core.ids import InvalidId, check_id
from strandline.core.records import SessionRecord
from strandline.errors import Misconfigured, Unauthorized, Unprocessable
from strandline.http.bearer import bearer_dependency
from strandline.http.loopback import check_loopback, is_loopback
from strandline.http.wire import DEVICE_HEADER

MAX_USER = 200
DEVICE_QUERY = "device"


class Action(StrEnum):
    """What somebody wants to do with a session (LIST: with the list of their sessions).

    MANAGE is to create it without a message, to rename and to archive it. A first message creates it too: SUBMIT, which
    is also to go to another branch. EDIT is to change and to delete messages that are there; those that another user
    has sent need MODERATE as well. DECIDE is to approve or deny, and to give a client tool's output; who asks for it
    may require a role besides. AGENT is to answer in it, as a remote agent (PROTOCOL §18): whoever may is believed to
    be the assistant. It needs the role ``agent``, or ``agent:<name>`` for the agent of that name, whatever a policy
    says."""

    READ = "read"
    SUBMIT = "submit"
    EDIT = "edit"
    MODERATE = "moderate"
    STOP = "stop"
    DECIDE = "decide"
    LIST = "list"
    MANAGE = "manage"
    DELETE = "delete"
    ANNOTATE = "annotate"
    AGENT = "agent"


AGENT_ROLE = "agent"


def serves(identity: Identity, agent: str) -> bool:
    """Whether this is a worker of the agent: who is not one never adds to what an assistant says."""
    return not identity.roles.isdisjoint((AGENT_ROLE, f"{AGENT_ROLE}:{agent}"))


@dataclass(frozen=True, slots=True)
class Identity:
    """Who is calling. ``user`` owns sessions and is stored with every event that they cause.

    user: 1 to 200 printable characters (else Unauthorized); device: an id that the client chose (PROTOCOL §2.1), or
    None; roles and claims: for the policy and the agent, never stored by Strandline.
    """

    user: str
    device: str | None = None
    roles: frozenset[str] = frozenset()
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False, hash=False)

    def __post_init__(self) -> None:
        if not isinstance(self.user, str):
            raise TypeError(f"Identity.user must be a str, not {type(self.user).__name__}")
        if not 1 <= len(self.user) <= MAX_USER or not self.user.isprintable() or not self.user.strip():
            raise Unauthorized(f"A user id must be 1 to {MAX_USER} printable characters", code="invalid-user")
        if self.device is not None:
            try:
                check_id(self.device, "device")
            except InvalidId as error:
                raise Unprocessable(str(error), code="invalid-id") from None
        if isinstance(self.roles, str):
            raise TypeError("Identity.roles must be a set of names, not one str")
        object.__setattr__(self, "roles", frozenset(self.roles))
        object.__setattr__(self, "claims", MappingProxyType(dict(self.claims)))


Policy = Callable[[Identity, SessionRecord | None, Action], bool]
"""May this identity do this? The session is None when it does not exist (yet), and for LIST.

Called on the event loop: it must not block. What it forbids looks to the caller as if it did not exist.
"""


def owner_only(identity: Identity, session: SessionRecord | None, action: Action) -> bool:
    """A session belongs to its creator; one that does not exist may be created by anyone who is identified. Remote
    agents (by their role) answer in every session, and may do nothing else with it."""
    if action is Action.AGENT:
        return any(role.partition(":")[0] == AGENT_ROLE for role in identity.roles)
    return session is None or session.owner == identity.user


@dataclass(frozen=True, slots=True)
class Auth:
    """How Strandline learns who is calling, and what they may do.

    dependency: any FastAPI dependency (it may use Depends itself, be sync or async, or yield). It returns an Identity,
    a user id (str, int or UUID), or a mapping with "user" and optionally "device", "roles", "claims"; None means that
    nobody is signed in (401). loopback_only: refuse every request that does not come from this machine.
    """

    dependency: Callable[..., Any]
    policy: Policy = owner_only
    loopback_only: bool = False

    def __post_init__(self) -> None:
        if not callable(self.dependency) or not callable(self.policy):
            raise Misconfigured("Auth(dependency, policy): both must be functions")
        if inspect.iscoroutinefunction(self.policy) or inspect.iscoroutinefunction(type(self.policy).__call__):
            raise Misconfigured("a policy must not be async: its coroutine would count as yes, for everyone")


def resolve_auth(value: Auth | Callable[..., Any] | None) -> Auth:
    """What ``Strandline(auth=...)`` means: an Auth, or a bare dependency. Misconfigured says what to write instead."""
    if isinstance(value, Auth):
        return value
    if value is open_on_loopback or value is jwt_bearer:
        name = getattr(value, "__name__", "")
        raise Misconfigured(f"auth={name} is a function that makes an Auth; call it: auth={name}(...)")
    if value is owner_only:
        raise Misconfigured("auth=owner_only is a policy; write auth=Auth(your_dependency, policy=owner_only)")
    if callable(value):
        return Auth(value)
    inner = getattr(value, "dependency", None)
    if callable(inner):  # Depends(f)
        raise Misconfigured(f"auth=Depends({getattr(inner, '__name__', 'f')}): pass the function itself, not Depends")
    seen = "is missing" if value is None else f"is a {type(value).__name__}, which says nothing about the caller"
    raise Misconfigured(
        f"Strandline(auth=...) {seen}. Write auth=open_on_loopback() to develop on your own machine,"
        " auth=jwt_bearer(key) for signed tokens, or auth=current_user, a FastAPI dependency of yours that returns the"
        " user's id."
    )


def open_on_loopback(user: str = "local") -> Auth:
    """For development: everyone on this machine is ``user`` and may serve any remote agent, and nobody else is answered
    (403 open-beyond-loopback)."""
    identity = Identity(user, roles=frozenset({AGENT_ROLE}))

    async def everyone_is_local() -> Identity:
        return identity

    return Auth(everyone_is_local, loopback_only=True)


def jwt_bearer(
    key: Any,
    *,
    algorithms: Sequence[str] = ("HS256",),
    audience: str | Sequence[str] | None = None,
    issuer: str | Sequence[str] | None = None,
    user_claim: str = "sub",
    roles_claim: str = "roles",
    leeway: float = 10.0,
    policy: Policy = owner_only,
) -> Auth:
    """The caller is the ``user_claim`` of the signed token in ``Authorization: Bearer``. Needs ``strandline[jwt]``.

    key: the secret (HS; at least as many bytes as the hash), a public key (PEM, or a key object) or a ``jwt.PyJWK``;
    or a function from the token's ``kid`` to one of these, sync (run in a thread) or async, for example
    ``jwt.PyJWKClient(url).get_signing_key``. A token must have ``exp``; one with ``aud`` is accepted only where
    ``audience`` names it; leeway is seconds of clock difference. Raises Misconfigured for weak or mixed keys.
    """
    dependency = bearer_dependency(
        key,
        algorithms=algorithms,
        audience=audience,
        issuer=issuer,
        user_claim=user_claim,
        roles_claim=roles_claim,
        leeway=leeway,
    )
    return Auth(dependency, policy)


def identity_dependency(auth: Auth) -> Callable[..., Awaitable[Identity]]:
    """The one dependency that routes use: asks ``auth.dependency`` and gives an Identity.

    ``app.dependency_overrides[auth.dependency]`` works as usual; the loopback check cannot be overridden with it.
    """

    async def guard(connection: HTTPConnection) -> None:
        if auth.loopback_only:
            check_loopback(connection)

    async def identity(
        connection: HTTPConnection,
        _: None = Depends(guard),  # first, so that a stranger never reaches the application's dependency
        caller: Any = Depends(auth.dependency),  # noqa: B008
    ) -> Identity:
        return _with_device(_identity(caller), connection)

    return identity


def refuse_public_bind(auth: Auth, host: str) -> None:
    """Raise Misconfigured where the command line is told to listen beyond loopback with the open mode.

    ``host`` is an address or a name; "" and "0.0.0.0" mean every interface.
    """
    if auth.loopback_only and not is_loopback(host):
        raise Misconfigured(
            f"open_on_loopback() lets everyone in who reaches the server, so it listens on 127.0.0.1 only, not on"
            f" {host or '0.0.0.0'!r}. Use --host 127.0.0.1, or give Strandline an auth that asks who is calling"
            " (jwt_bearer(...) or your own FastAPI dependency)."
        )


def _identity(caller: Any) -> Identity:
    if caller is None:
        raise Unauthorized("Sign in first: nobody is signed in with this request")
    if isinstance(caller, Identity):
        return caller
    if not isinstance(caller, Mapping):
        return Identity(_user_id(caller))
    if "user" not in caller:
        raise Misconfigured("the auth dependency returned a mapping without 'user'")
    if caller["user"] is None:
        raise Unauthorized("Sign in first: nobody is signed in with this request")
    return Identity(
        _user_id(caller["user"]),
        device=caller.get("device"),
        roles=frozenset(caller.get("roles") or ()),
        claims=caller.get("claims") or {},
    )


def _user_id(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | uuid.UUID) and not isinstance(value, bool):
        return str(value)
    raise Misconfigured(
        f"the auth dependency returned a {type(value).__name__}; it must return an Identity, a user id (str, int or"
        " UUID), or a mapping with 'user'"
    )


def _with_device(identity: Identity, connection: HTTPConnection) -> Identity:
    """A device that the application vouches for wins over the one that the client names."""
    named = connection.headers.get(DEVICE_HEADER) or connection.query_params.get(DEVICE_QUERY)
    if identity.device is not None or not named:
        return identity
    return Identity(identity.user, named, identity.roles, identity.claims)
