import logging
import threading
import time

import pytest

from ganseg_dist.tracking import outbox as outbox_module
from ganseg_dist.tracking.outbox import Outbox, Parcel


class Server:
    """A server that keeps what arrives; it can be away, reject some parcels, or hang."""

    def __init__(self) -> None:
        self.arrived: list[int] = []
        self.attempts: list[int] = []
        self.away = False
        self.rejected: set[int] = set()
        self.hangs = threading.Event()

    def parcel(self, number: int) -> Parcel:
        return Parcel("metrics", 10, lambda: self.take(number))

    def take(self, number: int) -> None:
        self.attempts.append(number)
        if self.hangs.is_set():
            time.sleep(60)
        if self.away:
            raise ConnectionError("gone")
        if number in self.rejected:
            raise ValueError("disk full")
        self.arrived.append(number)

    def answers(self) -> bool:
        return not self.away


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch):
    monkeypatch.setattr(outbox_module, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(outbox_module, "HURRIED_PAUSE_SECONDS", 0.01)


def until(condition) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_outbox_keeps_order_and_warns_once_during_outage(caplog):
    server = Server()
    box = Outbox("MLflow at here", server.answers)
    box.put(server.parcel(0))
    until(lambda: server.arrived == [0])
    server.away = True
    for number in range(1, 6):
        box.put(server.parcel(number))
    until(lambda: len(server.attempts) > 4)
    server.away = False
    box.close()
    assert server.arrived == [0, 1, 2, 3, 4, 5]
    assert [record.message for record in caplog.records] == [
        "MLflow at here is not answering (gone); training continues, metrics wait"
    ]


def test_outbox_warns_of_each_outage():
    server = Server()
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    outbox_module.logger.addHandler(handler)
    try:
        box = Outbox("MLflow", server.answers)
        for number in range(2):
            server.away = True
            box.put(server.parcel(number))
            until(lambda number=number: server.attempts.count(number) > 1)
            server.away = False
            until(lambda number=number: number in server.arrived)
        box.close()
    finally:
        outbox_module.logger.removeHandler(handler)
    assert len(messages) == 2


def test_outbox_drops_rejected_parcels_and_sends_the_rest(caplog):
    server = Server()
    server.rejected = {1, 2}
    box = Outbox("MLflow", server.answers)
    for number in range(4):
        box.put(server.parcel(number))
    box.close()
    assert server.arrived == [0, 3]
    assert server.attempts.count(1) == outbox_module.MOST_REJECTIONS
    assert [record.message for record in caplog.records] == [
        "MLflow rejects metrics (disk full); training continues",
        "MLflow: 20 metrics could not be sent (disk full)",
    ]


def test_outbox_close_is_bounded_and_counts_lost_metrics(caplog):
    server = Server()
    server.away = True
    box = Outbox("MLflow", server.answers)
    for number in range(3):
        box.put(server.parcel(number))
    box.put(Parcel("pictures", 1, lambda: None))
    began = time.monotonic()
    box.close(seconds=0.2)
    assert time.monotonic() - began < 5
    assert caplog.records[-1].message == "MLflow: 30 metrics and 1 pictures could not be sent (gone)"
    box._thread.join(timeout=2)
    assert not box._thread.is_alive()


def test_outbox_put_and_close_do_not_block_on_hanging_server(caplog):
    server = Server()
    server.hangs.set()
    box = Outbox("MLflow", server.answers)
    began = time.monotonic()
    for number in range(100):
        box.put(server.parcel(number))
    box.close(seconds=0.2)
    assert time.monotonic() - began < 5  # one answer takes the server a minute
    assert "1000 metrics could not be sent" in caplog.records[-1].message
