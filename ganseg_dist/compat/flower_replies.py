"""Takes replies from Flower's SuperLink, each alone and within bounds; written for Flower 1.42.

A reply is what a node sent, and Flower builds it before anybody looks at it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from flwr.app import Message, MessageType, RecordDict
from flwr.serverapp import Grid

SECONDS, BYTES_A_SECOND = 30.0, 2**23
"""A reply's objects arrive within so many seconds, plus those of its bytes at this rate, a slow machine's."""


def pull_reply(grid: Grid, message_id: str, largest: int) -> Message | None:
    """The reply to a message; None before it has arrived.

    Over a network, Flower builds a reply of the objects that its node sent, and raises whatever goes wrong there or
    where the SuperLink reads the reply; the other replies of the same pull are then lost. So each is pulled alone, and
    one that cannot be built has no content.

    Args:
        largest: bytes of a reply's arrays.

    Raises OSError or httpx.HTTPError where the SuperLink does not answer other requests either.
    """
    import httpx
    from flwr.superlink.grid import HttpGrid

    if not isinstance(grid, HttpGrid):
        return next(iter(grid.pull_messages([message_id])), None)
    try:
        with _bounded(largest):
            return next(iter(grid.pull_messages([message_id])), None)
    except httpx.HTTPStatusError:  # of this reply, unless the SuperLink itself is at fault
        grid.get_node_ids()
    except (OSError, httpx.HTTPError):  # of the connection
        raise
    except Exception:
        pass
    return Message(RecordDict(), dst_node_id=0, message_type=MessageType.TRAIN)


@contextmanager
def _bounded(largest: int) -> Iterator[None]:
    """Bound what Flower builds a reply of. Flower raises the ValueError of a reply that is too large or too slow."""
    from flwr.superlink.grid import http_grid

    names = vars(http_grid)
    pull, inflate = names["pull_objects"], names["inflate_object_from_contents"]
    end = time.monotonic() + SECONDS + largest / BYTES_A_SECOND

    def pull_bounded(object_ids: list[str], pull_object_fn: Callable[[str], bytes]) -> Any:
        received = 0

        def fetch(object_id: str) -> bytes:
            nonlocal received
            content = pull_object_fn(object_id)
            received += len(content)
            if received > largest or time.monotonic() > end:
                raise ValueError("the reply is too large or too slow")
            return content

        # The SuperLink delivers complete replies, but for one that came as it was asked.
        return pull(object_ids, fetch, max_tries_per_object=None, max_time=end - time.monotonic())

    def inflate_bounded(object_id: str, contents: dict[str, bytes]) -> Any:
        if inflated_bytes(contents) > largest:
            raise ValueError("the reply's arrays are too large")
        return inflate(object_id, contents)

    names |= {"pull_objects": pull_bounded, "inflate_object_from_contents": inflate_bounded}
    try:
        yield
    finally:
        names |= {"pull_objects": pull, "inflate_object_from_contents": inflate}


def inflated_bytes(contents: Mapping[str, bytes]) -> int:
    """Bytes of the arrays that Flower builds of these objects, by id, without building them.

    An array names its chunks, and a record its arrays, as often as it likes: few bytes may stand for many.

    Raises ValueError, KeyError, TypeError or IndexError for objects of which nothing can be built.
    """
    from flwr.supercore.inflatable.inflatable_object import (
        get_object_children_ids_from_object_content,
        get_object_type_from_object_content,
    )

    kinds = {object_id: get_object_type_from_object_content(content) for object_id, content in contents.items()}
    arrays: dict[str, int] = {}
    for object_id, content in contents.items():
        if kinds[object_id] == "Array":
            chunks = [len(contents[child]) for child in get_object_children_ids_from_object_content(content)]
            arrays[object_id] = sum(chunks[place] for place in _body(content)["arraychunk_ids"])
    records = _sums(contents, kinds, "ArrayRecord", arrays)
    dictionaries = _sums(contents, kinds, "RecordDict", records)
    return max(sum(sizes.values()) for sizes in (arrays, records, dictionaries))


def _sums(
    contents: Mapping[str, bytes], kinds: Mapping[str, str], kind: str, sizes: Mapping[str, int]
) -> dict[str, int]:
    """By id of the objects of a kind, which name others, the sum of their sizes."""
    return {
        object_id: sum(sizes.get(named, 0) for named in _body(content).values())
        for object_id, content in contents.items()
        if kinds[object_id] == kind
    }


def _body(content: bytes) -> Any:
    from flwr.supercore.constant import HEAD_BODY_DIVIDER

    return json.loads(content.partition(HEAD_BODY_DIVIDER)[2])
