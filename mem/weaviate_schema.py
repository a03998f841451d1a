"""The collection in Weaviate: what its properties are, and how an older one is brought up to it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from weaviate import WeaviateClient
from weaviate.classes.config import Configure, DataType, Property, Reconfigure, StopwordsPreset, Tokenization
from weaviate.exceptions import UnexpectedStatusCodeError

logger = logging.getLogger(__name__)

COLLECTION = "MemoryEvent"

# What a property is: an exact text, words to be found, kept only, or a type of Weaviate's.
PROPERTIES: Mapping[str, str] = {
    "event_id": "exact",
    "timestamp": "date",
    "event": "exact",
    "user": "exact",
    "session_id": "exact",
    "request_id": "exact",
    "task_id": "exact",
    "run_id": "exact",
    "agent": "exact",
    "project": "exact",
    "model": "exact",
    "path": "exact",
    "state": "exact",
    "messages": "kept",
    "answer": "kept",
    "reasoning": "kept",
    "tool_calls": "kept",
    "text": "kept",
    "fields": "kept",
    "tokens_in": "int",
    "tokens_out": "int",
    "latency": "number",
    "content": "words",
}
_NOT_TEXT = frozenset({"date", "int", "number"})


def bring_up(client: WeaviateClient) -> frozenset[str]:
    """Make the collection, or add to it what it lacks.

    Returns:
        The properties that an older version made texts and we would not: they are given texts.
    """
    if not client.collections.exists(COLLECTION):
        try:
            client.collections.create(
                COLLECTION,
                description="What was asked and answered through the gateway",
                properties=[_property(name) for name in PROPERTIES],
                vector_config=Configure.Vectors.self_provided(),
                inverted_index_config=Configure.inverted_index(stopwords_preset=StopwordsPreset.NONE),
            )
        except UnexpectedStatusCodeError:
            if not client.collections.exists(COLLECTION):  # Another gateway may have been faster.
                raise
        else:
            return frozenset()
    return _migrate(client)


def _migrate(client: WeaviateClient) -> frozenset[str]:
    collection = client.collections.use(COLLECTION)
    config: Any = collection.config.get()
    there = {one.name: str(one.data_type.value) for one in config.properties}
    for name in PROPERTIES:
        if name not in there:
            collection.config.add_property(_property(name))
            logger.info("memory.weaviate_property_added", extra={"property": name})
    if config.inverted_index_config.stopwords.preset != StopwordsPreset.NONE:
        index = Reconfigure.inverted_index(stopwords_preset=StopwordsPreset.NONE)
        collection.config.update(inverted_index_config=index)
    return frozenset(name for name, kind in PROPERTIES.items() if kind in _NOT_TEXT and there.get(name) == "text")


def _property(name: str) -> Any:
    kind = PROPERTIES[name]
    if kind in _NOT_TEXT:
        return Property(name=name, data_type=DataType(kind))
    return Property(
        name=name,
        data_type=DataType.TEXT,
        index_filterable=kind != "kept",
        index_searchable=kind == "words",
        tokenization=Tokenization.WORD if kind == "words" else Tokenization.FIELD,
    )
