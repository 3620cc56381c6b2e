"""The SuperLink accepts nodes from every address, and other requests from its own machine only."""

import asyncio

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from server.superlink import LoopbackOnly

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
