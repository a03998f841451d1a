"""The gateway's own calls over TLS: whom they trust, and when that is looked up."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from attach.trust import LateTrust
from attach.verification import build_issuer_client
from tests.issuer import CONVENTIONAL_JWKS, Issuer


@pytest.fixture
async def https_issuer() -> AsyncIterator[Issuer]:
    async with Issuer.start(tls=True) as issuer:
        yield issuer


async def test_an_issuer_is_trusted_by_the_certificates_that_the_operator_names(
    https_issuer: Issuer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "ca.pem"
    async with build_issuer_client() as client:  # They are read at the first connection, and not before.
        bundle.write_text(https_issuer.authority)
        monkeypatch.setenv("SSL_CERT_FILE", str(bundle))
        assert (await client.get(https_issuer.url + CONVENTIONAL_JWKS)).status_code == 200


async def test_an_issuer_that_nobody_vouches_for_is_not_asked(
    https_issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    async with build_issuer_client() as client:
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


def test_a_client_that_calls_nobody_has_read_no_certificate() -> None:
    assert LateTrust().cert_store_stats()["x509"] == 0
