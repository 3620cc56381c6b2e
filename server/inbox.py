"""Reads the sites' replies. What a reply holds costs its sender that reply, and nobody else anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

from flwr.app import Message, RecordDict

from ganseg_dist.errors import FederationError
from ganseg_dist.federation.protocol import error_text

Content = TypeVar("Content")


def read_reply(reply: Message, read: Callable[[RecordDict], Content]) -> Content:
    """What `read` makes of a reply's content.

    Raises FederationError, in whose text nothing is the site's, for an error reply and for whatever goes wrong.
    """
    if reply.has_error():
        raise FederationError(error_text(reply.error.code))
    try:
        return read(reply.content)
    except FederationError:
        raise
    except Exception as error:  # the last line of defence: the checks of a message let none through that is known
        raise FederationError(f"its message cannot be read ({type(error).__name__})") from None


def read_replies(
    replies: Mapping[int, Message], read: Callable[[int, RecordDict], Content]
) -> tuple[dict[int, Content], dict[int, str]]:
    """By node, what `read` makes of the reply, and the reason where nothing can be made of it."""
    contents: dict[int, Content] = {}
    reasons: dict[int, str] = {}
    for node, reply in replies.items():
        try:
            contents[node] = read_reply(reply, partial(read, node))
        except FederationError as error:
            reasons[node] = str(error)
    return contents, reasons
