"""Memory in Weaviate as its synchronous client has it. Whoever imports this loads that client, which takes a second."""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx
from weaviate import WeaviateClient
from weaviate.classes.data import DataObject
from weaviate.classes.init import AdditionalConfig, Auth, Timeout
from weaviate.connect import ConnectionParams
from weaviate.embedded import EmbeddedOptions
from weaviate.exceptions import UnexpectedStatusCodeError, WeaviateBaseError

from store import Rejected

from .document import event_of_document, seconds_of
from .interface import MemoryEvent, MemoryUnavailable, Owner, Removal
from .settings import WeaviateSettings
from .weaviate_schema import COLLECTION, PROPERTIES, bring_up
from .words import everything_in, phrases_in, score

logger = logging.getLogger(__name__)

SECONDS = 5.0  # What one call may take.
CANDIDATES = 100  # Of the best by BM25; phrases are looked for in these.
AT_ONCE = 100  # Objects that one request names.
_SHOWN = " ".join(name for name in PROPERTIES if name != "content")

Properties = dict[str, Any]

FAULTS = (WeaviateBaseError, httpx.HTTPError, OSError)


class WeaviateCopy:
    """The collection `MemoryEvent` over one connection. Raises what `FAULTS` names, and `MemoryUnavailable`."""

    def __init__(self, settings: WeaviateSettings, properties: Callable[[MemoryEvent], Properties]) -> None:
        """Connect, and make the collection or bring an older one up to what is needed."""
        self._properties = properties
        self._client = connect(settings)
        try:
            self._check_ready()
            self._texts = bring_up(self._client)
        except BaseException:
            self._client.close()
            raise
        self._settings = settings

    def close(self) -> None:
        self._client.close()

    def deliver(self, events: Sequence[MemoryEvent]) -> None:
        """Insert what is not there. Raises `store.Rejected` for what will never be taken."""
        self._check_ready()
        objects = {event.id: self._fitting(self._properties(event)) for event in events}
        if _listens(self._settings):  # Asked each time: the client tries for half a minute where nobody does.
            objects = self._insert_many(objects)
        ends = time.monotonic() + SECONDS
        refused = [name for name, properties in objects.items() if not self._insert(name, properties, ends)]
        if refused:
            raise Rejected(refused, "Weaviate takes no such object")

    def delete(self, removals: Sequence[Removal]) -> None:
        self._check_ready()
        ends = time.monotonic() + SECONDS
        for removal in removals:
            if removal.ids is not None:
                self._delete_ids(removal.ids, ends)
                continue
            while ids := self._ids_until(removal):
                self._delete_ids(ids, ends)

    def search(self, owner: Owner, words: str, limit: int) -> Sequence[MemoryEvent]:
        phrases = phrases_in(words)
        if not phrases:
            return ()
        asked = " ".join(word for phrase in phrases for word in phrase)
        where = [_is("user", owner.user), _is("content", asked)]
        if owner.task is not None:
            where.append(_is("task_id", owner.task))
        ranked = f'limit: {max(limit, CANDIDATES)}, bm25: {{query: {_text(asked)}, properties: ["content"]}}'
        found = []
        for row in self._get(f"{ranked}, where: {_all(where)}", _SHOWN):
            event = _event_of(row)
            if event is None or event.user != owner.user or owner.task not in (None, event.task_id):
                continue
            if score(everything_in(event), phrases):
                found.append(event)
        return found[:limit]

    def _check_ready(self) -> None:
        """A server that is starting takes objects and collections, and then loads what it had over them."""
        if not self._client.is_ready():
            raise MemoryUnavailable

    def _fitting(self, properties: Properties) -> Properties:
        return {name: str(value) if name in self._texts else value for name, value in properties.items()}

    def _insert_many(self, objects: dict[str, Properties]) -> dict[str, Properties]:
        """Insert in one request. Returns what has to go one by one: all of it where gRPC does not work."""
        wanted = [
            DataObject[Properties, None](uuid=name, properties=properties) for name, properties in objects.items()
        ]
        try:
            result = self._client.collections.use(COLLECTION).data.insert_many(wanted)
        except WeaviateBaseError as error:
            logger.info("memory.weaviate_without_grpc", extra={"error": type(error).__name__})
            return objects
        names = list(objects)
        return {names[place]: objects[names[place]] for place in result.errors}

    def _insert(self, name: str, properties: Properties, ends: float) -> bool:
        """True: it is there, by now or since an earlier time. False: it will never be taken."""
        _check_time(ends)
        data = self._client.collections.use(COLLECTION).data
        try:
            data.insert(properties, uuid=name)
        except UnexpectedStatusCodeError as error:
            if error.status_code == 422 and data.exists(name):
                return True
            if error.status_code in (400, 422):
                return False
            raise
        return True

    def _delete_ids(self, ids: Sequence[str], ends: float) -> None:
        data = self._client.collections.use(COLLECTION).data
        for name in ids:
            _check_time(ends)
            data.delete_by_id(name)

    def _ids_until(self, removal: Removal) -> list[str]:
        where = [_is("user", removal.user), _filter("event_id", "LessThanEqual", removal.until)]
        rows = self._get(f"limit: {AT_ONCE}, where: {_all(where)}", "user event_id _additional { id }")
        return [row["_additional"]["id"] for row in rows if row["user"] == removal.user]

    def _get(self, arguments: str, shown: str) -> list[dict[str, Any]]:
        """A question of GraphQL, which goes over REST."""
        answer = self._client.graphql_raw_query(f"{{ Get {{ {COLLECTION}({arguments}) {{ {shown} }} }} }}")
        if answer.errors:
            logger.warning("memory.weaviate_refused", extra={"errors": len(answer.errors)})
            raise MemoryUnavailable
        rows: Any = answer.get.get(COLLECTION) or []
        return list(rows)


def connect(settings: WeaviateSettings) -> WeaviateClient:
    """A client that is connected over REST; whether gRPC works shows when it is used.

    The client's own checks are left out: they want gRPC, and ask a package index for its newest version.
    """
    config = AdditionalConfig(timeout=Timeout(init=2, query=SECONDS, insert=SECONDS), trust_env=False)
    auth = None if settings.api_key is None else Auth.api_key(settings.api_key)
    if settings.embedded:
        options = EmbeddedOptions(persistence_data_path=str(settings.directory))
        client = WeaviateClient(embedded_options=options, additional_config=config, skip_init_checks=True)
    else:
        url = urlsplit(settings.url)
        secure = url.scheme == "https"
        port = url.port or (443 if secure else 80)
        client = WeaviateClient(
            connection_params=ConnectionParams.from_params(
                http_host=url.hostname or "",
                http_port=port,
                http_secure=secure,
                grpc_host=url.hostname or "",
                grpc_port=settings.grpc_port if settings.grpc_port != port else port ^ 1,  # The client wants two.
                grpc_secure=secure,
            ),
            auth_client_secret=auth,
            additional_config=config,
            skip_init_checks=True,
        )
    try:
        client.connect()
    except BaseException:
        client.close()
        raise
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


def _all(operands: Sequence[str]) -> str:
    return f"{{operator: And, operands: [{', '.join(operands)}]}}"


def _is(name: str, value: str) -> str:
    return _filter(name, "Equal", value)


def _filter(name: str, operator: str, value: str) -> str:
    return f'{{path: ["{name}"], operator: {operator}, valueText: {_text(value)}}}'


def _text(value: str) -> str:
    """A string of GraphQL (October 2021, §2.9.4): JSON's is one."""
    return json.dumps(value.encode(errors="replace").decode(), ensure_ascii=False)
