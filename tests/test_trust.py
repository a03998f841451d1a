"""The gateway's own calls to issuers: by which way, whom they trust, and when that is looked up."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest

from attach.trust import LateTrust
from attach.verification import build_issuer_client
from auth.remote import FetchError, fetch_document
from tests.issuer import CONVENTIONAL_JWKS, Issuer


@pytest.fixture
async def https_issuer() -> AsyncIterator[Issuer]:
    async with Issuer.start(tls=True) as issuer:
        yield issuer


CLIENTS = pytest.mark.parametrize(
    "client_to",
    [build_issuer_client, lambda: httpx.AsyncClient(verify=LateTrust())],
    ids=["this machine", "another machine"],
)
AT_ANOTHER_NAME = "127.1"  # is this machine too, and nobody says so


@CLIENTS
async def test_an_issuer_is_trusted_by_the_certificates_that_the_operator_names(
    https_issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client_to: Callable[[], httpx.AsyncClient]
) -> None:
    bundle = tmp_path / "ca.pem"
    async with client_to() as client:  # They are read at the first connection, and not before.
        bundle.write_text(https_issuer.authority)
        monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
        assert (await client.get(https_issuer.url + CONVENTIONAL_JWKS)).status_code == 200


@CLIENTS
async def test_an_issuer_that_nobody_vouches_for_is_not_asked(
    https_issuer: Issuer, monkeypatch: pytest.MonkeyPatch, client_to: Callable[[], httpx.AsyncClient]
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    async with client_to() as client:
        with pytest.raises(httpx.ConnectError, match="certificate"):
            await client.get(https_issuer.url)
    assert https_issuer.requests == []


async def test_a_name_that_the_certificate_does_not_have_is_refused(
    https_issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text(https_issuer.authority)
    monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
    async with build_issuer_client() as client:
        with pytest.raises(httpx.ConnectError, match="certificate"):
            await client.get(https_issuer.url.replace("127.0.0.1", "localhost"))


async def test_an_issuer_at_another_machine_is_asked() -> None:
    async with Issuer.start() as issuer, build_issuer_client() as client:
        document = await fetch_document(client, issuer.jwks_uri.replace("127.0.0.1", AT_ANOTHER_NAME))
    assert len(document.members["keys"]) == 3


async def test_only_another_machine_is_asked_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Issuer.start() as issuer, Issuer.start() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        async with build_issuer_client() as client:
            assert (await client.get(issuer.jwks_uri)).status_code == 200
            assert proxy.requests == []
            await client.get(issuer.jwks_uri.replace("127.0.0.1", "issuer.test"))
            assert len(proxy.requests) == 1


async def test_an_issuer_that_cannot_be_reached_is_told_of_as_such() -> None:
    async with build_issuer_client() as client:
        for host in ("127.0.0.1", AT_ANOTHER_NAME):
            with pytest.raises(FetchError, match="unreachable"):
                await fetch_document(client, f"http://{host}:9/jwks")


def test_a_client_that_calls_nobody_has_read_no_certificate() -> None:
    assert LateTrust().cert_store_stats()["x509"] == 0
