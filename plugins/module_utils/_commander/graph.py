# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The graph of a PAM configuration: which records belong to it, and how they are rotated.

Commander's own class takes a graph that cannot be loaded for an empty one, and tries each request five times, ten
seconds apart. Here it raises, and tries twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .._core.base.errors import Refused
from .session import Session, cause, commander


class Graph:
    """One graph, as it was when this was made. Raises Refused, and LoggedOut."""

    def __init__(self, session: Session, config: str) -> None:
        self._session = session
        self._config = config
        try:
            self._dag = _loaded(session.params, config)
        except Exception as problem:
            session.check(problem)
            raise Refused("the graph of the PAM configuration cannot be read", cause(problem), "run it again") from None

    def facts(self, records: Iterable[str]) -> dict[str, Any]:
        """Return whether there is a graph, whether it allows rotation, and which records it links for scripts alone."""
        dag = self._dag
        if not dag.linking_dag.has_graph:
            return {"graph": False}
        content = _tunnel_graph().get_vertex_content(dag.linking_dag.get_vertex_by_uid(self._config)) or {}
        allowed = (content.get("allowedSettings") or {}).get("rotation")
        linked = frozenset(uid for uid in records if dag.user_linked_to_config_for_noop(uid))
        return {"graph": True, "allowed": allowed if isinstance(allowed, bool) else None, "linked": linked}

    def link(self, record: str) -> None:
        """Link a record for scripts alone; a resource that it was rotated on lets go of it."""
        dag = self._dag
        resource = dag.get_resource_uid(record)
        if resource is not None and resource != self._config:
            dag.link_user_to_resource(record, resource, belongs_to=False)
        if dag.link_user_to_config_noop(record) is not True:
            raise Refused("the PAM configuration has no graph")

    def allow_rotation(self) -> None:
        """Switch rotation on for the configuration, which makes its graph where there is none."""
        self._dag.edit_tunneling_config(rotation="on")


def _tunnel_graph() -> Any:
    return commander("commands.tunnel.port_forward.TunnelGraph")


def _loaded(params: Any, config: str) -> Any:
    """Return Commander's TunnelDAG of a configuration, loaded."""
    module = _tunnel_graph()

    class Connection(module.Connection):  # type: ignore[misc, name-defined]
        def rest_call_to_router(self, *arguments: Any, **options: Any) -> Any:
            return super().rest_call_to_router(*arguments, **{**options, "retry": 2, "retry_wait": 2})

    class Loaded(module.TunnelDAG):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.params = params
            self.record = module.PasswordRecord()
            self.record.record_uid = config
            self.record.record_key = module.generate_random_bytes(32)
            self.conn = Connection(params=params)
            self.conn.verify_ssl = params.ssl_verify  # what it is given it takes for a yes or no
            self.linking_dag = module.DAG(conn=self.conn, record=self.record, graph_id=module.PamGraphId.PAM.value)
            self.linking_dag.load()

    return Loaded()
