# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One session of Keeper Commander: a login that cannot ask anybody, syncs, and what Commander says on the way."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import logging
import os
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from .._core.base.errors import BadInput, Refused, Stopped
from .._core.base.redact import remember, scrub
from .._core.base.timing import Budget

LOGIN = (
    'log in once on this host, as the user that runs this: "keeper shell", then "this-device register", '
    '"this-device persistent-login on" and "this-device timeout 30d"'
)
#: Seconds that a login, and a sync, may take.
LOGIN_TIME, SYNC_TIME = 120.0, 300.0
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_LONGEST = 300


class LoggedOut(Exception):
    """The session is over. A login anew could end in one after the other: the next run makes it."""


def commander(name: str) -> Any:
    """Return a module of Commander's package; it is imported when it is needed, as some take half a second."""
    return importlib.import_module(f"keepercommander.{name}")


class Session:
    """A user's vault, as Commander has synced it into ``params``. Raises BadInput and Refused, and Stopped.

    ``config`` is the path of Commander's configuration file; empty for Commander's own choice.
    """

    def __init__(self, config: str, budget: Budget) -> None:
        self._budget = budget
        self._heard = _Heard()
        self.params = self._configured(config)
        self.syncs = 0

    def _configured(self, config: str) -> Any:
        path = os.path.expanduser(config or os.environ.get("KEEPER_CONFIG_FILE", ""))
        if not path:
            path = os.path.join(str(commander("utils").get_default_path()), "config.json")
        params = commander("params").KeeperParams(config_filename=path)
        try:
            with open(path, encoding="utf-8") as file:
                params.config = json.load(file)
            commander("config_storage.loader").load_config_properties(params)
        except OSError as problem:
            why = problem.strerror or "it cannot be read"
            raise BadInput(f"Commander's configuration file {path} cannot be read", why, LOGIN) from None
        except Exception as problem:
            why = f"{type(problem).__name__}: {problem}"
            raise BadInput(f"Commander's configuration file {path} cannot be used", why, LOGIN) from None
        for value in (params.device_private_key, params.device_token, params.clone_code, params.password):
            if isinstance(value, str) and value:
                remember(value)
        if not params.user or not params.device_token or not params.device_private_key:
            # Without them Commander would register a device of its own, and ask for its approval.
            raise BadInput(f"nobody is logged in with Commander's configuration file {path}", todo=LOGIN)
        params.batch_mode = True
        return params

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """Let Commander ask nobody and print nothing: what it says is kept, and quoted where something fails."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.redirect_stdout(self._heard))
            stack.enter_context(contextlib.redirect_stderr(self._heard))
            stack.enter_context(self._heard.logging())
            yield

    def login(self) -> None:
        """Log in with what the configuration holds, once."""
        loginv3 = commander("loginv3")
        user = self.params.user
        try:
            with self._budget.phase("log in to Keeper", LOGIN_TIME):
                loginv3.LoginV3Flow(_login_ui(user)).login(self.params)
        except (BadInput, Refused, Stopped):
            raise
        except loginv3.InvalidDeviceToken:
            raise Refused(f"Keeper does not know this device of {user}", todo=LOGIN) from None
        except Exception as problem:
            raise Refused(f"{user} cannot log in to Keeper", cause(problem), LOGIN) from None
        if not self.params.session_token:
            raise Refused(f"{user} is not logged in to Keeper", self._heard.last(), LOGIN)
        remember(self.params.session_token)

    def sync(self) -> None:
        """Bring ``params`` to what the vault is now."""
        self.syncs += 1
        try:
            with self._budget.phase("read the vault", SYNC_TIME):
                commander("api").sync_down(self.params)
        except Exception as problem:
            self.check(problem)
            raise Refused("the vault cannot be read", cause(problem), "run it again") from None

    def ask(self, what: str, path: str, request: Any, kind: Any) -> Any:
        """Return the service's answer. Raises Refused, and LoggedOut."""
        try:
            return commander("api").communicate_rest(self.params, request, path, rs_type=kind)
        except Exception as problem:
            self.check(problem)
            raise Refused(f"{what} cannot be read", cause(problem), "see to what it says, then run it again") from None

    def check(self, problem: Exception) -> None:
        """Raise LoggedOut where a problem says that the session is over."""
        if getattr(problem, "result_code", "") == "session_token_expired" or "session token" in str(problem).lower():
            raise LoggedOut(cause(problem)) from None

    def forget(self) -> None:
        """Forget what was heard so far."""
        self._heard.lines.clear()

    def said(self) -> str:
        """Return the last that Commander has logged as a problem, or else printed, since ``forget``."""
        return self._heard.last()


def cause(problem: BaseException) -> str:
    """Return what Commander's exceptions say, without colours, secrets and line ends, at most 300 characters."""
    message = getattr(problem, "message", "") or str(problem)
    code = getattr(problem, "result_code", "")
    text = f"{message} ({code})" if code and str(code) not in str(message) else str(message)
    return plain(text) or type(problem).__name__


def plain(text: str) -> str:
    """Return a text from elsewhere fit to print."""
    line = " ".join(scrub(_COLOURS.sub("", text)).split())
    return "".join(letter for letter in line if letter.isprintable())[:_LONGEST]


class _Heard(io.TextIOBase):
    """Takes what is printed, and what is logged; the latter counts for more."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[int, str]] = []

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if text.strip():
            self.lines.append((0, text))
        return len(text)

    def last(self) -> str:
        loudest = max((level for level, _line in self.lines), default=0)
        return plain(next((line for level, line in reversed(self.lines) if level == loudest), ""))

    @contextlib.contextmanager
    def logging(self) -> Iterator[None]:
        handler = logging.Handler(logging.WARNING)
        handler.emit = lambda record: self.lines.append((record.levelno, _message(record)))  # type: ignore[method-assign]
        root = logging.getLogger()
        before, level = root.handlers[:], root.level
        root.handlers[:] = [handler]
        root.setLevel(logging.WARNING)
        try:
            yield
        finally:
            root.handlers[:] = before
            root.setLevel(level)


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:  # Commander has calls whose arguments do not fit their text
        return str(record.msg) + " ".join(map(str, record.args or ()))


def _login_ui(user: str) -> Any:
    """Return Commander's interface to whoever logs in: nobody is here, so that each step is refused by name."""

    def refuse(what: str) -> NoReturn:
        raise Refused(f"{user} cannot log in to Keeper without a person", f"Keeper asks for {what}", LOGIN)

    class Nobody(commander("auth.login_steps").LoginUi):  # type: ignore[misc]
        def on_device_approval(self, step: Any) -> None:
            refuse("the approval of this device")

        def on_two_factor(self, step: Any) -> None:
            refuse("a second factor")

        def on_password(self, step: Any) -> None:
            refuse("the master password: persistent login is off, has ended, or this host's address has changed")

        def on_sso_redirect(self, step: Any) -> None:
            refuse("a login with the identity provider (SSO)")

        def on_sso_data_key(self, step: Any) -> None:
            refuse("the approval of this device by an admin (SSO)")

    return Nobody()
