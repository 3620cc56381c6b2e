"""Flower 1.42's errors as one line with a remedy, in its log and where it raises them."""

from __future__ import annotations

import logging
from collections.abc import Callable

from ganseg_dist.printable import printable

UNANSWERED = "check the network between here and the server, and that server.sh runs"
"""Remedy for a request without an answer."""


def explain(error: BaseException) -> str | None:
    """What an error of Flower or its HTTP client means and what to do, in one line; None for any other error."""
    import httpx
    from flwr.supercore.inflatable.inflatable_utils import ObjectPullError, ObjectPushError
    from flwr.supercore.run import RunNotRunningException

    match error:
        case RunNotRunningException():
            return "the run was stopped; start it again with the same run.sh to resume"
        case ObjectPushError():
            return (
                "the receiver took the message no more: the run ended, the message came after its deadline, or the "
                "upload was interrupted; if it repeats, raise federation.deadline_seconds"
            )
        case ObjectPullError():
            return "the sender did not complete the message; if it repeats, raise federation.deadline_seconds"
        case httpx.HTTPStatusError(response=response):
            return _explain_status(response.status_code)
        case httpx.TimeoutException():
            return f"the server did not answer in time; {UNANSWERED}"
        case httpx.TransportError() if "certificate" in str(error).lower():
            return f"the server's certificate is not accepted ({_line(str(error))}); start again to see why"
        case httpx.TransportError():
            return f"the connection to the server failed ({_line(str(error)) or type(error).__name__}); {UNANSWERED}"
    return None


def _explain_status(status: int) -> str:
    match status:
        case 401:
            return "the server does not accept this key or this machine's clock (401); see docs/federation.md, errors"
        case 403:
            return "the server accepts this request from its own machine alone, or the run has ended (403)"
        case 413:
            return "the message is too large for the server or a proxy before it (413); remove the proxy"
        case status if status >= 500:
            return f"the server failed ({status}); see server.sh's output, and start it again"
    return f"the server rejected the request ({status}); see server.sh's output"


def explain_flower_log(
    *,
    text_of: Callable[[BaseException], str | None] = lambda error: None,
    is_explained: Callable[[], bool] = lambda: False,
) -> None:
    """From now on, write the errors in this process's Flower log in one line each.

    Args:
        text_of: the line of an error of this package; None for others.
        is_explained: whether this process will say itself why it ends, so that Flower's reason is dropped.
    """
    logger = logging.getLogger("flwr")
    if not any(isinstance(each, _OneLine) for each in logger.filters):
        logger.addFilter(_OneLine(text_of, is_explained))


class _OneLine(logging.Filter):
    """Rewrites records of Flower's logger, and drops those that say nothing more."""

    def __init__(self, text_of: Callable[[BaseException], str | None], is_explained: Callable[[], bool]) -> None:
        super().__init__()
        self.text_of, self.is_explained = text_of, is_explained
        self.reason: str | None = None
        """Why the last connection failed, which Flower logs for debugging only."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite a record in place. Returns whether it is to be written."""
        template = str(record.msg)
        if isinstance(record.args, tuple):  # what another party sent must not look like a line, or control a terminal
            record.args = tuple(printable(each) if isinstance(each, str) else each for each in record.args)
        error = next((each for each in (record.msg, *_args(record)) if isinstance(each, BaseException)), None)
        if template.startswith("Connection attempt failed with exception") and error is not None:
            self.reason = explain(error)
        elif template.startswith("Connection attempt failed, retrying in"):
            (seconds,) = _args(record)
            reason = self.reason or f"the connection to the server failed; {UNANSWERED}"
            _rewrite(record, f"{reason}; trying again in {seconds:.0f} s")
        elif template == "SSL/TLS handshake error detected.":
            return False  # what follows has the reason
        elif record.levelno >= logging.ERROR and template.startswith("Exit Code: "):
            return not self.is_explained() and _rewrite_exit(record, template)
        elif record.levelno >= logging.ERROR:
            raised = record.exc_info[1] if record.exc_info else error
            text = None if raised is None else explain(raised) or self.text_of(raised)
            if text is not None:
                _rewrite(record, f"error: {text}")
        return True


def _rewrite_exit(record: logging.LogRecord, template: str) -> bool:
    """`Exit Code: 305`, a reason, help and an address, in lines of their own, become the reason."""
    lines = [line.strip() for line in template.splitlines()[1:] if line.strip()]
    reasons = [line for line in lines if not line.startswith("For more information")]
    if not reasons or reasons[0].startswith("An unhandled exception occurred"):
        return False  # the exception is logged already
    _rewrite(record, f"error: {' '.join(reasons)}")
    return True


def _args(record: logging.LogRecord) -> tuple[object, ...]:
    return record.args if isinstance(record.args, tuple) else ()


def _rewrite(record: logging.LogRecord, text: str) -> None:
    record.msg, record.args, record.exc_info, record.exc_text = text, None, None, None


def _line(text: str) -> str:
    return " ".join(text.split())[:200]
