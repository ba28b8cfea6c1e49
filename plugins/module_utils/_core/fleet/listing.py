# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What Graph tells of many applications, in few requests: lists by pages, single reads in batches."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from ..base.redact import Log, foreign
from ..base.timing import Budget
from ..services.application import Application, Credential, application_in, credentials_in, guid
from ..services.graph import Graph, NotDone, server_time
from ..services.http import ATTEMPTS, Reply, busy, pause_before, retry_after

# What a request may ask for is 999; an answer must come within the time that every answer has.
_PAGE = "250"
# https://learn.microsoft.com/graph/json-batching
_AT_ONCE = 20
_SELECT = "id,appId,displayName,signInAudience,passwordCredentials"
_WITH_CERTIFICATES = _SELECT + ",keyCredentials"
# "$select to get keyCredentials has a throttling limit of 150 requests per minute for every tenant", also within a
# batch: https://learn.microsoft.com/graph/api/application-get. What is more is read as a list.
FEW = 100


@dataclass(frozen=True)
class Listed:
    """An application with what else signs in as it. ``owners`` are names, None where nobody has asked for them."""

    application: Application
    certificates: tuple[Credential, ...] = ()
    of_principal: tuple[Credential, ...] = ()
    owners: tuple[str, ...] | None = None


class Listing:
    """Reads of many applications. What cannot be read is in ``problems``, with the source and the reason in words."""

    def __init__(self, graph: Graph, budget: Budget, log: Log) -> None:
        self._graph, self._budget, self._log = graph, budget, log
        self.found: dict[str, Listed] = {}
        self.read_at: datetime | None = None
        self.problems: dict[str, str] = {}

    def everything(self) -> bool:
        """List every application that the admin may read; return whether the list is complete."""
        try:
            for reply in self._graph.pages(
                "/applications", "applications", {"$select": _WITH_CERTIFICATES, "$top": _PAGE}
            ):
                for item in reply.json()["value"]:
                    self._add(item, server_time(reply))
        except NotDone as problem:
            after = f" after {len(self.found)} of them" if self.found else ""
            self.problems["applications"] = f"the list ends{after}: {problem.why}" + _next(problem)
            return False
        return True

    def these(self, identifiers: Sequence[str]) -> set[str]:
        """Read the applications with these object ids or client ids; return those that Graph does not know.

        Of more than a few, certificates are not read.
        """
        left = {each for text in identifiers if (each := guid(text))}
        unknown = set(left)
        names = _WITH_CERTIFICATES if len(left) <= FEW else _SELECT
        reasons = []
        # Keeper's page confuses the two ids: what is not found by the one is asked for by the other.
        for form in ("/applications/{}", "/applications(appId='{}')"):
            wanted = sorted(left)
            replies, why = self._read([f"{form.format(each)}?$select={names}" for each in wanted], "applications")
            reasons.append(why)
            for identifier, reply in zip(wanted, replies):
                if reply is not None and reply.status == 200 and self._add(reply.json(), self.read_at):
                    left.discard(identifier)
                if reply is None or reply.status != 404:
                    unknown.discard(identifier)
        if left - unknown:
            self._note("applications", next(filter(None, reasons), "Graph's answer is no application"))
        return unknown

    def keep(self, identifiers: Collection[str]) -> None:
        """Forget all but the applications with these object ids or client ids."""
        wanted = set(identifiers)
        self.found = {
            object_id: one for object_id, one in self.found.items() if wanted & {object_id, one.application.client_id}
        }

    def owners(self) -> None:
        """Read who owns the applications."""
        paths = {each: f"/applications/{each}/owners?$select=id,displayName" for each in self.found}
        for object_id, body in self._bodies(paths, "owners"):
            found = body.get("value")
            if isinstance(found, list):
                names = tuple(sorted(_name(each) for each in found if isinstance(each, dict)))
                self.found[object_id] = replace(self.found[object_id], owners=names)

    def principals(self) -> None:
        """Read the secrets that the applications' service principals hold; not every application has one."""
        ids = {each: one.application.client_id for each, one in self.found.items()}
        query = "$select=id,appId,passwordCredentials"
        paths = {each: f"/servicePrincipals(appId='{client_id}')?{query}" for each, client_id in ids.items()}
        for object_id, body in self._bodies(paths, "service_principals"):
            held = body.get("passwordCredentials")
            if isinstance(held, list):
                self.found[object_id] = replace(self.found[object_id], of_principal=tuple(credentials_in(held)))

    def _bodies(self, paths: Mapping[str, str], source: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Read what the paths name, and give each with its key, as far as it is there; note why the rest is not."""
        replies, why = self._read(list(paths.values()), source)
        self._note(source, why)
        for key, reply in zip(paths, replies):
            if reply is not None and reply.status == 200:
                yield key, reply.json()

    def _add(self, item: Any, read_at: datetime | None) -> bool:
        application = application_in(item, read_at) if isinstance(item, dict) and read_at else None
        if application is None:
            return False
        self.read_at = self.read_at or read_at
        keys = item.get("keyCredentials")
        certificates = tuple(credentials_in(keys)) if isinstance(keys, list) else ()
        self.found[application.object_id] = Listed(application, certificates)
        return True

    def _note(self, source: str, why: str) -> None:
        if why:
            self.problems.setdefault(source, why)

    def _read(self, paths: Sequence[str], source: str) -> tuple[list[Reply | None], str]:
        """Return the answer for each path, None where there was none, and why some are no answer to the question."""
        found: list[Reply | None] = []
        refusals: list[NotDone] = []
        for start in range(0, len(paths), _AT_ONCE):
            try:
                found += self._batch(paths[start : start + _AT_ONCE], source)
            except NotDone as problem:
                rest = len(paths) - start
                found += [None] * rest
                refusals += [problem] * rest
                break
            for reply in found[start:]:
                if reply is None:
                    refusals.append(NotDone("it was not answered"))
                elif reply.status not in (200, 404):
                    refusals.append(self._graph.problem(reply))
        if not refusals:
            return found, ""
        first = refusals[0]
        return found, f"{len(refusals)} of {len(paths)} could not be read: {first.why}{_next(first)}"

    def _batch(self, paths: Sequence[str], source: str) -> list[Reply | None]:
        """Send up to 20 reads as one request; those that are to come later come again, as others do. Raises NotDone."""
        answers: dict[int, Reply] = {}
        for attempt in range(1, ATTEMPTS + 1):
            open_ones = [number for number in range(len(paths)) if number not in answers or busy(answers[number])]
            if not open_ones:
                break
            if attempt > 1:
                asked = [wait for each in open_ones if each in answers and (wait := retry_after(answers[each]))]
                pause = pause_before(attempt, max(asked, default=None))
                if pause >= self._budget.left():
                    break
                self._log.detail(f"{source}: {len(open_ones)} are to be asked again in {pause:.1f} s")
                self._budget.pause(pause)
            requests = [{"id": str(number), "method": "GET", "url": paths[number]} for number in open_ones]
            reply = self._graph.batch(requests, source)
            self.read_at = self.read_at or server_time(reply)
            for item in reply.json()["responses"]:
                if isinstance(item, dict) and str(item.get("id")) in {each["id"] for each in requests}:
                    answers[int(item["id"])] = _reply(item, reply.host)
        return [answers.get(number) for number in range(len(paths))]


def _reply(item: Mapping[str, Any], host: str) -> Reply:
    """Return the answer that is one of a batch's, as if it had come alone."""
    status, headers = item.get("status"), item.get("headers")
    return Reply(
        status if isinstance(status, int) else 0,
        {str(name).title(): str(value) for name, value in headers.items()} if isinstance(headers, dict) else {},
        json.dumps(item.get("body")).encode(),
        host,
    )


def _name(owner: Mapping[str, Any]) -> str:
    """Return how an owner is called; what the admin may not read is null, and then its id is all there is."""
    return foreign(owner.get("displayName") or owner.get("id") or "somebody")


def _next(problem: NotDone) -> str:
    return f". Next: {problem.todo}" if problem.todo else ""
