# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Look at whether a PAM Script could rotate here, for the user and with the environment that this runs with.

Nothing is changed. The result is one line of JSON: {"clock": {"ok": true, "message": "..."}, ...}.
as_gateway.py beside it runs it as the Gateway's user, with the environment of its service.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import pwd
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Callable

CHECKS = ("imports", "configuration", "keeper", "vault", "entra", "graph", "clock")
CONFIG_FILES = ("/etc/keeper-gateway/gateway-config.json", "~/.keeper/gateway-config.json")
NEEDED_KEYS = ("hostname", "clientId", "privateKey", "appKey")
#: Of a check, in seconds.
TIMEOUT = 30
MAX_SKEW = 60
AGAIN = "install the Gateway again, with a new one-time token (gateway_host_reinstall_gateway, gateway_host_token)."


class Finding(Exception):
    """What is wrong, and what to do."""


class Host:
    """What the checks find out for each other."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.user = pwd.getpwuid(os.getuid()).pw_name
        self.skews: list[float] = []

    def imports(self) -> str:
        try:
            import keeper_secrets_manager_core  # noqa: F401
            import msal
            import requests
        except Exception as error:  # whatever a broken package raises
            raise Finding(
                f"{self.user} cannot import the packages with {sys.executable}: {error!r}. Run the role again: "
                "it builds the environment anew."
            ) from None
        return f"msal {msal.__version__} and requests {requests.__version__} are there"

    def configuration(self) -> str:
        origin, config = self._config()
        missing = [key for key in NEEDED_KEYS if not config.get(key)]
        if missing and config.get("clientKey"):
            raise Finding(f"{origin} is not bound to a device yet: start the Gateway, which uses its one-time token.")
        if missing:
            raise Finding(f"{origin} lacks {', '.join(missing)}: {AGAIN}")
        return f"{origin} opens"

    def keeper(self) -> str:
        return self._reach(f"https://{self._config()[1].get('hostname', '')}/", "Keeper")

    def entra(self) -> str:
        return self._reach(self.options.entra.rstrip("/") + "/common/v2.0/.well-known/openid-configuration", "Entra")

    def graph(self) -> str:
        return self._reach(self.options.graph.rstrip("/") + "/v1.0/", "Microsoft Graph")

    def vault(self) -> str:
        self.configuration()
        from keeper_secrets_manager_core import SecretsManager
        from keeper_secrets_manager_core.storage import InMemoryKeyValueStorage

        origin, config = self._config()
        # Given the text and not the path: the SDK writes to a path that it is given.
        storage = InMemoryKeyValueStorage(json.dumps(config))
        try:
            answer = SecretsManager(config=storage).get_secrets([], full_response=True)
        except Finding:
            raise
        except Exception as error:  # KeeperError, requests' and plain ones
            raise Finding(
                f"the vault cannot be read with {origin}: {_short(error)}. If access is denied, the Gateway "
                f"has been removed or locked to another address in the vault: {AGAIN}"
            ) from None
        found = len(answer.records) + len(answer.bad_records)
        if not found:
            return (
                "the vault can be read, and shares no record with the Gateway: share the folder of the "
                "applications' records with it, with edit permission"
            )
        return f"the vault can be read and shares {found} record(s)"

    def clock(self) -> str:
        if not self.skews:
            for check in (self.entra, self.graph, self.keeper):
                try:
                    check()
                except Finding:
                    continue
                break
        if not self.skews:
            raise Finding("the clock cannot be compared: no service was reached that says the time.")
        skew = min(self.skews, key=abs)
        if abs(skew) > MAX_SKEW:
            raise Finding(
                f"the clock is {abs(skew):.0f} seconds {'ahead' if skew > 0 else 'behind'}: have it set, by chrony "
                "or systemd-timesyncd. Keeper and Entra refuse requests from another time."
            )
        return f"the clock is within {MAX_SKEW} seconds"

    def _config(self) -> tuple[str, dict[str, Any]]:
        """Return where the configuration is from, and the configuration."""
        origin, text = self._config_text()
        try:
            if not text.lstrip().startswith("{"):
                text = base64.b64decode(text.strip() + "=" * (-len(text.strip()) % 4)).decode()
            config = json.loads(text)
        except ValueError:
            config = None
        if not isinstance(config, dict):
            raise Finding(f"{origin} is neither JSON nor base64 of it: {AGAIN}")
        return origin, config

    def _config_text(self) -> tuple[str, str]:
        names = [self.options.config] if self.options.config else []
        if not names:
            for text_name, path_name in (("GATEWAY_CONFIG", "GATEWAY_CONFIG_PATH"), ("KSM_CONFIG", "KSM_CONFIG_FILE")):
                if os.environ.get(text_name):
                    return text_name, os.environ[text_name]
                if os.environ.get(path_name):
                    names.append(os.environ[path_name])
                    break
            else:
                names += CONFIG_FILES
        for path in map(os.path.expanduser, names):
            try:
                return path, Path(path).read_text(encoding="utf-8")
            except PermissionError:
                raise Finding(
                    f"{self.user} may not read {path}: it must belong to the Gateway's user. If that is another one, "
                    "set gateway_host_user."
                ) from None
            except (OSError, ValueError):
                continue
        secret = self.options.aws_secret or os.environ.get("AWS_KMS_SECRET_NAME")
        if secret:
            raise Finding(
                f"the Gateway keeps its configuration in AWS Secrets Manager, as {secret}, where a PAM Script does not "
                "read it. Give the script a Secrets Manager configuration of its own: a file that "
                f"{self.user} can read, named by KSM_CONFIG_FILE in the environment of the Gateway's service."
            )
        raise Finding(
            f"there is no configuration of the Gateway at {' or '.join(names)}: name its file in gateway_host_config, "
            f"or {AGAIN}"
        )

    def _reach(self, url: str, name: str) -> str:
        import requests

        try:
            # Whatever it answers, it was reached.
            answer = requests.get(url, timeout=(10, 15), allow_redirects=False, stream=True)
        except requests.exceptions.SSLError as error:
            raise Finding(
                f"{name} at {url} does not prove who it is: {_short(error)}. If a proxy looks into the connection, set "
                "REQUESTS_CA_BUNDLE in the environment of the Gateway's service to a file with its CA."
            ) from None
        except requests.exceptions.RequestException as error:
            raise Finding(
                f"{name} at {url} is not reached: {_short(error)}. Allow it in the firewall, or set HTTPS_PROXY in "
                "the environment of the Gateway's service."
            ) from None
        answer.close()
        if answer.status_code in (407, 502, 503, 504):
            raise Finding(
                f"{name} at {url} is not reached: HTTP {answer.status_code}, probably from a proxy on the way."
            )
        if "Date" in answer.headers:
            self.skews.append(time.time() - parsedate_to_datetime(answer.headers["Date"]).timestamp())
        return f"{name} is reached at {url}"


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


@contextmanager
def _limit(seconds: int) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Finding(f"no answer within {seconds} seconds: look at the network and the proxy.")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def look(check: Callable[[], str]) -> dict[str, Any]:
    """Make one check and return what it found."""
    try:
        with _limit(TIMEOUT):
            return {"ok": True, "message": check()}
    except Finding as finding:
        return {"ok": False, "message": str(finding)}
    except Exception as error:
        return {"ok": False, "message": f"the check failed: {error!r}. Please report it."}


def main() -> None:
    """Make the checks that are named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--config", default="")
    parser.add_argument("--aws-secret", default="", help="where the Gateway keeps its configuration instead")
    parser.add_argument("--entra", default="https://login.microsoftonline.com")
    parser.add_argument("--graph", default="https://graph.microsoft.com")
    parser.add_argument("checks", nargs="*", default=CHECKS)
    options = parser.parse_args()
    if set(options.checks) - set(CHECKS):
        parser.error(f"the checks are {', '.join(CHECKS)}")
    host = Host(options)
    print(json.dumps({name: look(getattr(host, name)) for name in options.checks}))


if __name__ == "__main__":
    main()
