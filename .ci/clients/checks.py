"""What the Python clients share: promises that are told one a line, and looks at the daemon's statistics."""

import os
import sys
import time
import traceback

import anyio

from daemon import waiters

TOOLS = {
    "echo",
    "chat",
    "analyze",
    "listmodels",
    "version",
    "health",
    "get_server_stats",
    "get_request",
    "list_active_requests",
}
PLAIN = os.environ["PLAIN"]
SLOW = os.environ["SLOW"]
OFFERING = os.environ.get("OFFERING")
# What JSON, line framing and UTF-8 can each get wrong.
UNICODE = "Grüße, 世界 🚀 \u2028 \"quoted\" \\ \t and\na second line, \u0000, \U0001f469\u200d\U0001f4bb"
UNKNOWN_TOOL = -32602
# What offering_server.py offers, under the daemon's names.
NOTE = "note://today"
NOTES = "note://days/{day}"
READ = {NOTE: "Water the plants – all of them.", "note://days/Monday": "On Monday: nothing."}
PROMPT = "offering__greet"


def source():
    with open(os.environ["SOURCE_FILE"], encoding="utf-8") as file:
        return file.read()


class Promises:
    """Counts what held and what did not."""

    def __init__(self):
        self.passed = 0
        self.failed = 0

    async def hold(self, promise, check, *arguments, seconds=20):
        """Runs one check within a bound; what it raises is why the promise does not hold."""
        try:
            with anyio.fail_after(seconds):
                await check(*arguments)
        except Exception as fault:
            self.failed += 1
            print(f"FAILED {promise}: {explain(fault)}", flush=True)
        else:
            self.passed += 1
            print(f"ok {promise}", flush=True)

    def end(self):
        print(f"{self.passed} passed, {self.failed} failed", flush=True)
        sys.exit(1 if self.failed else 0)


def explain(fault):
    while isinstance(fault, BaseExceptionGroup) and len(fault.exceptions) == 1:
        fault = fault.exceptions[0]
    if isinstance(fault, AssertionError) and fault.args:
        return fault
    return "".join(traceback.format_exception(fault)).strip()


def equal(seen, wanted):
    assert seen == wanted, f"saw {seen!r}, wanted {wanted!r}"


async def waiters_become(address, count, seconds=5):
    """Waits until so many callers wait at a daemon."""
    until = time.monotonic() + seconds
    while (seen := await anyio.to_thread.run_sync(waiters, address)) != count:
        assert time.monotonic() < until, f"{seen} callers wait after {seconds} s, not {count}"
        await anyio.sleep(0.02)


def text(result):
    """The text of a tool's result, in both SDK lines."""
    kinds = [part.type for part in result.content]
    equal(kinds, ["text"])
    return result.content[0].text


def listed(tools):
    names = {tool.name for tool in tools}
    assert names >= TOOLS, f"not listed: {sorted(TOOLS - names)}"
    assert len(names) == len(tools), "a name is listed twice"
    for tool in tools:
        assert tool.description, f"{tool.name} says nothing that a model could choose it by"


def rises(progress):
    assert progress, "no progress came"
    assert all(a < b for a, b in zip(progress, progress[1:])), f"progress does not rise: {progress}"


def refused(is_error, result):
    """Arguments that do not fit their schema: a result that a model can react to, naming the argument."""
    assert is_error, f"not an error: {result}"
    assert "text" in text(result), f"the argument is not named: {text(result)}"
    equal((result.meta or {}).get("inflightd/error", {}).get("code"), "VALIDATION_ERROR")


async def analyze(session):
    """A real file, asked about twice, in every SDK."""
    code = source()
    answers = [
        text(await session.call_tool("analyze", {"text": code, "question": question}))
        for question in ("What is it for?", "What may go wrong?")
    ]
    assert all("offline" in answer.lower() for answer in answers), f"it does not say who answered: {answers}"
    assert answers[0] != answers[1], "two questions got one answer"


async def cancellation(session):
    """For SDKs that send `notifications/cancelled` when the task that waits for a call is cancelled."""
    async with anyio.create_task_group() as group:
        group.start_soon(session.call_tool, "echo", {"text": "never to be heard"})
        await waiters_become(SLOW, 1)
        # Calls of one connection run side by side.
        assert "inflightd" in text(await session.call_tool("version", {}))
        group.cancel_scope.cancel()
    await waiters_become(SLOW, 0)
    assert "inflightd" in text(await session.call_tool("version", {})), "the connection did not outlive it"
