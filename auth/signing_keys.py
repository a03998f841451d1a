"""Where the gateway's own keys are kept, and how one follows another."""

from __future__ import annotations

import fcntl
import json
import logging
import math
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from .jwk import VerifyingKey, read_jwk, verifying_key
from .strict import decode_json_object

logger = logging.getLogger(__name__)

KEY_FILE = "signing-key.pem"
RETIRED_FILE = "retired-keys.json"
OVERLAP_SECONDS = 24 * 3600.0  # Longer than any token of ours lives.
LOOK_SECONDS = 1.0  # How long a rotation may go unnoticed by a gateway that runs.

_PEM = re.compile(r"-----BEGIN ([A-Z ]+)-----.*?-----END \1-----", re.DOTALL)


class SigningKeyError(Exception):
    """The gateway's own key cannot be had. `str()` says what is wrong with which file, and the mend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKeys:
    """The key that signs, and all that are believed.

    Attributes:
        retired: Public halves of keys that signed before.
        by_kid: Every key that is believed, by its thumbprint, the one that signs first.
    """

    key: Ed25519PrivateKey = field(repr=False)
    retired: tuple[VerifyingKey, ...] = ()
    verifying_key: VerifyingKey = field(init=False)
    kid: str = field(init=False)
    by_kid: Mapping[str, VerifyingKey] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        own = verifying_key(self.key.public_key())
        object.__setattr__(self, "verifying_key", own)
        object.__setattr__(self, "kid", own.thumbprint())
        object.__setattr__(self, "by_kid", {key.thumbprint(): key for key in (own, *self.retired)})


def keys_of_pem(text: str) -> SigningKeys:
    """One or more private keys in PEM, one after another: the first signs. Raises `SigningKeyError`."""
    found = [_private_key(match[0].encode(), "ATTACH_SIGNING_KEY") for match in _PEM.finditer(text)]
    if not found:
        raise SigningKeyError("ATTACH_SIGNING_KEY is not a private key: give an Ed25519 key in PEM")
    return SigningKeys(key=found[0], retired=tuple(verifying_key(key.public_key()) for key in found[1:]))


class KeyFolder:
    """The keys in a directory that processes share: whoever reads sees within a second what another one rotated."""

    def __init__(
        self,
        directory: Path,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._directory = directory
        self._clock = clock
        self._monotonic = monotonic
        self._keys: SigningKeys | None = None
        self._stamp: object = None
        self._next_end = 0.0
        self._looked_at = 0.0

    def keys(self) -> SigningKeys:
        """The keys as they are now, made where there are none.

        Raises:
            SigningKeyError: They were never had. Once they were, the last ones good serve on.
        """
        if self._keys is not None and self._monotonic() - self._looked_at < LOOK_SECONDS:
            return self._keys
        self._looked_at = self._monotonic()
        try:
            if self._keys is not None and self._stamp == self._file_stamps() and self._clock() < self._next_end:
                return self._keys
            with self._locked():
                return self._take()
        except (OSError, SigningKeyError) as error:
            if self._keys is None:
                raise self._told(error) from error
            logger.warning("signing_key.unreadable", extra={"directory": str(self._directory)})
            return self._keys

    def rotate(self) -> SigningKeys:
        """Sign with a new key from now on; the old one is believed for another day.

        Raises:
            SigningKeyError: The keys there cannot be read, or new ones not written.
        """
        try:
            with self._locked():
                old = self._take()
                retired = [(old.verifying_key, self._clock() + OVERLAP_SECONDS), *self._retired()]
                entries = [{**dict(key.public), "until": until} for key, until in retired]
                # In this order: at no time does somebody read a set without the key that signed a moment ago.
                _write(self._directory / RETIRED_FILE, json.dumps({"keys": entries}).encode())
                _write_key(self._directory / KEY_FILE)
                return self._take()
        except OSError as error:
            raise self._told(error) from error

    def _take(self) -> SigningKeys:
        """Read everything anew, under the lock."""
        path = self._directory / KEY_FILE
        if not path.exists():
            _write_key(path)
        retired = self._retired()
        self._keys = SigningKeys(key=_read_key(path), retired=tuple(key for key, _ in retired))
        self._next_end = min((until for _, until in retired), default=math.inf)
        self._stamp = self._file_stamps()
        return self._keys

    def _retired(self) -> list[tuple[VerifyingKey, float]]:
        """The public keys that signed before, each with the time until which it is believed."""
        path = self._directory / RETIRED_FILE
        now = self._clock()
        try:
            entries = decode_json_object(path.read_bytes())["keys"]
            ends = [(entry, float(entry["until"])) for entry in entries]
            return [(read_jwk(entry), until) for entry, until in ends if until > now]
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError) as error:
            raise SigningKeyError(f"{path} is damaged: restore it, or remove it to believe no older key") from error

    def _file_stamps(self) -> object:
        """What changes when somebody else writes."""
        status = (self._directory / KEY_FILE).stat()
        retired = self._directory / RETIRED_FILE
        return status.st_mtime_ns, status.st_ino, retired.stat().st_mtime_ns if retired.exists() else None

    def _told(self, error: OSError | SigningKeyError) -> SigningKeyError:
        if isinstance(error, SigningKeyError):
            return error
        return SigningKeyError(f"{self._directory} cannot hold the gateway's key: {error.strerror}")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time. The lock is on the directory itself and goes with its process."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _write_key(path: Path) -> None:
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write(path, pem)


def _write(path: Path, content: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600 from the start
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise


def _read_key(path: Path) -> Ed25519PrivateKey:
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise SigningKeyError(f"{path} can be read by others (mode {mode:o}): run chmod 600 {path}")
    return _private_key(path.read_bytes(), str(path), mend="restore it, or remove it to have a new one")


def _private_key(pem: bytes, where: str, *, mend: str = "give an Ed25519 key in PEM") -> Ed25519PrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise SigningKeyError(f"{where} is not a private key: {mend}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SigningKeyError(f"{where} is not an Ed25519 key: {mend}")
    return key
