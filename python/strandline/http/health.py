"""Whether the process lives, and whether it should be sent requests (PROTOCOL §13). For load balancers and supervisors,
which have no identity: they are told this and nothing else."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from strandline.runtime.service import Service

_METHODS = ["GET", "HEAD"]
_FRESH = {"Cache-Control": "no-store"}
_RETRY = {**_FRESH, "Retry-After": "1"}


def router(service: Service) -> APIRouter:
    """The routes, without prefix."""
    routes = APIRouter()

    @routes.api_route("/healthz", methods=_METHODS, include_in_schema=False)
    async def alive() -> JSONResponse:
        # That this is answered at all says that the event loop turns.
        if service.alive:
            return JSONResponse({"alive": True}, headers=_FRESH)
        return JSONResponse({"alive": False}, 503, _RETRY)

    @routes.api_route("/readyz", methods=_METHODS, include_in_schema=False)
    async def ready() -> JSONResponse:
        why = service.unready
        if why is None:
            return JSONResponse({"ready": True}, headers=_FRESH)
        return JSONResponse({"ready": False, "reason": why}, 503, _RETRY)

    return routes
