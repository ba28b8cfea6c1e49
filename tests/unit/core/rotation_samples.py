# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Makers of what a run knows about the secrets of an application."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.deciding import (
    Holding,
    Published,
    Situation,
    Sorted,
    sort_out,
    unlisted,
)
from ansible_collections.keeperpam.azure.plugins.module_utils._core.rotation.policy import Policy
from ansible_collections.keeperpam.azure.plugins.module_utils._core.services.application import Credential, format_time
from core_samples import CLIENT_ID, NOW, OURS, RECORD, application, credential, key
from hypothesis import strategies as st

AT_ONCE = timedelta(0)
WAIT = timedelta(seconds=30)
OTHER = "AnotherRecordsUid00000"
THEIRS = f"keeper/{OTHER}/"
RUN = OURS + "this-run"
NEW = credential("new", 0, RUN)
CURRENT = credential("current", 5, OURS + "published", hint="cur")


def shows(name: str = "current", hint: str = "cur", **more: Any) -> Published:
    """What the record shows: the secret of this name."""
    return Published(RECORD, key(name) if name else "", hint, **more)


EMPTY = shows("", "")


def know(
    listed: Sequence[Credential],
    policy: Policy | None = None,
    published: Published | None = None,
    new: Credential | None = NEW,
    first: Sequence[str] | None = None,
    two_secrets: bool = False,
    **more: Any,
) -> Situation:
    """What is known: by default the new secret has just been published, and all others were in the first list."""
    published = published or shows()
    others = [item for item in listed if item is not new or item.key_id == published.key_id]
    app = application(*others, two_secrets=two_secrets)
    names = [item.key_id for item in others] if first is None else [key(name) for name in first]
    situation: dict[str, Any] = {
        "shown": app.credential(published.key_id)
        or next(iter(unlisted(policy or Policy(), published, app, NOW)), None),
        "published_at": NOW if new else None,
        "run_name": RUN,
    }
    return Situation(
        policy=policy or Policy(retire_after=AT_ONCE),
        application=app,
        published=published,
        now=NOW,
        new=new,
        first=frozenset(names),
        **{**situation, **more},
    )


class Found:
    """What becomes of secrets, by the names that the tests give them."""

    def __init__(self, found: Sorted) -> None:
        by_key = {key(name): name for name in NAMES}
        self.left_overs = [by_key[one.credential.key_id] for one in found.left_overs]
        self.old = [by_key[one.credential.key_id] for one in found.old]
        self.kept = {by_key[one.key_id]: one.reason for one in found.kept}
        self.due = [by_key[item.key_id] for item in found.due(NOW)]
        self.waits = {by_key[one.key_id]: one.until for one in found.waits(NOW)}


NAMES = [*"abcdefgh", "new", "current", "old", "other", "ours", "theirs", "orphan", "late", "lost", "hand", "gone"]


def sorted_out(listed: Sequence[Credential], *arguments: Any, **more: Any) -> Found:
    """What becomes of the secrets that are listed; further arguments are those of ``know``."""
    return Found(sort_out(know(listed, *arguments, **more), listed))


def holds(name: str = "", hint: str = "", *about: str, owner: str = "the PAM configuration") -> Holding:
    """What something else than the record holds, and for which application."""
    return Holding(owner, Published("", key(name) if name else "", hint), frozenset(about))


def made_before(minutes: float, days: int = 365) -> str:
    """The end of a secret that was made so many minutes before NOW with this lifetime."""
    return format_time(NOW + timedelta(days=days, minutes=-minutes))


# -- any set of secrets

TITLES = st.sampled_from(["", "by hand", OURS + "a", RUN, THEIRS + "b", "keeper//c"])
STARTS = st.none() | st.integers(-9000, 9000).map(lambda seconds: NOW + timedelta(seconds=seconds))
ENDS = st.none() | st.sampled_from([-1, 1, 365]).map(lambda days: NOW + timedelta(days=days))
HINTS = st.sampled_from(["", "adm", "cur"])


@st.composite
def scenes(draw) -> tuple[Situation, list[Credential]]:
    """Secrets of an application with the new one among them, and everything else that the decision depends on."""
    names = draw(st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=7))
    others = [Credential(key(name), draw(TITLES), draw(STARTS), draw(ENDS), "", draw(HINTS)) for name in names]
    new = Credential(key("new"), RUN, draw(STARTS), None, "", "new")
    if others and draw(st.booleans()):
        new = draw(st.sampled_from(others))
        published = Published(RECORD, new.key_id, "cur", True, "")
    else:
        expires = draw(st.sampled_from(["", made_before(1), made_before(900)]))
        published = shows(
            draw(st.sampled_from(["", "gone", *names])), draw(st.sampled_from(["", "cur"])), expires=expires
        )
    policy = Policy(
        keep_previous=draw(st.integers(0, 4)),
        retire=draw(st.sampled_from(["all", "managed", "none"])),
        retire_after=draw(st.sampled_from([AT_ONCE, WAIT, timedelta(hours=1)])),
        adopt=draw(st.sampled_from([(), (OTHER,)])),
    )
    return know(
        [*others, new],
        policy,
        published,
        new,
        first=draw(st.lists(st.sampled_from(names), unique=True)) if names else [],
        held=draw(st.sampled_from([(), (holds("", "adm", CLIENT_ID),), (holds("a"),)])),
        others=draw(st.sampled_from([{}, {OTHER: None}, {OTHER: shows("b")}, {OTHER: shows("", "adm")}])),
        bound=draw(st.booleans()),
    ), [*others, new]


def all_of(found: Sorted) -> list[Credential]:
    """All that is to be removed, whenever."""
    return [one.credential for one in (*found.left_overs, *found.old)]
