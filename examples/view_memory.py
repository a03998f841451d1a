"""What the gateway remembers of you: the last events, a search, or everything.

    export ATTACH_TOKEN=$(attach-gateway token)
    python examples/view_memory.py                      # the last twenty
    python examples/view_memory.py --search "capital of France"
    python examples/view_memory.py --export > memory.ndjson
    python examples/view_memory.py --forget             # all of it, for good

It needs httpx, which the gateway brings. ATTACH_URL names the gateway (default http://localhost:8080).
"""

import argparse
import os
import sys
from typing import Any

import httpx

WIDTH = 100


def main() -> int:
    options = _options()
    with httpx.Client(
        base_url=os.environ.get("ATTACH_URL", "http://localhost:8080"),
        headers={"Authorization": f"Bearer {os.environ['ATTACH_TOKEN']}"},
        timeout=60,
    ) as client:
        if options.forget:
            print(f"Forgotten: {_json(client.delete('/mem'))['deleted']} events.")
        elif options.export:
            with client.stream("GET", "/mem/export") as answer:
                for line in answer.iter_lines():
                    print(line)
        elif options.search:
            for event in _json(client.get("/mem/search", params={"q": options.search}))["events"]:
                print(shown(event))
        else:
            for event in reversed(_json(client.get("/mem/events", params={"limit": options.last}))["events"]):
                print(shown(event))
    return 0


def shown(event: dict[str, Any]) -> str:
    """Two or three lines of text for an event."""
    asked = event["messages"][-1].get("content") if event["messages"] else event["text"]
    tokens = f"{event['tokens_in'] or 0}+{event['tokens_out'] or 0} tokens"
    facts = (event["timestamp"], event["event"], event["model"], event["state"], tokens, event["id"])
    lines = ["  ".join(str(fact) for fact in facts if fact), f"  > {_line(asked)}"]
    if event["answer"]:
        lines.append(f"  < {_line(event['answer'])}")
    return "\n".join(lines)


def _line(text: object) -> str:
    """A text in one line that fits a terminal, with nothing in it that a terminal would obey."""
    printable = "".join(character if character.isprintable() else " " for character in str(text))
    return printable if len(printable) <= WIDTH else f"{printable[:WIDTH]}..."


def _json(answer: httpx.Response) -> Any:
    if answer.is_error:
        sys.exit(f"{answer.status_code}: {answer.json().get('detail')}")
    return answer.json()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="What the gateway remembers of you.")
    parser.add_argument("--last", type=int, default=20, metavar="N", help="how many events to show (default 20)")
    parser.add_argument("--search", metavar="WORDS", help="show what has all these words")
    parser.add_argument("--export", action="store_true", help="print everything, an event a line")
    parser.add_argument("--forget", action="store_true", help="have everything forgotten")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
