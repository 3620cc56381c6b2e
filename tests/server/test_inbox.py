"""Reading replies: whatever goes wrong with one is an error of that one."""

import pytest
from flwr.app import Error, Message, RecordDict

from ganseg_dist.errors import FederationError
from ganseg_dist.federation.protocol import ERROR_TEXTS, PROCESS_DIED, error_text
from server.grids import InProcessGrid
from server.inbox import read_replies, read_reply

FORGED = "x\nfinished: /all/good\x1b[2J"


@pytest.fixture
def request_message() -> Message:
    InProcessGrid(lambda message, _: message, {})  # messages must come from a run
    message = Message(RecordDict(), dst_node_id=1, message_type="train")
    message.metadata.__dict__["_message_id"] = "1"
    return message


def reply(request_message: Message) -> Message:
    return Message(RecordDict(), reply_to=request_message)


@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError(FORGED),
        MemoryError(),
        RecursionError(FORGED),
        KeyError(FORGED),
        OverflowError(),
        AssertionError(),
    ],
)
def test_read_reply_turns_any_exception_into_name_of_its_class(error, request_message):
    def read(content: RecordDict) -> None:
        raise error

    with pytest.raises(FederationError) as caught:
        read_reply(reply(request_message), read)
    assert str(caught.value) == f"its message cannot be read ({type(error).__name__})"


def test_read_replies_separate_readable_from_unreadable(request_message):
    def read(node: int, content: RecordDict) -> int:
        if node == 2:
            raise FederationError("w: is not float32 (3,)")
        return 10 // (node - 3) if node == 3 else node

    replies = {node: reply(request_message) for node in (1, 2, 3)}
    replies[4] = Message(Error(1002, FORGED), reply_to=request_message)
    assert read_replies(replies, read) == (
        {1: 1},
        {
            2: "w: is not float32 (3,)",
            3: "its message cannot be read (ZeroDivisionError)",
            4: "the site rejects the config",
        },
    )


def test_read_replies_does_not_catch_interrupt(request_message):
    def read(node: int, content: RecordDict) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_replies({1: reply(request_message)}, read)


def test_error_text_is_one_fixed_line_for_every_code():
    for code in (*ERROR_TEXTS, 2000, 2001, 2999, -1, 0, 6, 9, 10**12):
        assert error_text(code).isprintable()
    assert error_text(*PROCESS_DIED[:1]) == PROCESS_DIED[1]
    assert error_text(10**12) == "the site failed; its log has the reason"
