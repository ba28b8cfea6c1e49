# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Write the EXAMPLES of every module to a task file, so that ansible-lint can hold them to what it asks of tasks.

Usage: examples.py MODULES_DIRECTORY OUTPUT_DIRECTORY

Line N of ``app_secret.yml`` is line N of ``app_secret.py``: what ansible-lint says of the one is found in the other.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path


def examples_of(module: Path) -> ast.Constant:
    """Return the string that is assigned to EXAMPLES."""
    for node in ast.parse(module.read_text(encoding="utf-8"), str(module)).body:
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Constant):
            continue
        if any(isinstance(target, ast.Name) and target.id == "EXAMPLES" for target in node.targets):
            return node.value
    raise SystemExit(f"{module}: no EXAMPLES")


def task_file(examples: ast.Constant) -> str:
    """Return the text of the task file: the examples, at the height they have in the module."""
    quote, *lines = str(examples.value).rstrip().split("\n")
    if quote.strip():
        raise SystemExit(f"line {examples.lineno}: EXAMPLES should begin on the line after the quotes")
    while lines and (not lines[0].strip() or lines[0].strip() == "---"):
        lines.pop(0)
    if not lines:
        raise SystemExit(f"line {examples.lineno}: EXAMPLES is empty")
    above = examples.lineno + str(examples.value).rstrip().count("\n") - len(lines)
    return "#\n" * (above - 1) + "---\n" + "\n".join(lines) + "\n"


def main(modules: Path, output: Path) -> None:
    """Write one task file for each module."""
    output.mkdir(parents=True, exist_ok=True)
    for stale in output.glob("*.yml"):
        stale.unlink()
    written = 0
    for module in sorted(modules.glob("[!_]*.py")):
        (output / f"{module.stem}.yml").write_text(task_file(examples_of(module)), encoding="utf-8")
        written += 1
    if not written:
        raise SystemExit(f"{modules}: no modules")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
