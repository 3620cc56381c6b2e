"""Flower's SuperLink keeps what one node sends from blocking the server or another node; written for Flower 1.42.

A message is a tree of objects: itself, its records, their arrays, their chunks. An object's id is the hash of its
content, which names its children. A sender first registers the tree and then uploads the contents.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.date import now
from flwr.supercore.inflatable.inflatable_object import (
    get_object_children_ids_from_object_content,
    iterate_object_tree,
)
from flwr.supercore.object_store.sql_object_store import SqlObjectStore
from flwr.supercore.state.schema.corestate_models import ObjectPushSession, ObjectPushSessionRoot
from flwr.supercore.state.schema.linkstate_models import MessageRes
from flwr.supercore.state.schema.objectstore_models import ObjectChild, StoredObject
from flwr.superlink.servicer.runtime import runtime_handlers
from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

LOOK_SECONDS = 5.0
"""Between two requests to Flower for a reply that is not there."""

_from_server: ContextVar[bool] = ContextVar("from_server", default=False)
"""Whether the tree that is being registered is the server's."""


def protect_store() -> None:
    """Deliver only complete replies, and keep of each object the children that its content names. Call it once."""
    _deliver_complete_replies()
    _mark_trees_of_server()
    _keep_true_children()


def _deliver_complete_replies() -> None:
    """Hold back a reply while its sender uploads it.

    Flower delivers it once its tree is registered; the server then waits for each object, while no other reply is
    delivered. A sender that stops uploading is an error reply to Flower, once its session has expired.

    A reply may be registered between the look at what is there and Flower's own: Flower is asked for replies that are
    not there, which are errors of lost nodes then, only now and then.
    """
    names = vars(runtime_handlers)
    pull = names["pull_messages"]
    looked: dict[str, float] = {}
    """When Flower was asked last for a reply that was not there, on the monotonic clock."""

    def is_due(message_id: str) -> bool:
        if time.monotonic() - looked.get(message_id, -math.inf) < LOOK_SECONDS:
            return False
        looked[message_id] = time.monotonic()
        return True

    def pull_complete(request: Any, state: Any, task: Any) -> Any:
        complete, incomplete = _replies(state, set(request.message_ids))
        for message_id in complete:
            looked.pop(message_id, None)
        wanted = [each for each in request.message_ids if each in complete or (each not in incomplete and is_due(each))]
        return pull(type(request)(message_ids=wanted), state, task)

    names["pull_messages"] = pull_complete


def _replies(state: Any, message_ids: Set[str]) -> tuple[set[str], set[str]]:
    """Which of these messages have a reply that is complete, and which one that is being uploaded."""
    replied = select(MessageRes.reply_to_message_id).where(MessageRes.reply_to_message_id.in_(message_ids))
    uploading = (
        replied.join(ObjectPushSessionRoot, ObjectPushSessionRoot.root_object_id == MessageRes.message_id)
        .join(ObjectPushSession, ObjectPushSession.session_id == ObjectPushSessionRoot.session_id)
        .where(ObjectPushSession.pending_count > 0, ObjectPushSession.expires_at > now())
    )
    with state.session() as session:
        incomplete = set(session.scalars(uploading))
        return set(session.scalars(replied)) - incomplete, incomplete


def _mark_trees_of_server() -> None:
    names = vars(runtime_handlers)
    push = names["push_messages"]

    def push_of_server(request: Any, state: Any, task: Any) -> Any:
        with _registering_for_server():
            return push(request, state, task)

    names["push_messages"] = push_of_server


@contextmanager
def _registering_for_server() -> Iterator[None]:
    token = _from_server.set(True)
    try:
        yield
    finally:
        _from_server.reset(token)


def _keep_true_children() -> None:
    """Let no node fix the children of an object that it does not have.

    Flower takes the children from whoever registers an object first and rejects each other tree with it. The ids of the
    server's next objects are known to every node that has its weights, and those of small records, such as one without
    arrays, to anybody. Here the content decides once it is there. Before, the server's registration does, and else the
    last one: an upload then corrects it.
    """
    patched: Any = SqlObjectStore
    register, put = patched.preregister, patched.put
    of_server: set[str] = set()
    """Ids that the server has registered and not yet uploaded."""

    def preregister(store: Any, run_id: int, tree: ObjectTree) -> list[str]:
        with store._mutation_session() as session:
            try:
                missing = register(store, run_id, tree)
            except ValueError:
                _correct(session, tree, store.dialect_insert, _may_correct(session, of_server))
                missing = register(store, run_id, tree)
            if _from_server.get():
                of_server.update(missing)
            return list(missing)

    def put_with_children(store: Any, object_id: str, content: bytes) -> None:
        with store._mutation_session() as session:
            put(store, object_id, content)
            children = set(get_object_children_ids_from_object_content(content))
            if _children(session, object_id) != children:
                _set_children(session, object_id, children)
            of_server.discard(object_id)

    patched.preregister, patched.put = preregister, put_with_children


def _may_correct(session: Session, of_server: Set[str]) -> Callable[[str, Set[str]], bool]:
    """Whether the tree that is being registered decides on an object's children."""

    def may(object_id: str, children: Set[str]) -> bool:
        if _from_server.get():
            return True
        content = session.scalar(
            select(StoredObject.content).where(StoredObject.object_id == object_id, StoredObject.is_available == 1)
        )
        if content is None:
            return object_id not in of_server
        return children == set(get_object_children_ids_from_object_content(content))

    return may


def _correct(session: Session, tree: ObjectTree, upsert: Any, may: Callable[[str, Set[str]], bool]) -> None:
    """Give every object of a tree the tree's children, where the tree decides on them.

    Children come before their parents, so that a parent's rows refer to rows that exist. As each tree states all that
    is below its objects, no correction makes an object its own descendant.
    """
    for part in iterate_object_tree(tree):
        missing = upsert(StoredObject).values(object_id=part.object_id, content=b"", is_available=0, ref_count=0)
        session.execute(missing.on_conflict_do_nothing(index_elements=[StoredObject.object_id]))
        children = {child.object_id for child in part.children}
        if _children(session, part.object_id) != children and may(part.object_id, children):
            _set_children(session, part.object_id, children)


def _children(session: Session, object_id: str) -> set[str]:
    return set(session.scalars(select(ObjectChild.child_id).where(ObjectChild.parent_id == object_id)))


def _set_children(session: Session, object_id: str, children: Set[str]) -> None:
    """Replace an object's children, which are registered, and count the references to them as Flower does.

    Raises sqlalchemy's IntegrityError for a child that is not registered.
    """
    count = StoredObject.ref_count
    for change, ids in ((-1, _children(session, object_id) - children), (1, children - _children(session, object_id))):
        session.execute(update(StoredObject).where(StoredObject.object_id.in_(ids)).values(ref_count=count + change))
    session.execute(delete(ObjectChild).where(ObjectChild.parent_id == object_id))
    if children:
        session.execute(insert(ObjectChild), [{"parent_id": object_id, "child_id": child} for child in children])
