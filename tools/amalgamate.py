# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Join the modules of the core, in dependency order, into the one file that is attached as a PAM Script.

What is joined stays plain and readable: nothing is encoded, renamed or minified. Imports from the standard library are
gathered at the top, imports between the modules fall away, everything else is the modules' own text.

Usage: amalgamate.py [--check]; with --check it writes nothing and exits 1 where the committed file is not fresh.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CORE = ROOT / "plugins" / "module_utils" / "_core"
TARGET = ROOT / "playbooks" / "files" / "rotate_azure_app.py"
MAIN = "script.pam_script"

HEAD = '''#!/usr/bin/env python3
# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""keeperpam.azure {version}: rotates the client secret of a Microsoft Entra application, as a Keeper PAM Script.

It needs Python 3.9 or newer and the packages:
{packages}

This file is the core of the Ansible collection keeperpam.azure, made by its ``make script`` from the modules named in
the rulers below; it is not edited by hand. To verify a copy, compare its SHA-256 with that of the file in the release:
    sha256sum rotate_azure_app.py
"""

from __future__ import annotations  # Python 3.9 or newer is needed: let the script command name one

import sys

if __name__ == "__main__" and not (sys.flags.isolated or getattr(sys.flags, "safe_path", False)):
    del sys.path[0]  # the folder of this file: nothing that lies beside it is to be imported
if sys.version_info < (3, 9):
    if sys.stderr is not None:
        sys.stderr.write(
            f"BAD_INPUT: this script needs Python 3.9 or newer, and was started with Python {{sys.version.split()[0]}} "
            f"({{sys.executable}}). Next: let the script command name a newer one.\\n"
        )
    sys.exit(2)

'''


def source(name: str) -> str:
    """Return the text of the module ``room.module``."""
    return CORE.joinpath(*name.split(".")).with_suffix(".py").read_text("utf-8")


def modules() -> list[str]:
    """Return the names (``room.module``) of the modules that MAIN needs, each after those it imports."""
    order: list[str] = []

    def visit(name: str) -> None:
        if name in order:
            return
        room = name.split(".")[0]
        for node in ast.parse(source(name)).body:
            if isinstance(node, ast.ImportFrom) and node.level:
                assert node.level <= 2, f"{name}: only modules of the core can be joined"
                assert node.module, f"{name}: only 'from .module import name' can be joined"
                assert not any(alias.asname for alias in node.names), f"{name}: no renaming between modules"
                visit(node.module if node.level == 2 else f"{room}.{node.module}")
        order.append(name)

    visit(MAIN)
    return order


def split(name: str) -> tuple[list[ast.stmt], str, set[str]]:
    """Return a module's absolute imports, the rest of its text, and the names that it defines."""
    text = source(name)
    tree = ast.parse(text)
    lines = text.splitlines(keepends=True)
    imports: list[ast.stmt] = []
    names: set[str] = set()
    drop: set[int] = set()
    for index, node in enumerate(tree.body):
        is_docstring = index == 0 and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if isinstance(node, (ast.Import, ast.ImportFrom)) or is_docstring:
            drop.update(range(node.lineno - 1, node.end_lineno or node.lineno))
            if not is_docstring and not getattr(node, "level", 0) and getattr(node, "module", "") != "__future__":
                imports.append(node)
        elif isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names.update(leaf.id for target in targets for leaf in ast.walk(target) if isinstance(leaf, ast.Name))
    header = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    drop.update(range(header))
    rest = "".join(line for number, line in enumerate(lines) if number not in drop).strip("\n")
    doc = ast.get_docstring(tree) or ""
    ruler = f"# ---- {name} ".ljust(119, "-")
    about = "".join(f"# {line}".rstrip() + "\n" for line in doc.splitlines())
    return imports, f"{ruler}\n{about}\n\n{rest}\n", names


def gather(imports: list[ast.stmt]) -> str:
    """Return the import statements without repetition, sorted as ruff sorts them."""
    plain: set[str] = set()
    members: dict[str, set[str]] = {}
    for node in imports:
        if isinstance(node, ast.Import):
            plain.update(ast.unparse(alias) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            members.setdefault(str(node.module), set()).update(ast.unparse(alias) for alias in node.names)
    text = [f"import {name}" for name in sorted(plain - {"sys"})]  # the head has it already
    text += [f"from {module} import {', '.join(sorted(names))}" for module, names in sorted(members.items())]
    return "\n".join(text) + "\n"


def amalgamation() -> str:
    """Return the text of the one file."""
    version: dict[str, str] = {}
    exec(source("base.version"), version)
    requirements = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    packages = "\n".join(f"    {line}" for line in requirements if line and not line.startswith("#"))
    imports: list[ast.stmt] = []
    parts: list[str] = []
    owner: dict[str, str] = {}
    for name in modules():
        absolute, text, names = split(name)
        for defined in names:
            shared = defined.endswith("_problem")
            assert defined not in owner or shared, f"{defined} is defined in {owner.get(defined)} and in {name}"
            owner[defined] = name
        imports += absolute
        parts.append(text)
    return HEAD.format(version=version["VERSION"], packages=packages) + gather(imports) + "\n\n" + "\n\n".join(parts)


def main() -> int:
    """Write the file, or check it."""
    text = amalgamation()
    if "--check" in sys.argv[1:]:
        fresh = TARGET.is_file() and TARGET.read_text("utf-8") == text
        print(f"{TARGET.relative_to(ROOT)} is {'fresh' if fresh else 'not fresh: run make script'}")
        return 0 if fresh else 1
    TARGET.write_text(text, "utf-8")
    TARGET.chmod(0o755)
    return 0


if __name__ == "__main__":
    sys.exit(main())
