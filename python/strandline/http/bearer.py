"""Who is calling, from a signed token: ``Authorization: Bearer <JWT>`` (RFC 6750, RFC 7519, RFC 8725).

Made for PyJWT 2.10 and later (the extra ``strandline[jwt]``), imported only when it is used. Weak set-ups are refused
when the application is put together; whatever is wrong with a token, its sender learns no more than that it was
refused or has expired, and the log has the reason.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.concurrency import run_in_threadpool

from strandline.errors import Misconfigured, Unauthorized, Unavailable

# RFC 7518 §3.2: a key of the size of the hash output, or larger.
_SECRET_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}
_PUBLIC = frozenset(
    ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "ES256K", "EdDSA")
)
_MIN_RSA_BITS = 2048

KeyFinder = Callable[[str | None], Any]
"""From the token's ``kid`` (None where it has none) to its key; may be async; LookupError where there is none."""

logger = logging.getLogger("strandline.http")


def bearer_dependency(
    key: Any,
    *,
    algorithms: Sequence[str],
    audience: str | Sequence[str] | None,
    issuer: str | Sequence[str] | None,
    user_claim: str,
    roles_claim: str,
    leeway: float,
) -> Callable[..., Awaitable[Mapping[str, Any]]]:
    """A FastAPI dependency that gives ``{"user", "roles", "claims"}`` or raises Unauthorized."""
    jwt = _pyjwt()
    allowed = _allowed(algorithms)
    finder = key if callable(key) else None
    if finder is None:
        for algorithm in allowed:
            _check_key(jwt, key, algorithm)
    scheme = HTTPBearer(auto_error=False, bearerFormat="JWT", scheme_name="bearer")

    async def bearer(credentials: HTTPAuthorizationCredentials | None = Depends(scheme)) -> Mapping[str, Any]:  # noqa: B008
        if credentials is None:
            raise Unauthorized("Send 'Authorization: Bearer <token>' with this request")
        token = credentials.credentials
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in allowed:
                raise jwt.InvalidAlgorithmError("the alg of the token is not one of the algorithms")
            used = key if finder is None else await _found(jwt, finder, header)
            claims = jwt.decode(
                token,
                used,
                algorithms=allowed,
                audience=audience,
                issuer=issuer,
                leeway=leeway,
                options={"require": ["exp", user_claim]},
            )
        except jwt.ExpiredSignatureError:
            raise _refused("The token has expired; sign in again") from None
        except jwt.PyJWKClientConnectionError as error:
            logger.warning("the keys of the issuer cannot be fetched: %s", error, extra={"action": "keys-unavailable"})
            raise Unavailable("The server cannot check tokens just now; try again", retry_after=5.0) from None
        except (jwt.PyJWTError, LookupError) as error:
            # By its class: the text may hold what was in the token.
            logger.info("a token was refused: %s", type(error).__name__, extra={"action": "token-refused"})
            raise _refused("The token is not valid here") from None
        user = claims[user_claim]
        if isinstance(user, bool) or not isinstance(user, str | int):
            logger.info("a token was refused: %s is no user id", user_claim, extra={"action": "token-refused"})
            raise _refused("The token is not valid here")
        return {"user": user, "roles": _roles(claims.get(roles_claim)), "claims": claims}

    return bearer


async def _found(jwt: Any, finder: KeyFinder, header: Mapping[str, Any]) -> Any:
    kid = header.get("kid")
    if inspect.iscoroutinefunction(finder):
        key = await finder(kid)
    else:  # a PyJWKClient fetches over the network: not on the event loop
        key = await run_in_threadpool(finder, kid)
        if inspect.isawaitable(key):
            key = await key
    if key is None:
        raise LookupError(f"no key with the id {str(kid)[:100]!r}")
    _check_key(jwt, key, header["alg"])
    return key


def _allowed(algorithms: Sequence[str]) -> list[str]:
    names = [algorithms] if isinstance(algorithms, str) else list(algorithms)
    known = set(_SECRET_BYTES) | _PUBLIC
    unknown = [name for name in names if name not in known]
    if not names or unknown:
        seen = f", not {', '.join(map(repr, unknown))}" if unknown else ""
        raise Misconfigured(f"jwt_bearer: algorithms must be one or more of {', '.join(sorted(known))}{seen}")
    if not _PUBLIC.isdisjoint(names) and not _PUBLIC.issuperset(names):
        raise Misconfigured(
            "jwt_bearer: HS algorithms (a shared secret) and the others (a public key) cannot be mixed: whoever knows"
            " the public key could sign tokens with it"
        )
    return names


def _check_key(jwt: Any, key: Any, algorithm: str) -> None:
    """Raise Misconfigured unless the key fits the algorithm and is strong enough for it."""
    if isinstance(key, jwt.PyJWK):
        if key.algorithm_name != algorithm:
            raise jwt.InvalidAlgorithmError("the alg of the token is not that of its key")
        key = key.key
    try:
        prepared = jwt.get_algorithm_by_name(algorithm).prepare_key(key)
    except NotImplementedError:
        raise _not_installed("jwt_bearer: this algorithm needs the package cryptography") from None
    except (jwt.InvalidKeyError, TypeError, ValueError) as error:
        raise Misconfigured(f"jwt_bearer: the key cannot be used with {algorithm}: {error}") from None
    if hasattr(prepared, "private_bytes"):
        raise Misconfigured("jwt_bearer: this is a private key; give the public key, which is all that checking needs")
    needed = _SECRET_BYTES.get(algorithm)
    if needed is not None and len(prepared) < needed:
        raise Misconfigured(
            f"jwt_bearer: the secret for {algorithm} must have at least {needed} bytes, this one has {len(prepared)}."
            f" Make one with: python -c 'import secrets; print(secrets.token_urlsafe({needed}))'"
        )
    bits = getattr(prepared, "key_size", _MIN_RSA_BITS)
    if algorithm.startswith(("RS", "PS")) and bits < _MIN_RSA_BITS:
        raise Misconfigured(f"jwt_bearer: an RSA key must have at least {_MIN_RSA_BITS} bits, this one has {bits}")


def _roles(claim: Any) -> frozenset[str]:
    """A list of names, or names in one string with spaces between (as ``scope``). Anything else is no role."""
    if isinstance(claim, str):
        return frozenset(claim.split())
    if isinstance(claim, list):
        return frozenset(role for role in claim if isinstance(role, str))
    return frozenset()


def _refused(detail: str) -> Unauthorized:
    return Unauthorized(detail, code="token-refused", challenge='Bearer error="invalid_token"')


def _pyjwt() -> Any:
    try:
        import jwt
    except ImportError:
        raise _not_installed("jwt_bearer needs PyJWT") from None
    return jwt


def _not_installed(what: str) -> Misconfigured:
    return Misconfigured(f'{what}: pip install "strandline[jwt]"')
