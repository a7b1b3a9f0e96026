"""A page of another site cannot stop a reply by a request that its visitor's browser sends without asking."""

from __future__ import annotations

import pytest

from rig import Rig

CROSS = {"sec-fetch-site": "cross-site", "origin": "https://elsewhere.example"}

FORMS = [None, "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain;charset=UTF-8"]
"""What a form, a beacon or a `no-cors` fetch can say without a question (CORS) going first."""


@pytest.mark.parametrize("site", ["cross-site", None, "same-origin", "same-site", "none"])
@pytest.mark.parametrize("form", FORMS)
async def test_a_stop_without_json_is_refused_from_another_site_only(
    rig: Rig, form: str | None, site: str | None
) -> None:
    answer, call = await rig.begun()
    headers = {**({"sec-fetch-site": site} if site else {}), **({"content-type": form} if form else {})}
    told = await rig.ask("POST", "/api/chat/c/stop", headers=headers)
    if site in ("cross-site", "same-site"):
        assert (told.status, told.code) == (403, "cross-site")
        assert (await rig.history("c"))["activeRun"]["id"] == call.run.id
        assert not call.closed
        call.finish()
    else:
        assert (told.status, told.json["stopped"]) == (200, True)
    await answer.end()


@pytest.mark.parametrize("form", FORMS[1:])
async def test_a_form_with_a_json_body_is_refused_as_well(rig: Rig, form: str) -> None:
    _, call = await rig.begun()
    told = await rig.open("POST", "/api/chat/c/stop", b"{}", {**CROSS, "content-type": form}, raw=True)
    await told.end()
    assert told.status in (403, 415)
    assert not call.closed
    call.finish()


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8", "Application/JSON"])
async def test_a_stop_from_another_site_works_as_json(rig: Rig, content_type: str) -> None:
    answer, _ = await rig.begun()
    told = await rig.ask("POST", "/api/chat/c/stop", {}, {**CROSS, "content-type": content_type})
    assert (told.status, told.json["stopped"]) == (200, True)
    await answer.end()


async def test_an_unknown_session_is_no_exception(rig: Rig) -> None:
    for chat in ("c", "nowhere"):
        told = await rig.ask("POST", f"/api/chat/{chat}/stop", headers=CROSS)
        assert (told.status, told.code) == (403, "cross-site")
