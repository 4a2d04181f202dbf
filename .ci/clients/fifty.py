"""Fifty sessions of the Python SDK 1 ask the same at once: one request reaches the provider, all get its answer.

The provider is held until the daemon's statistics show all fifty waiting."""

import os
from contextlib import AsyncExitStack
from datetime import timedelta

import anyio
from mcp import ClientSession
from mcp.client.websocket import websocket_client

import checks
from checks import Promises, equal, text
from daemon import Daemon
from provider import Provider

SESSIONS = 50
KEY = "test-key-of-the-fake-provider"


class Call:
    """One session's question and what it heard."""

    def __init__(self, address):
        self.address = address
        self.answer = None

    async def run(self, prompt, ready, together):
        async with AsyncExitStack() as stack:
            read, write = await stack.enter_async_context(websocket_client(f"ws://{self.address}/"))
            session = ClientSession(read, write, read_timeout_seconds=timedelta(seconds=30))
            await stack.enter_async_context(session)
            await session.initialize()
            ready.release()
            await together.wait()
            self.answer = await session.call_tool("chat", {"prompt": prompt})


async def ask_together(daemon, provider, prompt):
    calls = [Call(daemon.address) for _ in range(SESSIONS)]
    ready, together = anyio.Semaphore(0), anyio.Event()
    async with anyio.create_task_group() as group:
        for call in calls:
            group.start_soon(call.run, prompt, ready, together)
        for _ in calls:
            await ready.acquire()
        together.set()
        await checks.waiters_become(daemon.address, SESSIONS, seconds=20)
        provider.release()
    return [call.answer for call in calls]


async def one_request(daemon, provider):
    answers = await ask_together(daemon, provider, "Why do fifty ask the same?")
    equal(provider.requests, 1)
    equal({text(answer) for answer in answers}, {provider.answer(1)})
    assert not any(answer.isError for answer in answers)
    roles = sorted(answer.meta["inflightd/role"] for answer in answers)
    equal(roles, ["follower"] * (SESSIONS - 1) + ["leader"])


async def asked_afresh(daemon, provider):
    """What was in flight is over: the same question again is a request of its own."""
    provider.hold()
    answers = await ask_together(daemon, provider, "Why do fifty ask the same?")
    equal(provider.requests, 2)
    equal({text(answer) for answer in answers}, {provider.answer(2)})


async def key_is_sent(provider):
    equal(set(provider.keys), {f"Bearer {KEY}"})


async def key_is_not_logged(daemon):
    assert KEY not in daemon.log_end(lines=100_000), "the provider's key is in the daemon's log"


async def ends(daemon):
    fault = daemon.stop()
    assert fault is None, fault


async def main():
    promises = Promises()
    with Provider() as provider:
        settings = {"KIMI_API_KEY": KEY, "KIMI_API_URL": provider.url, "LOG_LEVEL": "debug"}
        with Daemon(os.environ["INFLIGHTD_BIN"], **settings) as daemon:
            await promises.hold("fifty equal calls at once are one request", one_request, daemon, provider, seconds=60)
            await promises.hold("afterwards they are one more", asked_afresh, daemon, provider, seconds=60)
            await promises.hold("the provider is asked with its key", key_is_sent, provider)
            await promises.hold("its key is in no log line", key_is_not_logged, daemon)
            await promises.hold("the daemon ends with 0 on TERM", ends, daemon, seconds=60)
            if promises.failed:
                print(f"the end of the daemon's log:\n{daemon.log_end()}")
    promises.end()


anyio.run(main)
