"""The gateway's own endpoints are made when somebody first asks for one, and nothing else waits for them."""

import asyncio
import threading

import httpx
import pytest
from fastapi import FastAPI
from starlette.responses import JSONResponse

from attach.late_endpoints import LateEndpoints


async def healthz() -> JSONResponse:
    return JSONResponse({"status": "ok"})


class Making:
    """Makes an application that answers at `/usage`, once `may_end` is set."""

    def __init__(self, faults: int = 0) -> None:
        self.times = 0
        self.begun, self.may_end = threading.Event(), threading.Event()
        self._faults = faults

    def __call__(self) -> FastAPI:
        self.times += 1
        self.begun.set()
        assert self.may_end.wait(20)
        if self.times <= self._faults:
            raise OSError("no module today")
        app = FastAPI()
        app.add_api_route("/usage", healthz)
        app.add_api_route("/healthz", healthz, methods=["DELETE"])
        return app


def client_of(making: Making) -> httpx.AsyncClient:
    endpoints = LateEndpoints(making, at_once={"/healthz": healthz})
    return httpx.AsyncClient(transport=httpx.ASGITransport(endpoints), base_url="http://gateway.test")


async def test_health_is_told_before_the_endpoints_are_there() -> None:
    making = Making()
    async with client_of(making) as client:
        asked = asyncio.create_task(client.get("/usage"))
        assert await asyncio.to_thread(making.begun.wait, 20)
        assert [(await client.request(method, "/healthz")).status_code for method in ("GET", "HEAD")] == [200, 200]
        assert not asked.done()
        making.may_end.set()
        assert (await asked).json() == {"status": "ok"}


async def test_they_are_made_once_for_all_that_ask_at_the_same_time() -> None:
    making = Making()
    making.may_end.set()
    async with client_of(making) as client:
        answers = await asyncio.gather(*(client.get("/usage") for _ in range(5)))
    assert [answer.status_code for answer in answers] == [200] * 5
    assert making.times == 1


async def test_what_failed_is_tried_again_for_the_next_who_asks() -> None:
    making = Making(faults=1)
    making.may_end.set()
    async with client_of(making) as client:
        with pytest.raises(OSError, match="no module today"):
            await client.get("/usage")
        assert (await client.get("/usage")).status_code == 200


async def test_another_method_on_healths_path_is_not_health() -> None:
    making = Making()
    making.may_end.set()
    async with client_of(making) as client:
        assert (await client.delete("/healthz")).status_code == 200
        assert (await client.post("/healthz")).status_code == 405
    assert making.times == 1
