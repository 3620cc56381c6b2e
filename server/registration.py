"""Behind register.sh, revoke.sh and sites.sh: which hospital's key may connect.

    python -m server.registration register STATE NODE.pub [NAME]
    python -m server.registration revoke STATE NAME
    python -m server.registration list STATE

The SuperLink decides which keys connect; the registry which name a key has. Flower finds the server in `FLWR_HOME`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.cells import cell_len, set_cell_size

from ganseg_dist.compat.flower_control import (
    ONLINE,
    UNREGISTERED,
    FlowerNode,
    nodes_of,
    register_node,
    unregister_node,
)
from ganseg_dist.errors import ConfigError, GansegError, RunError, exit_with
from ganseg_dist.federation.public_key import PublicKey, short_key
from ganseg_dist.names import SiteName, is_name
from ganseg_dist.printable import printable
from server.control import CONNECTION, control_errors
from server.site_registry import FILE, RegisteredSite, Registry


def register(state: Path, file: Path, name: str) -> RegisteredSite:
    """Let the key of a NODE.pub connect under a name; a second call with both completes an interrupted first.

    Raises ConfigError for a name or key that is invalid or taken, RunError where the server does not answer.
    """
    if not is_name(name, SiteName):
        raise ConfigError(f"{name!r}: is no site's name; give up to 60 printable characters, as in the site's settings")
    key, registry = PublicKey.read(file), Registry(state / FILE)
    registry.check_free(name, key.fingerprint)
    # The SuperLink first: a kill in between leaves a node that is rejected, and no name without a key.
    with control_errors():
        known = next((node for node in nodes_of(CONNECTION) if node.key == key.pem), None)
        if known is not None and known.status == UNREGISTERED:
            raise ConfigError(
                f"{file}: the server has unregistered this key ({short_key(key.fingerprint)}), which is final; the "
                "hospital makes another pair with ganseg certificates"
            )
        node = register_node(CONNECTION, key.pem, name) if known is None else known.number
    return registry.add(name, key.fingerprint, node)


def revoke(state: Path, name: str) -> RegisteredSite:
    """Reject a site's key from now on, also in a run in progress; a second call completes an interrupted first.

    Raises ConfigError for an unknown name, RunError where the server does not answer.
    """
    # The registry first: the server's app obeys it even while the SuperLink does not answer.
    site = Registry(state / FILE).revoke(name)
    try:
        with control_errors():
            status = {node.number: node.status for node in nodes_of(CONNECTION)}
            if status.get(site.node, UNREGISTERED) != UNREGISTERED:
                unregister_node(CONNECTION, site.node)
    except RunError as error:
        raise RunError(
            f"{name}: is revoked, and its node can still connect, to be rejected; rerun the command to end its "
            f"connection once the server runs ({error})"
        ) from None
    return site


def table_of(sites: Sequence[RegisteredSite], nodes: Sequence[FlowerNode] | None) -> list[tuple[str, ...]]:
    """A header and a row for every site and for every node whose key has no name; None: the server does not answer."""
    rows: list[tuple[str, ...]] = [("site", "key", "state", "since", "node")]
    by_number = {node.number: node for node in nodes or ()}
    for site in sites:
        node = by_number.get(site.node)
        since = site.revoked.isoformat() if site.revoked is not None else node.changed if node is not None else None
        state = _state(site, node) if nodes is not None or site.revoked is not None else "unknown"
        rows.append((site.name, short_key(site.key), state, since or "-", str(site.node)))
    named = {site.node for site in sites}
    for node in nodes or ():
        if node.number not in named and node.status != UNREGISTERED:
            key = short_key(PublicKey.from_pem(node.key).fingerprint)
            rows.append(("-", key, "no name: run register.sh with its key", node.changed or "-", str(node.number)))
    return rows


def _state(site: RegisteredSite, node: FlowerNode | None) -> str:
    gone = node is None or node.status == UNREGISTERED
    if site.revoked is not None:
        return "revoked" if gone else "revoked: run revoke.sh again to end its connection"
    if gone:
        return "unknown to the server: run register.sh again with its key"
    return "connected" if node is not None and node.status == ONLINE else "not connected"


def show_sites(state: Path) -> None:
    """Print `table_of`, also where the server does not answer. Raises RunError then."""
    sites, nodes, problem = Registry(state / FILE).sites(), None, None
    try:
        with control_errors():
            nodes = nodes_of(CONNECTION)
    except RunError as error:
        problem = error
    rows = table_of(sites, nodes)
    widths = [max(cell_len(printable(row[column])) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (set_cell_size(printable(cell), width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
    if problem is not None:
        raise problem


def _run(command: str, state: Path, args: Sequence[str]) -> None:
    if command == "register":
        site = register(state, Path(args[0]), args[1] if len(args) > 1 else Path(args[0]).stem)
        print(printable(f"registered: {site.name}, with the key {site.key}; compare it with the hospital's"))
    elif command == "revoke":
        site = revoke(state, args[0])
        print(printable(f"revoked: {site.name}, with the key {site.key}"))
    else:
        show_sites(state)


def main() -> None:
    """Run one of the three commands. Exits with an error's code after printing it in one line."""
    command, state, *args = sys.argv[1:]
    try:
        _run(command, Path(state), args)
    except GansegError as error:
        exit_with(error)


if __name__ == "__main__":
    main()
