"""Flower's errors become one line with a remedy, in every wording that Flower 1.42 logs."""

import inspect
import logging

import httpx
import pytest
from flwr.supercore.exit import flwr_exit
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, ObjectPushError
from flwr.supercore.retry import http_retry, make_simple_http_retry_invoker
from flwr.supercore.run import RunNotRunningException

from ganseg_dist.compat.flower_log import explain, explain_flower_log

REQUEST = httpx.Request("POST", "https://hub.example.org:9092/v1/fleet/push-messages")


def status(code: int) -> httpx.HTTPStatusError:
    return httpx.HTTPStatusError("Client error for url", request=REQUEST, response=httpx.Response(code, text="{}"))


ERRORS = {
    "object push": (ObjectPushError("ab" * 32, 7, "session"), "took the message no more"),
    "object pull": (ObjectPullError("ab" * 32, "gone"), "did not complete the message"),
    "stopped": (RunNotRunningException(), "start it again with the same run.sh to resume"),
    "401": (status(401), "does not accept this key or this machine's clock"),
    "403": (status(403), "from its own machine alone, or the run has ended"),
    "413": (status(413), "remove the proxy"),
    "500": (status(500), "see server.sh's output"),
    "timeout": (httpx.ReadTimeout("timed out"), "did not answer in time; check the network"),
    "refused": (httpx.ConnectError("[Errno 111] Connection refused"), "Connection refused); check the network"),
    "certificate": (httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] hello"), "certificate is not accepted"),
    "cut off": (httpx.RemoteProtocolError("Server disconnected\nwithout sending"), "disconnected without sending"),
}


@pytest.fixture
def flower(caplog):
    """Flower's logger, whose filters are restored, and what it has written."""
    logger = logging.getLogger("flwr")
    before, propagates = list(logger.filters), logger.propagate
    logger.filters[:], logger.propagate = [], True
    caplog.set_level(logging.DEBUG, "flwr")  # as Flower sets it
    caplog.handler.setLevel(logging.INFO)
    yield logger
    logger.filters[:], logger.propagate = before, propagates


@pytest.mark.parametrize(("error", "text"), ERRORS.values(), ids=ERRORS)
def test_explain_gives_one_line_with_a_remedy(error, text):
    explained = explain(error)
    assert explained is not None
    assert text in explained
    assert ";" in explained or "(403)" in explained
    assert "\n" not in explained


def test_explain_leaves_other_errors_to_their_traceback():
    assert explain(ZeroDivisionError()) is None


@pytest.mark.parametrize(("error", "text"), ERRORS.values(), ids=ERRORS)
def test_log_has_no_traceback_of_flowers_errors(flower, caplog, error, text):
    explain_flower_log()
    try:
        raise error
    except type(error) as raised:
        flower.error("%s raised an exception", "ClientApp", exc_info=raised)
    flower.error("Failed to send message %s: %s", "12", error)
    flower.error(error)
    assert caplog.messages == [f"error: {explain(error)}"] * 3
    assert not any(record.exc_info for record in caplog.records)


def test_log_keeps_the_traceback_of_other_errors_and_shows_errors_of_this_package_in_one_line(flower, caplog):
    explain_flower_log(text_of=lambda error: str(error) if isinstance(error, KeyError) else None)
    flower.error("ClientApp raised an exception", exc_info=ZeroDivisionError())
    flower.error("ClientApp raised an exception", exc_info=KeyError("data"))
    assert [bool(record.exc_info) for record in caplog.records] == [True, False]
    assert caplog.messages[1] == "error: 'data'"


def test_retries_log_reason_of_failed_connection(flower, caplog, monkeypatch):
    """Flower's own retries: it logs the reason for debugging only."""
    explain_flower_log()
    monkeypatch.setattr(http_retry.time, "sleep", lambda seconds: None)
    invoker = make_simple_http_retry_invoker()
    invoker.max_tries = 2

    def fail():
        raise httpx.ConnectError("[Errno 111] Connection refused")

    monkeypatch.setattr(http_retry.threading.Event, "wait", lambda self, seconds: None)
    with pytest.raises(httpx.ConnectError):
        invoker.invoke(fail)
    (line,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING][:1]
    assert "Connection refused" in line
    assert "; check the network between here and the server" in line
    assert "; trying again in" in line


def exit_message(code: int, message: str) -> str:
    """As `flwr_exit` logs it."""
    return f"Exit Code: {code}\n{message}\nHelp in general.\n\nFor more information, visit: <https://flower.ai/x>"


def test_exit_of_flower_is_one_line_without_a_code(flower, caplog):
    explain_flower_log()
    flower.error(exit_message(305, "Failed to initialize the connection to the SuperLink.\n[code: 2004] Failed."))
    flower.error(exit_message(800, "An unhandled exception occurred in a task process."))
    assert caplog.messages == [
        "error: Failed to initialize the connection to the SuperLink. [code: 2004] Failed. Help in general."
    ]


def test_exit_of_flower_is_not_logged_where_this_package_explains_it(flower, caplog):
    explain_flower_log(is_explained=lambda: True)
    flower.error(exit_message(305, "Failed"))
    assert caplog.messages == []


def test_flower_logs_in_the_expected_wording():
    retries, exits = inspect.getsource(http_retry), inspect.getsource(flwr_exit)
    assert '"Connection attempt failed, retrying in %.2f seconds"' in retries
    assert '"Connection attempt failed with exception: %s", retry_state.exception' in retries
    assert '"SSL/TLS handshake error detected."' in retries
    assert 'f"Exit Code: {code}\\n"' in exits
    assert "For more information, visit:" in exits


def test_explain_flower_log_escapes_text_of_others(flower, caplog):
    explain_flower_log()
    flower.info("[RUN %s, ROUND %s]", 7, "3]\nINFO :  finished: /all/good\x1b[2J")
    (line,) = caplog.messages
    assert line == r"[RUN 7, ROUND 3]\nINFO :  finished: /all/good\x1b[2J]"
    assert line.isprintable()
