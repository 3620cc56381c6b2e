"""`ganseg certificates`: keys and certificates that authenticate a federation's server and nodes."""

from __future__ import annotations

from pathlib import Path

import typer

from ganseg_dist.cli import show
from ganseg_dist.errors import ConfigError


def certificates(
    folder: Path = typer.Argument(metavar="DIR", help="Folder to write into; nothing in it is replaced."),
    hosts: list[str] = typer.Option(
        [], "--host", metavar="NAME", help="Name or address that nodes reach the server by; repeatable."
    ),
    nodes: list[str] = typer.Option([], "--node", metavar="NAME", help="A hospital's node; repeatable."),
    days: int = typer.Option(365, min=1, max=3650, help="That the server's certificate is valid."),
) -> None:
    """Make the keys and certificates of a federation.

    --host makes an authority (ca.crt, ca.key) and the server's certificate and key (server.crt, server.key). --node
    makes a node's key pair, NODE.key and NODE.pub. Files that end in .key are secret and readable by their owner alone.

    For a trial, all at once: [bold]ganseg certificates certificates --host server.example.org --node a --node b[/bold]

    In a real federation each hospital makes its own pair, and only NODE.pub leaves it:
    [bold]ganseg certificates keys --node a[/bold]
    """
    from ganseg_dist.federation.certificates import make_certificates
    from ganseg_dist.federation.public_key import PublicKey

    if not hosts and not nodes:
        raise ConfigError("--host or --node: give at least one; see: ganseg certificates --help")
    for file in make_certificates(folder, hosts, nodes, days=days):
        note = " (secret)" if file.suffix == ".key" else ""
        if file.suffix == ".pub":
            note = f", {PublicKey.read(file).fingerprint}"
        show.echo(f"written: {file}{note}")
