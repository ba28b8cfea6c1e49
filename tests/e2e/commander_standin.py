# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stands in for Keeper Commander 18.1.8: what its commands print, store and exit with, as read in its source.

COMMANDER_STATE names a file with the vault in JSON, COMMANDER_LOG one that gets a line for each call. What ``lies`` in
the vault names fails as the real one does: with exit status 0.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import secrets
import shlex
import sys
from pathlib import Path
from typing import Any, Callable

Json = dict[str, Any]
STATE = Path(os.environ["COMMANDER_STATE"])


class CommandError(Exception):
    """Commander logs it and exits with 1."""


def uid() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")


def parser(*flags: str, **options: Any) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    made.add_argument("--format")
    for flag in flags:
        made.add_argument(*flag.split("|"), dest=flag.split("|")[0].strip("-").replace("-", "_"), action="store_true")
    for name, action in options.items():
        made.add_argument("--" + name, dest=name, action=action)
    made.add_argument("words", nargs="*")
    return made


class Vault:
    def __init__(self, state: Json) -> None:
        self.__dict__.update(state)
        self.lies: list[str] = state["lies"]
        self.records: Json = state["records"]
        self.state = state

    def lie(self, name: str, text: str) -> bool:
        if name in self.lies:
            print(text, file=sys.stderr)
        return name in self.lies

    def record(self, name: str) -> Json:
        if name not in self.records:
            raise CommandError(f'Record "{name}" not found')
        found: Json = self.records[name]
        return found

    def scripts(self, name: str) -> list[Json]:
        fields = self.record(name)["fields"]
        found = next((one for one in fields if one["type"] == "script"), None)
        if found is None:
            found = {"type": "script", "label": "rotationScripts", "value": []}
            fields.append(found)
        value: list[Json] = found["value"]
        return value

    # -- the commands ----------------------------------------------------------------------------------------------

    def list_sf(self, args: list[str]) -> Any:
        rows = [{"shared_folder_uid": u, "name": n, "folder_type": "Classic"} for u, n in self.state["folders"].items()]
        return rows or {"message": "No shared folders are found"}

    def mkdir(self, args: list[str]) -> None:
        given = parser("-sf").parse_args(args)
        if not self.lie("mkdir", f'mkdir: Folder "{given.words[0]}" already exists'):
            self.state["folders"][uid()] = given.words[0]

    def secrets_manager(self, args: list[str]) -> Any:
        given = parser("--editable", app="store", secret="append").parse_args(args)
        apps = self.state["apps"]
        what, verb, *rest = given.words
        if (what, verb) == ("app", "list"):
            return [{"app_name": one["app_name"], "app_uid": u} for u, one in apps.items()] or {"applications": []}
        if (what, verb) == ("app", "get"):
            return {**apps[rest[0]], "app_uid": rest[0]} if rest[0] in apps else {"error": "not found."}
        if (what, verb) == ("app", "create"):
            if not self.lie("app create", "This feature is restricted"):
                apps[uid()] = {"app_name": rest[0], "shares": []}
        elif what == "share":
            if self.lie("share", f'Application "{given.app}" not found.'):
                return None
            shares = apps[given.app]["shares"]
            known = [one for one in shares if one["uid"] in given.secret]
            if verb == "add" and known:
                print("One of the secret UIDs is already shared to this application.", file=sys.stderr)
            elif verb == "update":
                known[0]["editable"] = given.editable
            else:
                shares.append({"uid": given.secret[0], "editable": given.editable})
        return None

    def pam_gateway_list(self, args: list[str]) -> Any:
        if self.lie("router", "Looks like router is down."):
            return None
        return {"gateways": self.state["gateways"]}

    def pam_gateway_new(self, args: list[str]) -> Any:
        given = parser("--return_value", **{"name": "store", "application": "store", "config-init": "store"})
        options = vars(given.parse_args(args))
        if not self.lie("gateway", "You are not allowed to manage gateways."):
            row = {"gateway_name": options["name"], "gateway_uid": uid(), "ksm_app_uid": options["application"]}
            self.state["gateways"].append({**row, "status": "OFFLINE"})
            return "eyJnYXRld2F5LWNvbmZpZyI6MX0="
        return None

    def pam_config_list(self, args: list[str]) -> Any:
        wanted = [word[2:] for word in args if word.startswith("-c")]
        if wanted:
            return self.state["configs"].get(wanted[0]) or {"error": f"Configuration {wanted[0]} not found"}
        keys = ("config_type", "gateway_uid")
        rows = [{"uid": u, "config_name": one["name"], **{k: one[k] for k in keys}} for u, one in self._configs()]
        return {"configurations": rows}

    def _configs(self) -> Any:
        return self.state["configs"].items()

    def pam_config_new(self, args: list[str]) -> Any:
        names = ("environment", "title", "gateway", "shared-folder", "rotation", "azure-id", "tenant-id", "client-id")
        names += ("client-secret", "subscription_id", "network-id", "network-cidr")
        given = vars(parser(**dict.fromkeys(names, "store"), **{"resource-group": "append"}).parse_args(args))
        gateway = given["gateway"]
        if self.lie("config", f'Gateway "{gateway}" not found.'):
            gateway = ""
        kinds = {"azure": "pamAzureConfiguration", "local": "pamNetworkConfiguration"}
        labels = {"tenantId": "tenant-id", "clientId": "client-id", "clientSecret": "client-secret"}
        labels["subscriptionId"] = "subscription_id"
        made = uid()
        self.state["configs"][made] = {
            "uid": made,
            "name": given["title"],
            "config_type": kinds[given["environment"]],
            "gateway_uid": gateway,
            "shared_folder": {"uid": given["shared-folder"]},
            "fields": {label: [given[name]] for label, name in labels.items() if given[name]},
        }
        return made

    def list_(self, args: list[str]) -> Any:
        rows = [{"record_uid": u, "title": one["title"]} for u, one in self.records.items() if one["type"] == "pamUser"]
        return rows or {"message": "No records are found"}

    def get(self, args: list[str]) -> Any:
        (name,) = parser("--include-dag").parse_args(args).words
        if name not in self.records:
            raise CommandError("Cannot find any object with UID: " + name)
        rotation = self.state["rotations"].get(name, {})
        profile = {"type": rotation.get("profile"), "configUid": rotation.get("config")}
        return {"record_uid": name, "source": "classic", **self.records[name], "rotationProfile": profile}

    def record_add(self, args: list[str]) -> Any:
        made = parser(title="store", folder="store")
        made.add_argument("-rt")
        given = made.parse_args(args)
        if self.lie("record-add", "Use --force to bypass password policy warnings."):
            return None
        new = uid()
        self.records[new] = {"type": given.rt, "title": given.title, "fields": [], "custom": []}
        self._assign(new, given.words)
        return {"record_uid": new}

    def record_update(self, args: list[str]) -> None:
        given = parser(record="store").parse_args(args)
        if not self.lie("record-update", "Use --force to bypass password policy warnings."):
            self._assign(given.record, given.words)

    def _assign(self, name: str, words: list[str]) -> None:
        custom = self.record(name)["custom"]
        for word in words:
            key, _sep, value = word.partition("=")
            if key.startswith("c."):
                kind, _dot, label = key[2:].partition(".")
                found = [one for one in custom if (one["type"], one["label"].lower()) == (kind, label.lower())]
                if not found and value:
                    found = [{"type": kind, "label": label, "value": []}]
                    custom += found
                for one in found[:1]:
                    one["value"] = [value] if value else []

    def pam_rotation_edit(self, args: list[str]) -> None:
        names = {"record": "store", "rotation-profile": "store", "schedulecron": "append"}
        made = parser("--on-demand", "--enable", "--force", **names)
        made.add_argument("-c")
        given = vars(made.parse_args(args))
        name = given["record"]
        self.record(name)
        if self.lie("rotation", f'Record "{name}": Set rotation error "bad_request": invalid revision'):
            return
        found = self.state["rotations"].setdefault(name, {"disabled": False})
        found.update(profile=given["rotation-profile"], config=given["c"])
        if given["schedulecron"] and not self.lie("cron", "--- Logging error ---"):
            found["schedule"] = "CRON at " + given["schedulecron"][0] + " UTC with interval count of Etc/UTC"
        elif given["on_demand"]:
            found["schedule"] = "[Manual Rotation]"
        if given["enable"] and "enable" not in self.lies:
            found["disabled"] = False

    def pam_rotation_list(self, args: list[str]) -> Any:
        rows = self.state["rotations"].items()
        return [{"record_uid": u, "schedule": one.get("schedule", "[empty]")} for u, one in rows]

    def pam_rotation_info(self, args: list[str]) -> Any:
        name = parser(**{"record-uid": "store"}).parse_args(args)
        found = self.state["rotations"].get(vars(name)["record-uid"])
        if found is None:
            return {"status": "RRS_NO_ROTATION", "ready_to_rotate": False}
        return {"status": "RRS_ONLINE", "ready_to_rotate": True, "disabled": found["disabled"]}

    def pam_rotation_script_add(self, args: list[str]) -> None:
        names = {"script": "store", "script-command": "store", "add-credential": "append"}
        given = vars(parser(**names).parse_args(args))
        (name,) = given["words"]
        path = Path(given["script"])
        if "owner" in self.lies:
            raise CommandError(f"Uploading rotation script {path.name}: only the record owner can attach scripts.")
        made = uid()
        self.state["files"][made] = {"name": path.name, "content": base64.b64encode(path.read_bytes()).decode()}
        known = [one for one in given["add-credential"] or [] if one in self.records]  # others are dropped in silence
        entry = {"fileRef": made, "recordRef": known, "command": given["script-command"] or ""}
        self.scripts(name).append(entry)

    def pam_rotation_script_edit(self, args: list[str]) -> None:
        names = {
            "script": "store",
            "script-command": "store",
            "add-credential": "append",
            "remove-credential": "append",
        }
        given = vars(parser(**names).parse_args(args))
        entry = next(one for one in self.scripts(given["words"][0]) if one["fileRef"] == given["script"])
        known = {one for one in given["add-credential"] or [] if one in self.records}
        entry["recordRef"] = sorted(({*entry["recordRef"]} | known) - {*(given["remove-credential"] or [])})
        entry["command"] = given["script-command"] or entry["command"]

    def pam_rotation_script_delete(self, args: list[str]) -> None:
        given = parser(script="store").parse_args(args)
        entries = self.scripts(given.words[0])
        entries[:] = [one for one in entries if one["fileRef"] != given.script]

    def download_attachment(self, args: list[str]) -> None:
        given = vars(parser(**{"out-dir": "store"}).parse_args(args))
        found = self.state["files"].get(given["words"][0])
        if found is None:
            print(f'Record(s) "{given["words"][0]}" not found', file=sys.stderr)
            return
        folder = Path(given["out-dir"])
        folder.mkdir(parents=True, exist_ok=True)
        (folder / found["name"]).write_bytes(base64.b64decode(found["content"]))


def command(vault: Vault, line: list[str]) -> tuple[Callable[[list[str]], Any], list[str]]:
    """The method for the words in front, and the words that are left."""
    for count in (4, 3, 2, 1):
        name = "_".join(line[:count]).replace("-", "_")
        method = getattr(vault, "list_" if name == "list" else name, None)
        if count <= len(line) and callable(method):
            return method, line[count:]
    raise CommandError("Invalid command: " + " ".join(line))


def main() -> int:
    top = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    top.add_argument("--config")
    top.add_argument("--batch-mode", action="store_true")
    rest = sys.argv[1:]
    options, _others = top.parse_known_args(rest)
    while rest and rest[0] in ("--config", "--batch-mode"):
        rest = rest[2:] if rest[0] == "--config" else rest[1:]
    typed = sys.stdin.read() if rest == ["-"] else ""
    with open(os.environ["COMMANDER_LOG"], "a", encoding="utf-8") as log:
        log.write(json.dumps({"argv": sys.argv[1:], "stdin": typed}) + "\n")
    state = json.loads(STATE.read_text("utf-8"))
    vault = Vault(state)
    if not options.batch_mode or "login" in state["lies"]:
        print("Persistent login is not working in this non-interactive environment", file=sys.stderr)
        return 0
    try:
        for line in [shlex.split(one) for one in typed.splitlines()] if typed else [rest]:
            method, words = command(vault, line)
            answer = method(words)
            if answer is not None:
                print(answer if isinstance(answer, str) else json.dumps(answer, indent=2))
    except CommandError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        STATE.write_text(json.dumps(state), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
