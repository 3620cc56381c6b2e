"""What a node or a command reports of a server that it cannot reach: one line with a remedy for each cause."""

import datetime
import socket
import ssl
import threading
from pathlib import Path

import pytest

from ganseg_dist.errors import FederationError
from ganseg_dist.federation import certificates, tls
from ganseg_dist.federation.certificates import make_certificates
from ganseg_dist.federation.tls import Unreachable, check_connection


@pytest.fixture
def serve():
    """Accepts TLS connections by a folder's server.crt until the test ends; returns the port."""
    listening: list[socket.socket] = []

    def start(folder: Path | None) -> int:
        listener = socket.create_server(("0.0.0.0", 0))
        listening.append(listener)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if folder is not None:
            context.load_cert_chain(folder / "server.crt", folder / "server.key")

        def accept() -> None:
            while True:
                try:
                    accepted, _ = listener.accept()
                except OSError:
                    return
                try:
                    if folder is None:
                        accepted.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n")
                        accepted.close()
                    else:
                        context.wrap_socket(accepted, server_side=True).close()
                except OSError:
                    accepted.close()

        threading.Thread(target=accept, daemon=True).start()
        return int(listener.getsockname()[1])

    yield start
    for listener in listening:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest.fixture
def authority(tmp_path):
    make_certificates(tmp_path / "keys", ["127.0.0.1"], [], days=1)
    return tmp_path / "keys"


def problem(address: str, authority: Path) -> FederationError:
    with pytest.raises(FederationError) as caught:
        check_connection(address, authority)
    assert "\n" not in str(caught.value)
    assert not str(caught.value).startswith("[SSL")
    return caught.value


def test_check_connection_accepts_the_server_of_the_authority(serve, authority):
    check_connection(f"127.0.0.1:{serve(authority)}", authority / "ca.crt")


def test_check_connection_names_a_server_of_another_authority(serve, authority, tmp_path):
    make_certificates(tmp_path / "other", ["127.0.0.1"], [], days=1)
    error = problem(f"127.0.0.1:{serve(tmp_path / 'other')}", authority / "ca.crt")
    assert "its certificate is not of the authority in" in str(error)
    assert not isinstance(error, Unreachable)


def test_check_connection_names_an_address_that_the_certificate_lacks(serve, authority):
    error = problem(f"127.0.0.2:{serve(authority)}", authority / "ca.crt")
    assert "its certificate is not for 127.0.0.2; give a name that it is for" in str(error)


def test_check_connection_names_an_expired_certificate(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(certificates, "CLOCK_SKEW", datetime.timedelta(days=3))
    make_certificates(tmp_path / "old", ["127.0.0.1"], [], days=-1)
    error = problem(f"127.0.0.1:{serve(tmp_path / 'old')}", tmp_path / "old" / "ca.crt")
    assert "its certificate has expired; the operator makes a new one" in str(error)


def test_check_connection_names_a_server_without_tls(serve, authority):
    assert "does not speak TLS" in str(problem(f"127.0.0.1:{serve(None)}", authority / "ca.crt"))


def test_check_connection_reports_port_without_listener(authority):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    error = problem(f"127.0.0.1:{port}", authority / "ca.crt")
    assert "nothing listens there; is server.sh running" in str(error)
    assert isinstance(error, Unreachable)


def test_check_connection_reports_server_that_does_not_answer(authority, monkeypatch):
    monkeypatch.setattr(tls, "SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        error = problem(f"127.0.0.1:{mute.getsockname()[1]}", authority / "ca.crt")
    assert "does not answer in" in str(error)
    assert isinstance(error, Unreachable)


def test_check_connection_names_an_unknown_host(authority, monkeypatch):
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", unknown)
    assert "no machine has the name hub.example.org" in str(problem("hub.example.org:9092", authority / "ca.crt"))


@pytest.mark.parametrize("address", ["hub", "https://hub:9092", "hub:", "hub:99999", ":9092", "hub:port"])
def test_check_connection_rejects_malformed_address(address, authority):
    assert str(problem(address, authority / "ca.crt")).startswith(f"{address}: is no HOST:PORT")


def test_check_connection_names_a_file_that_is_no_certificate(tmp_path):
    (tmp_path / "ca.crt").write_text("hello")
    assert "ca.crt: is no authority's certificate" in str(problem("127.0.0.1:9", tmp_path / "ca.crt"))
