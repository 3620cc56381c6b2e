"""Another machine's request is read into memory only up to a bound that depends on whose key signed it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping

import httpx
import pytest
from flwr.proto.fleet_pb2 import PullMessagesRequest
from flwr.supercore.primitives.asymmetric import generate_key_pairs, public_key_to_bytes
from flwr.supercore.protobuf.client import ProtobufRequestContext
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from ganseg_dist.federation.public_key import PublicKey
from server.bounded_requests import LARGEST_OF_ANYBODY, LARGEST_OF_SITE, BoundedRequests, in_registry
from server.site_registry import FILE, Registry

URL = "http://hub/v1/fleet/push-object"
NORTH, WEST = generate_key_pairs(), generate_key_pairs()
read: list[int] = []
"""Bytes of the bodies that got to Flower."""


async def flower(request: Request) -> PlainTextResponse:
    read.append(len(await request.body()))
    return PlainTextResponse("done")


def signed_by(pair) -> dict[str, str]:
    """The headers that a node with this key sends."""
    request = httpx.Request("POST", URL)
    context = ProtobufRequestContext("/flwr.proto.Fleet/PullMessages", PullMessagesRequest(), request)
    NodeAuthHttpInterceptor(*pair).intercept(context, lambda sent: httpx.Response(200))
    return {name: value for name, value in request.headers.items() if name.startswith("flwr-")}


@pytest.fixture
def status(tmp_path):
    """The status of a POST, with north's key registered."""
    registry = Registry(tmp_path / FILE)
    registry.add("north", PublicKey.from_pem(public_key_to_bytes(NORTH[1])).fingerprint, 5)
    read.clear()
    app = BoundedRequests(Starlette(routes=[Route("/{rest:path}", flower, methods=["POST"])]), in_registry(registry))

    def post(
        content: bytes | AsyncIterator[bytes], headers: Mapping[str, str | bytes], address: str = "192.0.2.7"
    ) -> int:
        async def sent() -> int:
            connection = httpx.ASGITransport(app, client=(address, 50000))
            async with httpx.AsyncClient(transport=connection) as client:
                return (await client.post(URL, content=content, headers=headers)).status_code

        return asyncio.run(sent())

    post.registry = registry
    return post


def test_superlink_reads_small_requests_of_anybody(status):
    for headers in ({}, signed_by(WEST)):
        assert status(bytes(LARGEST_OF_ANYBODY), headers) == 200
        assert status(b"", headers) == 200
        assert status(bytes(LARGEST_OF_ANYBODY + 1), headers) == 413
    assert read == [LARGEST_OF_ANYBODY, 0] * 2


def test_superlink_reads_uploads_of_registered_sites(status):
    headers = signed_by(NORTH)
    assert status(bytes(LARGEST_OF_SITE), headers) == 200
    assert status(bytes(LARGEST_OF_SITE + 1), headers) == 413
    status.registry.revoke("north")
    assert status(bytes(LARGEST_OF_SITE), headers) == 413
    assert read == [LARGEST_OF_SITE]


@pytest.mark.parametrize(
    "changed",
    [
        {"flwr-timestamp": "2026-01-01T00:00:00+00:00"},
        {"flwr-timestamp": b"\xe9"},
        {"flwr-signature": "AAAA"},
        {"flwr-signature": "not base64"},
        {"flwr-public-key": "AAAA"},
    ],
)
def test_superlink_reads_no_upload_with_another_signature(status, changed):
    """West signs with its own key, or shows north's, which is no secret."""
    headers = signed_by(NORTH)
    assert set(changed) <= set(headers)
    assert status(bytes(10**6), headers) == 200
    assert status(bytes(10**6), headers | changed) == 413
    of_west = signed_by(WEST)
    assert status(bytes(10**6), of_west | {"flwr-public-key": headers["flwr-public-key"]}) == 413
    assert read == [10**6]


def test_superlink_reads_no_request_that_states_no_length(status):
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1000)

    for headers in ({}, signed_by(NORTH)):
        assert status(endless(), headers) == 411
    assert status(b"x", {"content-length": "-1"}) == 411
    assert status(b"x", {"transfer-encoding": "chunked", "content-length": "1"}) == 411
    assert read == []


def test_superlink_reads_large_request_of_its_own_machine(status):
    assert status(bytes(LARGEST_OF_SITE + 1), {}, "127.0.0.1") == 200


def test_superlink_reads_no_upload_while_the_registry_is_damaged(status):
    status.registry.file.write_text("{")
    assert status(bytes(10**6), signed_by(NORTH)) == 413
    assert status(bytes(1000), signed_by(NORTH)) == 200


def test_bound_of_uploads_fits_flowers_chunks():
    from flwr.common.constant import FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE

    assert FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE + 2**20 < LARGEST_OF_SITE
