"""Real sites in one process: `python -m tests.federation.hostile.honest FOLDER SERVER:PORT NAME ...`.

Each name is a site's folder in FOLDER, and a key in its `keys/`. Prints a line for each message that was answered.
"""

from __future__ import annotations

import sys
from pathlib import Path

from flwr.app import Context, Message

from clients.app import app
from tests.federation.hostile.node import serve


def answer(message: Message, context: Context) -> Message:
    """The hospital's app."""
    reply = app(message, context)
    print("answered", message.metadata.message_type, flush=True)
    return reply


def main() -> None:
    """Answer until the process is killed."""
    folder, server, *names = Path(sys.argv[1]), *sys.argv[2:]
    serve(
        server,
        folder / "keys" / "ca.crt",
        {name: folder / "keys" / f"{name}.key" for name in names},
        lambda _: answer,
        {name: {"home": str(folder / name)} for name in names},
        threads=1,
    )


if __name__ == "__main__":
    main()
