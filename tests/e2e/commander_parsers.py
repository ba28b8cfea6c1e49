# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Passes command lines through the real Commander: its main(), as far as its loop, and the parser of each command.

Runs in an environment of its own, with keepercommander. stdin: JSON, a list of {"argv": [...], "stdin": "..."};
stdout: JSON, what was understood. A command line that a parser does not take ends it with an error.
"""

from __future__ import annotations

import json
import shlex
import sys
from typing import Any

from keepercommander import __main__ as program
from keepercommander import cli
from keepercommander.commands.base import GroupCommand, expand_cmd_args


def lines(call: dict[str, Any]) -> tuple[str, list[str]]:
    """Return the configuration file, and the lines that main() gives to the loop, or that it would read from stdin."""
    seen: list[Any] = []

    def loop(params: Any, **rest: Any) -> int:
        seen.append(params)
        return 0

    cli.loop, sys.argv = loop, ["keeper", *call["argv"]]
    try:
        program.main()
    except SystemExit as end:
        if end.code not in (None, 0):
            raise ValueError(f"main() ended with {end.code}: {call['argv']}") from None
    (params,) = seen
    assert params.batch_mode
    commands = [one for one in params.commands if one != "q"]
    typed = [" ".join(one.split()) for one in call["stdin"].splitlines()]  # as read_command_with_continuation does
    return params.config_filename, typed if call["argv"][-1:] == ["-"] else commands


def understand(line: str) -> tuple[str, dict[str, Any]]:
    """Return the command's full name and its options."""
    assert not any(char in line for char in cli._DISALLOWED_COMMAND_CHARS)
    name, args = cli.command_and_args_from_cmd(line)
    command: Any = {**cli.commands, **cli.enterprise_commands}[name]
    while isinstance(command, GroupCommand):
        verb, _space, args = args.partition(" ")
        command, name = command._commands[command._aliases.get(verb, verb)], f"{name} {verb}"
    parsed = command._get_parser_safe().parse_args(shlex.split(expand_cmd_args(args, {})))
    return name, vars(parsed)


def main() -> None:
    understood = []
    for call in json.load(sys.stdin):
        config, found = lines(call)
        assert found, call
        for line in found:
            name, options = understand(line)
            understood.append({"config_filename": config, "command": name, "options": options})
    print(json.dumps(understood))


if __name__ == "__main__":
    main()
