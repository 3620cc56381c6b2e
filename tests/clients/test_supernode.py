"""A hospital's node prints why it is not connected, and ends with an error then."""

import datetime
import sys
from email.utils import format_datetime

import pytest

from clients import supernode as module
from clients.supernode import Connection, main
from ganseg_dist.compat.flower import Rejection
from ganseg_dist.federation.certificates import make_certificates
from ganseg_dist.federation.public_key import PublicKey

SERVER = "hub.example.org:9092"
KEY = "SHA256:abc"


def date(seconds: float = 0.0) -> str:
    """The `Date` of an answer by a clock that is this many seconds ahead of this machine's."""
    return format_datetime(datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds), usegmt=True)


@pytest.fixture
def slept(monkeypatch):
    """Seconds that the node waited; a clock that only sleeping moves."""
    waits: list[float] = []
    monkeypatch.setattr(module.time, "monotonic", lambda: sum(waits))
    monkeypatch.setattr(module.time, "sleep", waits.append)
    return waits


def test_node_with_unregistered_key_retries_until_limit_and_names_its_key(slept, capsys):
    connection = Connection(SERVER, KEY)
    tries = 0
    while connection.try_again(Rejection(activating=True, status=412, date=date())):
        tries += 1
    assert sum(slept) == pytest.approx(module.ACTIVATION_SECONDS)
    assert tries > 1
    (line,) = capsys.readouterr().err.splitlines()
    assert f"does not accept this node's key {KEY} yet: it is not registered, or a node with it was killed" in line
    assert connection.problem is not None
    assert "send NODE.pub to the operator" in connection.problem


def test_node_reports_no_problem_once_accepted(slept):
    connection = Connection(SERVER, KEY)
    assert connection.try_again(Rejection(activating=True, status=412, date=date()))
    connection.accepted()
    assert connection.problem is None


def test_node_reports_revocation_of_its_key_while_connected():
    connection = Connection(SERVER, KEY)
    assert not connection.try_again(Rejection(activating=False, status=401, date=date()))
    assert connection.problem == (
        f"{SERVER}: the server no longer accepts this node's key {KEY}; the operator revoked it, or lost the server's "
        "database: ask there"
    )


@pytest.mark.parametrize(("ahead", "direction"), [(400, "behind"), (-400, "ahead of")])
@pytest.mark.parametrize("activating", [True, False])
def test_node_reports_difference_of_its_clock_from_the_servers(ahead, direction, activating):
    connection = Connection(SERVER, KEY)
    assert not connection.try_again(Rejection(activating, 401, date(ahead)))
    assert connection.problem is not None
    assert f" s {direction} the server's; set both (NTP)" in connection.problem


@pytest.mark.parametrize("status", [403, 412, 503])
def test_node_reports_no_problem_for_rejected_message_of_ended_run(status):
    connection = Connection(SERVER, KEY)
    assert not connection.try_again(Rejection(activating=False, status=status, date=None))
    assert connection.problem is None


@pytest.fixture
def node(tmp_path, monkeypatch):
    """The arguments of a node whose server does not run; its SuperNode is the function that the test gives."""
    make_certificates(tmp_path, ["127.0.0.1"], ["north"], days=1)

    def start(supernode, key="north.key", authority="ca.crt", superlink="127.0.0.1:9") -> int:
        monkeypatch.setattr(module, "run_supernode", supernode)
        words = ["--superlink", superlink, "--root-certificates", str(tmp_path / authority), "--port", "9094"]
        monkeypatch.setattr(sys, "argv", ["node", *words, "--auth-supernode-private-key", str(tmp_path / key)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    return start


def test_node_exits_with_an_error_where_flower_ends_gracefully_after_a_rejection(node, capsys):
    def rejected(try_again, accepted):
        accepted()
        try_again(Rejection(activating=False, status=401, date=date()))
        sys.exit(0)

    assert node(rejected) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: 127.0.0.1:9: the server no longer accepts")


def test_node_shows_its_key_and_keeps_trying_while_the_server_does_not_answer(node, tmp_path, capsys):
    def stopped(try_again, accepted):
        sys.exit(0)

    assert node(stopped) == 0
    key, warning = capsys.readouterr().err.splitlines()
    assert key == f"this node's key: {PublicKey.read(tmp_path / 'north.pub').fingerprint}"
    assert warning.startswith("warning: 127.0.0.1:9: nothing listens there;")
    assert warning.endswith("The node keeps trying.")


@pytest.mark.parametrize(
    ("change", "line", "code"),
    [
        ({"key": "north.pub"}, "north.pub: is no secret key of a node; give the NODE.key", 2),
        ({"authority": "north.pub"}, "north.pub: is no authority's certificate", 1),
        ({"superlink": "hub"}, "hub: is no HOST:PORT", 1),
    ],
)
def test_node_rejects_wrong_files_before_connecting(node, change, line, code, capsys):
    def never(try_again, accepted):
        raise AssertionError

    assert node(never, **change) == code
    assert line in capsys.readouterr().err.splitlines()[-1]
