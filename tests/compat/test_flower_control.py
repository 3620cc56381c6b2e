"""Flower's Control API without a server; tests/deploy queries a real SuperLink."""

import pytest

from ganseg_dist.compat import flower_control
from ganseg_dist.compat.flower_control import (
    RequestRejected,
    address_of,
    log_of,
    nodes_of,
    register_node,
    runs_of,
    unregister_node,
)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setenv("FLWR_HOME", str(tmp_path))
    (tmp_path / "config.toml").write_text('[superlink.hub]\naddress = "127.0.0.1:9"\ninsecure = true\n')


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    "request_of",
    [
        runs_of,
        nodes_of,
        lambda connection: list(log_of(connection, 1)),
        lambda connection: register_node(connection, b"key", "north"),
        lambda connection: unregister_node(connection, 1),
    ],
    ids=["runs", "nodes", "log", "register", "unregister"],
)
def test_request_raises_connection_error_for_unreachable_superlink(request_of, capsys):
    with pytest.raises(ConnectionError):
        request_of("hub")
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("hub")
def test_request_by_an_unknown_connection_is_rejected():
    with pytest.raises(RequestRejected, match="elsewhere"):
        runs_of("elsewhere")
    assert address_of("hub") == ("127.0.0.1:9", None)


def test_log_of_raises_connection_error_for_a_part_that_is_cut_off(hub, monkeypatch):
    class Client:
        def StreamLogs(self, request):  # noqa: N802
            raise ValueError("Truncated protobuf stream frame")

        def close(self):
            pass

    monkeypatch.setattr("flwr.cli.utils.init_http_client_from_connection", lambda connection: Client())
    with pytest.raises(ConnectionError, match="Truncated"):
        list(flower_control.log_of("hub", 1))
