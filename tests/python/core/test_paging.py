"""Pages of a path: every message once, whichever way one turns them."""

from __future__ import annotations

import pytest

from strandline.core.paging import Page, page_of
from strandline.core.records import MessageRecord


def path(length: int) -> list[MessageRecord]:
    return [MessageRecord("s", f"v{n}", f"m{n}", None, "user", "user:ann", n) for n in range(length)]


def ids(page: Page | None) -> list[str]:
    assert page is not None
    return [message.message_id for message in page.messages]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8])
@pytest.mark.parametrize("hidden", [set(), {"v6"}, {"v0", "v3"}])
def test_the_pages_from_the_newest_back_and_forth_again_are_the_whole_path(limit: int, hidden: set[str]) -> None:
    whole = [f"m{n}" for n in range(7) if f"v{n}" not in hidden]
    page = page_of(path(7), hidden, limit)
    assert ids(page) == whole[-limit:]
    assert page is not None
    assert page.after is None
    back = [ids(page)]
    while page is not None and page.before is not None:
        page = page_of(path(7), hidden, limit, before=page.before)
        back.insert(0, ids(page))
    assert [each for one in back for each in one] == whole
    forth = [ids(page)]
    while page is not None and page.after is not None:
        page = page_of(path(7), hidden, limit, after=page.after)
        forth.append(ids(page))
    assert [each for one in forth for each in one] == whole
    assert all(len(one) == limit for one in (*back[1:], *forth[1:-1]))


def test_the_named_message_may_be_one_that_is_left_out() -> None:
    assert page_of(path(4), {"v2"}, 1, before="m2") == Page(path(4)[1:2], "m1", "m1")
    assert page_of(path(4), {"v2"}, 9, after="m2") == Page(path(4)[3:], "m3", None)
    assert page_of(path(3), {"v2"}, 9, after="m1") == Page([], None, None)


def test_at_the_ends_of_the_path_there_is_nothing() -> None:
    assert page_of(path(3), (), 2, before="m0") == Page([], None, None)
    assert page_of(path(3), (), 2, after="m2") == Page([], None, None)
    assert page_of([], (), 2) == Page([], None, None)


def test_a_message_that_is_not_on_the_path_has_no_page() -> None:
    assert page_of(path(3), (), 2, before="nobody") is None
    assert page_of(path(3), (), 2, after="v1") is None
