"""A workflow's history as steps that people read: activities with their tries and times, timers, signals, the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from temporalio.client import WorkflowExecutionDescription, WorkflowHandle

MOST_EVENTS = 5_000
MOST_MESSAGE_CHARACTERS = 500

_PREFIX = "EVENT_TYPE_"
_WORKFLOW = "WORKFLOW_EXECUTION_"
_ACTIVITY = "ACTIVITY_TASK_"


async def readable_steps(
    handle: WorkflowHandle[Any, Any], described: WorkflowExecutionDescription
) -> list[Mapping[str, Any]]:
    """Oldest first, of the first `MOST_EVENTS` events. Arguments, results and memo are not told: they may be long."""
    steps = _Steps()
    count = 0
    async for event in handle.fetch_history_events():
        steps.add(event)
        count += 1
        if count == MOST_EVENTS:
            break
    for pending in described.raw_description.pending_activities:
        steps.pending(pending)
    return steps.told


def cause_of(error: BaseException) -> dict[str, str]:
    """The innermost failure, where the reason is."""
    inner = error
    while (cause := getattr(inner, "cause", None)) is not None:
        inner = cause
    kind = getattr(inner, "type", None) or type(inner).__name__
    return {"type": str(kind)[:MOST_MESSAGE_CHARACTERS], "message": str(inner)[:MOST_MESSAGE_CHARACTERS]}


class _Steps:
    """Puts together what belongs to one activity, which has an event for each thing that happens to it."""

    def __init__(self) -> None:
        self.told: list[Mapping[str, Any]] = []
        self._activities: dict[int, dict[str, Any]] = {}
        self._by_id: dict[str, dict[str, Any]] = {}

    def add(self, event: Any) -> None:
        from temporalio.api.enums.v1 import EventType  # noqa: PLC0415

        name = EventType.Name(event.event_type).removeprefix(_PREFIX)
        at = event.event_time.ToDatetime(tzinfo=UTC).timestamp()
        if name.startswith(_ACTIVITY):
            self._activity(name.removeprefix(_ACTIVITY).lower(), event, at)
        elif name.startswith(_WORKFLOW):
            self._workflow(name.removeprefix(_WORKFLOW).lower(), event, at)
        elif name in ("TIMER_STARTED", "TIMER_FIRED", "TIMER_CANCELED"):
            self.told.append({"step": name.lower().replace("_", " "), "at": at})

    def pending(self, pending: Any) -> None:
        """What is under way: the history tells of an activity's tries only when it is over."""
        activity = self._by_id.get(pending.activity_id)
        if activity is not None:
            activity["attempts"] = pending.attempt
            if pending.HasField("last_failure"):
                activity["last_failure"] = pending.last_failure.message[:MOST_MESSAGE_CHARACTERS]

    def _workflow(self, happened: str, event: Any, at: float) -> None:
        step: dict[str, Any] = {"step": f"workflow {happened.replace('_', ' ')}", "at": at}
        if happened == "signaled":
            step["name"] = event.workflow_execution_signaled_event_attributes.signal_name
        if happened == "failed":
            step["failure"] = _innermost(event.workflow_execution_failed_event_attributes.failure)
        self.told.append(step)

    def _activity(self, happened: str, event: Any, at: float) -> None:
        if happened == "scheduled":
            told = event.activity_task_scheduled_event_attributes
            step = {"step": "activity", "name": told.activity_type.name, "state": "scheduled", "at": at, "attempts": 0}
            self._activities[event.event_id] = self._by_id[told.activity_id] = step
            self.told.append(step)
            return
        told = getattr(event, f"activity_task_{happened}_event_attributes")
        activity = self._activities.get(told.scheduled_event_id)
        if activity is not None:
            activity["state"] = happened.replace("_", " ")
            _ACTIVITY_NOTES.get(happened, _note_end)(activity, told, at)


def _note_start(activity: dict[str, Any], told: Any, at: float) -> None:
    activity |= {"started": at, "attempts": told.attempt}
    if told.HasField("last_failure"):
        activity["last_failure"] = told.last_failure.message[:MOST_MESSAGE_CHARACTERS]


def _note_end(activity: dict[str, Any], told: Any, at: float) -> None:
    activity["ended"] = at


def _note_failure(activity: dict[str, Any], told: Any, at: float) -> None:
    activity |= {"ended": at, "failure": _innermost(told.failure)}


def _note_request(activity: dict[str, Any], told: Any, at: float) -> None:
    activity["cancel_requested"] = at


_ACTIVITY_NOTES: Mapping[str, Callable[[dict[str, Any], Any, float], None]] = {
    "started": _note_start,
    "failed": _note_failure,
    "timed_out": _note_failure,
    "cancel_requested": _note_request,
}


def _innermost(failure: Any) -> str:
    while failure.HasField("cause"):
        failure = failure.cause
    return str(failure.message[:MOST_MESSAGE_CHARACTERS])
