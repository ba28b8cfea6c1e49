# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ways of the admin application to sign in without a secret in the vault: what each needs in the world and outside."""

from __future__ import annotations

import functools
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from certificates import self_signed
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    load_pem_private_key,
    pkcs12,
)
from harness import World

from sandbox.application import Application
from sandbox.crypto import new_key
from sandbox.identity_assertions import FederatedCredential, Issuer
from sandbox.identity_hosts import ARC_KEYS, AppService, ArcServer, Host, VirtualMachine, managed_identity
from sandbox.vault import VaultFile, VaultRecord

PASSPHRASE = "open sesame 4711"
SUBJECT = "system:serviceaccount:keeper:gateway"
OWNED = ["Application.ReadWrite.OwnedBy"]


@dataclass
class Way:
    """One way to sign in, prepared in a world: what both forms need around them, and what may appear nowhere.

    ``python`` is the interpreter, or what stands in for one. ``op`` is the request that is the sign-in, ``extra`` what
    the module is given besides.
    """

    environ: dict[str, str | None] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)
    python: str = sys.executable
    op: str = "token"
    extra: dict[str, Any] = field(default_factory=dict)
    host: Host | None = None
    issuer: Issuer | None = None

    def options(self, form: str) -> dict[str, Any]:
        """Return the arguments for a run of this form."""
        return {"environ": self.environ, "python": self.python, **(self.extra if form == "module" else {})}


def without_secret(world: World, client_id: bool = False) -> None:
    """Take the client secret out of the PAM configuration, and the client id unless it stays."""
    world.configuration.edit("clientSecret", "")
    if not client_id:
        world.configuration.edit("clientId", "")


def _owner(world: World, name: str) -> Application:
    identity = managed_identity(world.sandbox.entra, name, OWNED)
    world.app.owners.append(identity.client_id)
    return identity


def on_a_vm(world: World, folder: Path) -> Way:
    """The Gateway runs on an Azure VM that has an identity."""
    without_secret(world)
    host = VirtualMachine(world.sandbox.entra, _owner(world, "gateway-vm"))
    world.sandbox.serve(host)
    return Way(host.environ(), op="imds_token", host=host)


def on_a_vm_by_client_id(world: World, folder: Path) -> Way:
    """An identity was made on its own and assigned to the VM, which has one of its own, too."""
    identity = _owner(world, "rotators")
    host = VirtualMachine(world.sandbox.entra, managed_identity(world.sandbox.entra, "vm"), [identity])
    world.sandbox.serve(host)
    without_secret(world)
    world.configuration.edit("clientId", identity.client_id)
    world.configuration.edit("managed_identity", "true")
    return Way(host.environ(), op="imds_token", host=host)


def in_app_service(world: World, folder: Path) -> Way:
    """The Gateway runs in a container of App Service."""
    without_secret(world)
    host = AppService(world.sandbox.entra, _owner(world, "gateway-app"))
    world.sandbox.serve(host)
    return Way(host.environ(), [host.header], op="appservice_token", host=host)


def by_arc(world: World, folder: Path) -> Way:
    """The Gateway runs on a host of the customer's own that Azure Arc's agent is on."""
    without_secret(world)
    keys = folder / "keys"
    keys.mkdir(exist_ok=True)
    host = ArcServer(world.sandbox.entra, keys, _owner(world, "gateway-host"))
    world.sandbox.serve(host)
    return Way(host.environ(), host.made, arc_host(folder, keys), op="himds_token", host=host)


def arc_host(folder: Path, keys: Path, readable: bool = True) -> str:
    """Return what runs Python where Arc's folder is ``keys``, in namespaces of its own.

    Without ``readable`` Python runs as a user who may not look into it.
    """
    script = folder / "python-on-arc"
    # /var/opt may not be there, and is nobody's business: it is covered.
    lines = ["mount -t tmpfs none /var/opt", f"mkdir -p {ARC_KEYS}"]
    if readable:
        lines += [f"mount --bind {keys} {ARC_KEYS}", f'exec {sys.executable} "$@"']
    else:
        lines += [f"chmod 0 {ARC_KEYS}", f'exec unshare --user --map-user=1000 {sys.executable} "$@"']
    script.write_text(
        "#!/bin/sh\nset -e\n"
        'if [ -z "$IN_NAMESPACE" ]; then\n'
        '  IN_NAMESPACE=yes exec unshare --user --map-root-user --mount "$0" "$@"\n'
        "fi\n" + "\n".join(lines) + "\n"
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return str(script)


def why_no_namespaces() -> str:
    """Return why this host lets nobody make the namespaces that Arc's fixed folder needs; empty where it does."""
    probe = "mount -t tmpfs none /var/opt && exec unshare --user --map-user=1000 true"
    try:
        done = subprocess.run(
            ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", probe],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as problem:
        return f"unshare: {problem.strerror}"
    return "" if done.returncode == 0 else f"no namespaces of a user's own: {done.stderr.strip()}"


def trust(world: World) -> Issuer:
    """Let the admin application trust a cluster's tokens."""
    issuer = world.sandbox.entra.assertions.add(Issuer("https://oidc.cluster.example/7a1c/"))
    world.admin.federated.append(FederatedCredential(issuer.url, SUBJECT))
    return issuer


def _workload(world: World, **more: str | None) -> dict[str, str | None]:
    """Return the variables that AKS puts into a pod."""
    return {
        "AZURE_CLIENT_ID": world.admin.client_id,
        "AZURE_TENANT_ID": world.sandbox.tenant_id,
        "AZURE_AUTHORITY_HOST": f"https://{world.sandbox.authority}/",
        **more,
    }


def with_a_token_file(world: World, folder: Path) -> Way:
    """The Gateway runs in a Kubernetes cluster, which writes a token for it into a file."""
    without_secret(world)
    issuer = trust(world)
    token = issuer.token(SUBJECT)
    (folder / "token").write_text(token)
    return Way(_workload(world, AZURE_FEDERATED_TOKEN_FILE=str(folder / "token")), [token], issuer=issuer)


def with_a_token_file_of_the_configuration(world: World, folder: Path) -> Way:
    """The PAM configuration names that file."""
    without_secret(world, client_id=True)
    issuer = trust(world)
    token = issuer.token(SUBJECT)
    (folder / "token").write_text(token + "\n")
    world.configuration.edit("oidc_token_file_path", str(folder / "token"))
    return Way(secrets=[token], issuer=issuer)


def with_a_token(world: World, folder: Path) -> Way:
    """An automation controller or a pipeline passes a token."""
    without_secret(world)
    issuer = trust(world)
    token = issuer.token(SUBJECT)
    return Way(_workload(world, AZURE_FEDERATED_TOKEN=token), [token], issuer=issuer)


@functools.cache
def _certificate() -> str:
    """Return the certificate of this process; to make one takes long."""
    return self_signed()


def certify(world: World) -> str:
    """Give the admin application a certificate; return it with its key."""
    pem = _certificate()
    world.admin.add_certificate(pem)
    return pem


def _key(pem: str) -> list[str]:
    return [line for line in pem.splitlines() if len(line) == 64]


def with_a_certificate_at_a_path(world: World, folder: Path) -> Way:
    """The PAM configuration names a PEM file of the host."""
    without_secret(world, client_id=True)
    pem = certify(world)
    (folder / "rotator.pem").write_text(pem)
    world.configuration.edit("certificate_path", str(folder / "rotator.pem"))
    return Way(secrets=_key(pem))


def with_a_certificate_of_the_environment(world: World, folder: Path) -> Way:
    """The environment names a PFX file of the host, and its passphrase."""
    without_secret(world)
    pem = certify(world)
    (folder / "rotator.pfx").write_bytes(as_pfx(pem))
    environ = _workload(world, AZURE_CLIENT_CERTIFICATE_PATH=str(folder / "rotator.pfx"))
    return Way({**environ, "AZURE_CLIENT_CERTIFICATE_PASSWORD": PASSPHRASE}, [*_key(pem), PASSPHRASE])


def attach(record: VaultRecord, name: str, content: bytes) -> None:
    """Somebody attaches a file to a record."""
    meta = {"name": name, "title": name, "size": len(content), "type": "application/octet-stream", "lastModified": 0}
    file = VaultFile(name, new_key(), meta, content)
    record.files.append(file)
    field = record.field_named("fileRef")
    assert field is not None
    field["value"].append(file.uid)


def admin_record(world: World, **fields: str | None) -> VaultRecord:
    """Attach the record of the admin application to the script; it holds no secret unless one is given."""
    values = {"application_client_id": world.admin.client_id, "tenant_id": world.sandbox.tenant_id, **fields}
    given = {label: value for label, value in values.items() if value is not None}
    record = world.sandbox.vault.pam_user("keeper-rotator", folder=world.sandbox.vault.folder_uid, **given)
    world.sandbox.vault.attach_script(world.record, b"", credentials=[record.uid])
    return record


def with_an_attached_pem(world: World, folder: Path) -> Way:
    """The record of the admin application has a PEM file attached."""
    pem = certify(world)
    record = admin_record(world)
    attach(record, "Rotator.PEM", pem.encode())
    attach(record, "notes.txt", b"renewed every spring")
    return Way(secrets=_key(pem), extra={"admin_record": record.uid})


def with_an_attached_pfx(world: World, folder: Path) -> Way:
    """The record of the admin application has a PFX file attached, and a field with its passphrase."""
    pem = certify(world)
    record = admin_record(world, certificate_passphrase=PASSPHRASE)
    attach(record, "rotator.pfx", as_pfx(pem))
    return Way(secrets=[*_key(pem), PASSPHRASE], extra={"admin_record": record.uid})


def as_pfx(pem: str, passphrase: str = PASSPHRASE) -> bytes:
    """Return a key and its certificate as a PFX file."""
    key, certificate = load_pem_private_key(pem.encode(), None), x509.load_pem_x509_certificate(pem.encode())
    sealed = BestAvailableEncryption(passphrase.encode())
    return pkcs12.serialize_key_and_certificates(b"rotator", key, certificate, None, sealed)  # type: ignore[arg-type]


#: All of them; the second line of a run says what follows the name.
WAYS: dict[str, tuple[Callable[[World, Path], Way], str]] = {
    "VM": (on_a_vm, "this host's managed identity from the record 'Azure'"),
    "VM, by client id": (on_a_vm_by_client_id, "this host's user-assigned managed identity"),
    "App Service": (in_app_service, "this host's managed identity from the record 'Azure'"),
    "Arc": (by_arc, "this host's managed identity from the record 'Azure'"),
    "token file": (with_a_token_file, "from the environment: no record holds one"),
    "token file of the configuration": (with_a_token_file_of_the_configuration, "from the record 'Azure'"),
    "token": (with_a_token, "(with the federated token of the environment) from the environment"),
    "certificate at a path": (with_a_certificate_at_a_path, "rotator.pem) from the record 'Azure'"),
    "certificate of the environment": (with_a_certificate_of_the_environment, "rotator.pfx) from the environment"),
    "attached PEM": (with_an_attached_pem, "the certificate in the file Rotator.PEM of the record 'keeper-rotator'"),
    "attached PFX": (with_an_attached_pfx, "the certificate in the file rotator.pfx of the record 'keeper-rotator'"),
}


@contextmanager
def moved(world: World, hours: float) -> Iterator[None]:
    """Let Entra's clock be that far ahead for a while."""
    before = world.sandbox.directory.clock
    world.sandbox.directory.clock = before + timedelta(hours=hours).total_seconds()
    try:
        yield
    finally:
        world.sandbox.directory.clock = before
