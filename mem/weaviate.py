"""A copy of memory in Weaviate: over REST alone where that is all there is, faster over gRPC where it can be reached."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar
from urllib.parse import urlsplit

import httpx

from store import Rejected

from .document import document_of, event_of_document, rfc3339, seconds_of, words_of
from .interface import MemoryBackend, MemoryEvent, MemoryUnavailable, Owner, Removal
from .settings import MemorySettings, WeaviateSettings
from .weaviate_schema import COLLECTION, PROPERTIES, bring_up
from .words import everything_in, phrases_in, score

if TYPE_CHECKING:
    from weaviate import WeaviateClient

logger = logging.getLogger(__name__)

T = TypeVar("T")

SECONDS = 5.0  # What one call may take.
CANDIDATES = 100  # Of the best by BM25; phrases are looked for in these.
AT_ONCE = 100  # Objects that one request names.
_SHOWN = " ".join(name for name in PROPERTIES if name != "content")


class WeaviateMemory(MemoryBackend):
    """One object for each event, under the event's own id, in the collection `MemoryEvent`.

    Weaviate may be down at the start or later, and may hold a collection of an older version: properties that are
    missing are added. Every question names the user in its filter, and what comes back is looked at once more.
    """

    reader = None

    def __init__(self, settings: MemorySettings) -> None:
        """Neither imports the client nor connects."""
        self._settings = settings.weaviate
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="weaviate")
        self._connecting = threading.Lock()
        self._client: WeaviateClient | None = None
        self._texts: frozenset[str] = frozenset()
        self._grpc = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.get_running_loop().run_in_executor(self._threads, self._disconnect)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def deliver(self, events: Sequence[MemoryEvent]) -> None:
        await self._run(lambda client: self._deliver(client, events))

    async def delete(self, removals: Sequence[Removal]) -> None:
        await self._run(lambda client: self._delete(client, removals))

    async def search(self, owner: Owner, words: str, *, limit: int) -> Sequence[MemoryEvent]:
        return await self._run(lambda client: self._search(client, owner, words, limit))

    # In the threads: the connection.

    async def _run(self, call: Callable[[WeaviateClient], T]) -> T:
        def run() -> T:
            with self._faults():
                return call(self._connected())

        return await asyncio.get_running_loop().run_in_executor(self._threads, run)

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        """Whatever the client raises means that Weaviate cannot be had now; the next call connects anew."""
        from weaviate.exceptions import WeaviateBaseError

        try:
            yield
        except (WeaviateBaseError, httpx.HTTPError, OSError) as error:
            logger.warning("memory.weaviate_fault", extra={"error": type(error).__name__})
            self._disconnect()
            raise MemoryUnavailable from error

    def _connected(self) -> WeaviateClient:
        with self._connecting:
            if self._client is None:
                client = connect(self._settings)
                try:
                    self._texts = bring_up(client)
                except BaseException:
                    client.close()
                    raise
                self._client = client
                self._grpc = _listens(self._settings)
            return self._client

    def _disconnect(self) -> None:
        with self._connecting:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    # In the threads: what is asked.

    def _deliver(self, client: WeaviateClient, events: Sequence[MemoryEvent]) -> None:
        objects = {event.id: self._properties(event) for event in events}
        if self._grpc:
            objects = self._insert_many(client, objects)
        ends = time.monotonic() + SECONDS
        refused = [id for id, properties in objects.items() if not _insert(client, id, properties, ends)]  # noqa: A001
        if refused:
            raise Rejected(refused, "Weaviate takes no such object")

    def _insert_many(self, client: WeaviateClient, objects: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        """Insert in one request. Returns what has to go one by one: what failed, or everything where gRPC does not work."""
        from weaviate.classes.data import DataObject
        from weaviate.exceptions import WeaviateBaseError

        wanted: list[DataObject[dict[str, Any], None]] = [
            DataObject(uuid=id, properties=properties)
            for id, properties in objects.items()  # noqa: A001
        ]
        try:
            result = client.collections.use(COLLECTION).data.insert_many(wanted)
        except WeaviateBaseError as error:
            logger.info("memory.weaviate_without_grpc", extra={"error": type(error).__name__})
            self._grpc = False
            return objects
        return {str(wanted[place].uuid): objects[str(wanted[place].uuid)] for place in result.errors}

    def _delete(self, client: WeaviateClient, removals: Sequence[Removal]) -> None:
        ends = time.monotonic() + SECONDS
        for removal in removals:
            if removal.ids is not None:
                _delete_ids(client, removal.ids, ends)
                continue
            while ids := self._ids_until(client, removal):
                _delete_ids(client, ids, ends)

    def _ids_until(self, client: WeaviateClient, removal: Removal) -> list[str]:
        where = [_is("user", removal.user), _filter("event_id", "LessThanEqual", removal.until)]
        rows = _get(client, f"limit: {AT_ONCE}, where: {_all(where)}", "user event_id _additional { id }")
        return [row["_additional"]["id"] for row in rows if row["user"] == removal.user]

    def _search(self, client: WeaviateClient, owner: Owner, words: str, limit: int) -> Sequence[MemoryEvent]:
        phrases = phrases_in(words)
        if not phrases:
            return ()
        asked = " ".join(word for phrase in phrases for word in phrase)
        where = [_is("user", owner.user), _is("content", asked)]
        if owner.task is not None:
            where.append(_is("task_id", owner.task))
        arguments = (
            f'limit: {max(limit, CANDIDATES)}, bm25: {{query: {_text(asked)}, properties: ["content"]}},'
            f" where: {_all(where)}"
        )
        found = []
        for row in _get(client, arguments, _SHOWN):
            event = _event_of(row)
            if event is None or event.user != owner.user or owner.task not in (None, event.task_id):
                continue
            if score(everything_in(event), phrases):
                found.append(event)
        return found[:limit]

    def _properties(self, event: MemoryEvent) -> dict[str, Any]:
        document = document_of(event)
        document["event_id"] = document.pop("id")
        document["timestamp"] = rfc3339(event.timestamp)
        document["content"] = words_of(event)
        return {name: str(value) if name in self._texts else value for name, value in document.items()}


def connect(settings: WeaviateSettings) -> WeaviateClient:
    """A client that is connected over REST; whether gRPC works shows when it is used.

    The client's own checks are left out: they want gRPC, and ask a package index for its newest version.
    """
    import weaviate
    from weaviate.classes.init import AdditionalConfig, Auth, Timeout
    from weaviate.connect import ConnectionParams
    from weaviate.embedded import EmbeddedOptions

    config = AdditionalConfig(timeout=Timeout(init=2, query=SECONDS, insert=SECONDS), trust_env=False)
    auth = None if settings.api_key is None else Auth.api_key(settings.api_key)
    if settings.embedded:
        options = EmbeddedOptions(persistence_data_path=str(settings.directory))
        client = weaviate.WeaviateClient(embedded_options=options, additional_config=config, skip_init_checks=True)
    else:
        url = urlsplit(settings.url)
        secure = url.scheme == "https"
        client = weaviate.WeaviateClient(
            connection_params=ConnectionParams.from_params(
                http_host=url.hostname or "",
                http_port=url.port or (443 if secure else 80),
                http_secure=secure,
                grpc_host=url.hostname or "",
                grpc_port=settings.grpc_port,
                grpc_secure=secure,
            ),
            auth_client_secret=auth,
            additional_config=config,
            skip_init_checks=True,
        )
    client.connect()
    return client


def _listens(settings: WeaviateSettings) -> bool:
    """Whether somebody is there on the port of gRPC."""
    if settings.embedded:
        return True
    try:
        socket.create_connection((urlsplit(settings.url).hostname, settings.grpc_port), timeout=1).close()
    except OSError:
        return False
    return True


def _insert(client: WeaviateClient, id: str, properties: Mapping[str, Any], ends: float) -> bool:  # noqa: A002
    """True: it is there, by now or since an earlier time. False: it will never be taken."""
    from weaviate.exceptions import UnexpectedStatusCodeError

    _check_time(ends)
    try:
        client.collections.use(COLLECTION).data.insert(dict(properties), uuid=id)
    except UnexpectedStatusCodeError as error:
        if error.status_code == 422 and client.collections.use(COLLECTION).data.exists(id):
            return True
        if error.status_code in (400, 422):
            return False
        raise
    return True


def _delete_ids(client: WeaviateClient, ids: Sequence[str], ends: float) -> None:
    data = client.collections.use(COLLECTION).data
    for id in ids:  # noqa: A001 - as the event calls it
        _check_time(ends)
        data.delete_by_id(id)


def _check_time(ends: float) -> None:
    """What is done stays done; the rest comes again."""
    if time.monotonic() > ends:
        raise MemoryUnavailable(retry_after=0)


def _event_of(row: Mapping[str, Any]) -> MemoryEvent | None:
    """None: somebody else put it there."""
    try:
        document = {name: value for name, value in row.items() if value not in (None, "")}
        document["id"] = document.pop("event_id")
        document["timestamp"] = seconds_of(document["timestamp"])
        return event_of_document(document)
    except (KeyError, TypeError, ValueError):
        return None


# GraphQL, which goes over REST.


def _get(client: WeaviateClient, arguments: str, shown: str) -> list[dict[str, Any]]:
    answer = client.graphql_raw_query(f"{{ Get {{ {COLLECTION}({arguments}) {{ {shown} }} }} }}")
    if answer.errors:
        logger.warning("memory.weaviate_refused", extra={"errors": len(answer.errors)})
        raise MemoryUnavailable
    rows: Any = answer.get.get(COLLECTION) or []
    return list(rows)


def _all(operands: Sequence[str]) -> str:
    return f"{{operator: And, operands: [{', '.join(operands)}]}}"


def _is(name: str, value: str) -> str:
    return _filter(name, "Equal", value)


def _filter(name: str, operator: str, value: str) -> str:
    return f'{{path: ["{name}"], operator: {operator}, valueText: {_text(value)}}}'


def _text(value: str) -> str:
    """A string of GraphQL (October 2021, §2.9.4): JSON's is one."""
    return json.dumps(value.encode(errors="replace").decode(), ensure_ascii=False)
