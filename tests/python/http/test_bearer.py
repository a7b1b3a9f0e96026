"""Signed tokens: the good ones get in, every other gets the same short answer, and weak set-ups do not start."""

from __future__ import annotations

import base64
import builtins
import json
import logging
import time
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from fastapi import APIRouter, Depends, FastAPI

from strandline.errors import Misconfigured
from strandline.http.auth import Auth, Identity, identity_dependency, jwt_bearer
from strandline.http.problems import ProblemRoute

SECRET = "a-secret-of-at-least-thirty-two-bytes!"
RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()


def pem(key: Any) -> str:
    encoded: bytes = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded.decode()


def token(key: Any = SECRET, algorithm: str = "HS256", headers: dict[str, Any] | None = None, **claims: Any) -> str:
    payload = {"sub": "ann", "exp": int(time.time()) + 86_400} | claims
    kept = {name: value for name, value in payload.items() if value is not None}
    return jwt.encode(kept, key, algorithm, headers=headers)


async def call(auth: Auth, authorization: str | None) -> httpx.Response:
    """Ask who is calling. The header may have any characters; httpx by itself sends only ASCII."""
    router = APIRouter(route_class=ProblemRoute)

    @router.get("/me")
    async def me(identity: Identity = Depends(identity_dependency(auth))) -> dict[str, Any]:  # noqa: B008
        return {"user": identity.user, "roles": sorted(identity.roles), "claims": dict(identity.claims)}

    app = FastAPI()
    app.include_router(router)
    headers = {} if authorization is None else {b"Authorization": authorization.encode()}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://api.example") as http:
        return await http.get("/me", headers=headers)


async def admitted(auth: Auth, sent: str) -> dict[str, Any]:
    answer = await call(auth, f"Bearer {sent}")
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    return result


async def refused(auth: Auth, sent: str) -> str:
    answer = await call(auth, f"Bearer {sent}")
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (401, "token-refused")
    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    detail: str = problem["detail"]
    assert detail in ("The token is not valid here", "The token has expired; sign in again")
    return detail


@pytest.mark.parametrize(
    ("verify", "sign", "algorithm"),
    [
        (SECRET, SECRET, "HS256"),
        (SECRET.encode(), SECRET, "HS256"),
        (SECRET * 2, SECRET * 2, "HS512"),
        (pem(RSA), RSA, "RS256"),
        (RSA.public_key(), RSA, "PS256"),
        (EC.public_key(), EC, "ES256"),
        (pem(EC), EC, "ES256"),
        (pem(ED), ED, "EdDSA"),
    ],
)
async def test_a_token_signed_with_the_right_key_says_who_is_calling(verify: Any, sign: Any, algorithm: str) -> None:
    auth = jwt_bearer(verify, algorithms=[algorithm])
    who = await admitted(auth, token(sign, algorithm, roles=["admin", 7], tenant="t1"))
    assert (who["user"], who["roles"], who["claims"]["tenant"]) == ("ann", ["admin"], "t1")


async def test_the_claims_that_are_read_can_be_chosen() -> None:
    auth = jwt_bearer(SECRET, user_claim="email", roles_claim="scope")
    who = await admitted(auth, token(email="ann@example.org", scope="read write"))
    assert (who["user"], who["roles"]) == ("ann@example.org", ["read", "write"])
    await refused(auth, token())


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer ", "Basic YW5uOng=", token()])
async def test_a_request_without_a_bearer_token_is_told_what_to_send(authorization: str | None) -> None:
    answer = await call(jwt_bearer(SECRET), authorization)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "Authorization: Bearer" in answer.json()["detail"]


async def test_the_scheme_may_be_written_in_any_case() -> None:
    assert (await call(jwt_bearer(SECRET), f"bearer {token()}")).status_code == 200


async def test_an_expired_token_is_told_so_after_the_leeway() -> None:
    auth = jwt_bearer(SECRET, leeway=10)
    await admitted(auth, token(exp=int(time.time()) - 5))
    assert "expired" in await refused(auth, token(exp=int(time.time()) - 15))


async def test_an_expired_token_with_a_wrong_signature_is_not_told_so() -> None:
    assert "expired" not in await refused(jwt_bearer(SECRET), token("x" * 40, exp=1))


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(token(exp=None), id="no exp"),
        pytest.param(token(sub=None), id="no sub"),
        pytest.param(token(sub=42), id="a sub that is no string"),
        pytest.param(token(nbf=int(time.time()) + 43_200), id="not yet valid"),
        pytest.param(token(aud="elsewhere"), id="for somebody else"),
        pytest.param(token("another-secret-of-thirty-two-bytes!!"), id="another secret"),
        pytest.param(token(SECRET * 2, "HS512"), id="another algorithm"),
        pytest.param(token()[:-4] + "AAAA", id="a changed signature"),
        pytest.param(token().rpartition(".")[0] + ".", id="no signature"),
        pytest.param("a.b.c", id="no token"),
        pytest.param("a b", id="two words"),
        pytest.param("…", id="not ascii"),
    ],
)
async def test_every_other_token_gets_the_same_answer(sent: str) -> None:
    answer = await call(jwt_bearer(SECRET), f"Bearer {sent}")
    assert (answer.status_code, answer.json()["detail"]) == (401, "The token is not valid here")


@pytest.mark.parametrize("user", ["", "x" * 201, "a\nb"])
async def test_a_token_for_an_impossible_user_is_refused(user: str) -> None:
    assert (await call(jwt_bearer(SECRET), f"Bearer {token(sub=user)}")).status_code == 401


async def test_audience_and_issuer_are_checked() -> None:
    auth = jwt_bearer(SECRET, audience=["chat", "ops"], issuer="https://id.example")
    await admitted(auth, token(aud="chat", iss="https://id.example"))
    await refused(auth, token(aud="mail", iss="https://id.example"))
    await refused(auth, token(aud="chat", iss="https://evil.example"))
    await refused(auth, token(aud="chat"))
    await refused(auth, token(iss="https://id.example"))


def forged(header: dict[str, Any], signature: bytes = b"") -> str:
    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    payload = {"sub": "ann", "exp": int(time.time()) + 86_400}
    return f"{part(json.dumps(header).encode())}.{part(json.dumps(payload).encode())}.{part(signature)}"


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "", None, ["HS256"], {"a": 1}])
async def test_an_unsigned_token_is_refused(alg: Any) -> None:
    for auth in (jwt_bearer(SECRET), jwt_bearer(pem(RSA), algorithms=["RS256"])):
        await refused(auth, forged({"alg": alg, "typ": "JWT"}))
    await refused(jwt_bearer(SECRET), forged({"typ": "JWT"}))


@pytest.mark.parametrize(("key", "algorithm"), [(RSA, "RS256"), (EC, "ES256")])
async def test_a_public_key_cannot_be_used_as_a_secret(key: Any, algorithm: str) -> None:
    import hashlib
    import hmac

    public = pem(key).encode()
    head, _, _ = forged({"alg": "HS256", "typ": "JWT"}).rpartition(".")
    signature = hmac.new(public, head.encode(), hashlib.sha256).digest()
    confused = f"{head}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
    await refused(jwt_bearer(public, algorithms=[algorithm]), confused)
    await refused(jwt_bearer(lambda kid: public, algorithms=[algorithm]), confused)


async def test_the_reason_is_in_the_log_and_the_token_is_not(caplog: pytest.LogCaptureFixture) -> None:
    sent = token(aud="elsewhere")
    with caplog.at_level(logging.INFO, "strandline.http"):
        await refused(jwt_bearer(SECRET), sent)
    assert "udience" in caplog.text
    assert sent not in caplog.text


async def test_what_stands_in_a_token_is_not_logged_either(caplog: pytest.LogCaptureFixture) -> None:
    sent = token(RSA, "RS256", headers={"kid": "swordfish"})
    with caplog.at_level(logging.DEBUG, "strandline"):
        await refused(jwt_bearer(lambda kid: {}[kid or ""], algorithms=["RS256"]), sent)
    assert "KeyError" in caplog.text
    assert "swordfish" not in caplog.text


# --- keys by id -----------------------------------------------------------------------------------------------------


async def test_a_key_may_be_found_by_its_id() -> None:
    keys = {"r1": pem(RSA), "e1": EC.public_key()}

    def find(kid: str | None) -> Any:
        return keys[kid or ""]

    async def find_async(kid: str | None) -> Any:
        return keys.get(kid or "")

    for finder in (find, find_async):
        auth = jwt_bearer(finder, algorithms=["RS256", "ES256"])
        await admitted(auth, token(RSA, "RS256", headers={"kid": "r1"}))
        await admitted(auth, token(EC, "ES256", headers={"kid": "e1"}))
        await refused(auth, token(EC, "ES256", headers={"kid": "gone"}))
        await refused(auth, token(EC, "ES256"))


async def test_a_json_web_key_may_be_given_or_found() -> None:
    jwk = jwt.PyJWK(json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(RSA.public_key())) | {"alg": "RS256"})
    await admitted(jwt_bearer(jwk, algorithms=["RS256"]), token(RSA, "RS256"))
    finder = jwt_bearer(lambda kid: jwk, algorithms=["RS256", "PS256"])
    await admitted(finder, token(RSA, "RS256"))
    await refused(finder, token(RSA, "PS256"))


async def test_an_issuer_that_cannot_be_asked_is_a_503_and_not_the_callers_fault() -> None:
    def unreachable(kid: str | None) -> Any:
        raise jwt.PyJWKClientConnectionError("timed out")

    answer = await call(jwt_bearer(unreachable, algorithms=["RS256"]), f"Bearer {token(RSA, 'RS256')}")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


async def test_a_weak_key_that_is_found_is_a_fault_of_the_server() -> None:
    answer = await call(jwt_bearer(lambda kid: "short"), f"Bearer {token()}")
    assert (answer.status_code, answer.json()["code"]) == (500, "misconfigured")


# --- set-ups that do not start --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "algorithms", "hint"),
    [
        (SECRET[:31], ["HS256"], "at least 32 bytes, this one has 31"),
        (SECRET, ["HS512"], "at least 64 bytes"),
        (SECRET, ["HS256", "HS512"], "at least 64 bytes"),
        ("", ["HS256"], "empty"),
        (None, ["HS256"], "cannot be used with HS256"),
        (pem(RSA), ["HS256"], "cannot be used with HS256"),
        (pem(RSA), ["RS256", "HS256"], "cannot be mixed"),
        (lambda kid: None, ["HS256", "ES256"], "cannot be mixed"),
        (SECRET, ["none"], "not 'none'"),
        (SECRET, ["HS256", "none"], "not 'none'"),
        (SECRET, [], "algorithms must be"),
        (SECRET, ["hs256"], "not 'hs256'"),
        (SECRET, ["RS256"], "cannot be used with RS256"),
        (pem(RSA), ["ES256"], "cannot be used with ES256"),
        (pem(EC), ["RS256", "ES256"], "cannot be used with RS256"),
        (pem(EC), ["ES384"], "cannot be used with ES384"),
        (RSA, ["RS256"], "give the public key"),
        (EC, ["ES256"], "give the public key"),
        (ED, ["EdDSA"], "give the public key"),
    ],
)
def test_a_weak_or_mixed_set_up_does_not_start(key: Any, algorithms: list[str], hint: str) -> None:
    with pytest.raises(Misconfigured, match=hint):
        jwt_bearer(key, algorithms=algorithms)


def test_a_short_rsa_key_does_not_start() -> None:
    weak = rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key()
    with pytest.raises(Misconfigured, match="at least 2048 bits, this one has 1024"):
        jwt_bearer(weak, algorithms=["RS256"])


def test_one_algorithm_may_be_written_without_a_list() -> None:
    jwt_bearer(SECRET, algorithms="HS256")


def test_without_pyjwt_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "jwt":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(Misconfigured, match=r'pip install "strandline\[jwt\]"'):
        jwt_bearer(SECRET)
