"""The SuperLink accepts nodes from every address, and other requests from its own machine only; checks at its start."""

import argparse
import asyncio
import datetime
import socket
import sys

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from ganseg_dist.errors import ConfigError
from ganseg_dist.federation import certificates
from ganseg_dist.federation.certificates import make_certificates
from server.superlink import LoopbackOnly, check, main
from tests.deploy.processes import free_port

HERE = ["127.0.0.1", "127.0.0.2", "::1", "::ffff:127.0.0.1"]
ELSEWHERE = ["192.0.2.7", "10.0.0.1", "::ffff:192.0.2.7", "2001:db8::7"]
NODES = "/v1/fleet/pull-messages"
OTHERS = ["/v1/control/register-node", "/v1/control/start-run", "/v1/runtime/acquire-task", "/docs", "/", "/v1/fleet"]


FLOWER = Starlette(routes=[Route("/{rest:path}", lambda request: PlainTextResponse("done"), methods=["POST"])])


def status_of(path: str, address: str) -> int:
    async def post() -> int:
        connection = httpx.ASGITransport(LoopbackOnly(FLOWER), client=(address, 50000))
        async with httpx.AsyncClient(transport=connection, base_url="http://hub") as client:
            return (await client.post(path)).status_code

    return asyncio.run(post())


@pytest.mark.parametrize("address", HERE + ELSEWHERE)
def test_superlink_answers_nodes_from_every_address(address):
    assert status_of(NODES, address) == 200


@pytest.mark.parametrize("path", OTHERS)
def test_superlink_rejects_other_requests_from_other_machines(path):
    assert {status_of(path, address) for address in HERE} == {200}
    assert {status_of(path, address) for address in ELSEWHERE} == {403}


@pytest.fixture
def start(tmp_path):
    """The checks before a start with a certificate that is valid for some days."""

    def checked(days: int = 365, key: str = "server.key", port: int | None = None) -> str | None:
        make_certificates(tmp_path / "keys", ["hub"], ["north"], days=days)
        folder = tmp_path / "keys"
        return check(
            argparse.Namespace(
                host="127.0.0.1", port=port or free_port(), certificate=folder / "server.crt", key=folder / key
            )
        )

    return checked


def test_start_accepts_a_certificate_and_warns_of_one_that_expires_soon(start, tmp_path):
    assert start() is None
    for file in (tmp_path / "keys").iterdir():
        file.unlink()
    warning = start(days=10)
    assert warning is not None
    assert "server.crt: expires in 9 days; make another before" in warning


def test_start_rejects_an_expired_certificate(start, monkeypatch):
    monkeypatch.setattr(certificates, "CLOCK_SKEW", datetime.timedelta(days=9))
    with pytest.raises(ConfigError, match=r"server\.crt: has expired on 20..-..-..; make another"):
        start(days=-1)


@pytest.mark.parametrize("key", ["ca.key", "north.pub"])
def test_start_rejects_a_key_of_another_certificate(start, key):
    with pytest.raises(ConfigError, match=rf"{key}: is not the key of .*server\.crt"):
        start(key=key)


def test_start_rejects_a_taken_port(start):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port}: is taken on this machine; is this server running already"):
            start(port=port)


def test_main_prints_one_line_for_files_that_are_no_certificate(tmp_path, monkeypatch, capsys):
    file = tmp_path / "server.crt"
    file.write_text("hello")
    words = ["--host", "127.0.0.1", "--port", "0", "--ssl-certfile", str(file), "--ssl-keyfile", str(file), "--x", "y"]
    monkeypatch.setattr(sys, "argv", ["superlink", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {file}: is no certificate; give the folder")
