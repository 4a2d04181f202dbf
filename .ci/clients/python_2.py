"""The Python SDK 2 over stdio, through `inflightd shim`, or with DOOR=http over Streamable HTTP: in its default mode, which settles on 2026-07-28, and
in the mode of older servers, which starts with `initialize`."""

import os
import time

import anyio
from mcp import Client, MCPError, StdioServerParameters

import checks
from checks import OFFERING, PLAIN, SLOW, Promises, equal, text

# The SDK gives a server this long to end once its stdin is closed, then kills it.
KILLED_AFTER_SECONDS = 2.0


OVER_HTTP = os.environ.get("DOOR") == "http"


def client(address, mode):
    if OVER_HTTP:
        return Client(f"http://{address}/mcp", mode=mode, read_timeout_seconds=30)
    shim = StdioServerParameters(
        command=os.environ["INFLIGHTD_BIN"], args=["shim"], env={"INFLIGHTD_URL": f"ws://{address}"}
    )
    return Client(shim, mode=mode, read_timeout_seconds=30)


async def negotiated(session, version):
    equal(session.protocol_version, version)
    equal(session.server_info.name, "inflightd")


async def tools(session):
    listing = await session.list_tools()
    found = list(listing.tools)
    while listing.next_cursor is not None:
        listing = await session.list_tools(cursor=listing.next_cursor)
        found += listing.tools
    checks.listed(found)
    assert all(tool.input_schema.get("type") == "object" for tool in found), "a schema is not an object's"


async def echo(session):
    result = await session.call_tool("echo", {"text": checks.UNICODE})
    equal(text(result), checks.UNICODE)
    assert not result.is_error
    request_id = (result.meta or {}).get("inflightd/request_id", "")
    assert request_id.startswith("req_"), f"the answer does not name its request: {result.meta}"


async def many_at_once(session):
    """Fifty different calls on one connection: each gets its own answer."""

    async def one(word):
        equal(text(await session.call_tool("echo", {"text": word})), word)

    async with anyio.create_task_group() as group:
        for number in range(50):
            group.start_soon(one, f"word {number}")


async def a_megabyte(session):
    long = "0123456789abcdef" * 65536
    equal(text(await session.call_tool("echo", {"text": long})), long)


async def unknown_tool(session):
    try:
        result = await session.call_tool("no_such_tool", {})
    except MCPError as error:
        equal(error.code, checks.UNKNOWN_TOOL)
        assert "no_such_tool" in error.message, f"the tool is not named: {error.message}"
    else:
        raise AssertionError(f"it was answered: {result}")


async def invalid_arguments(session):
    result = await session.call_tool("analyze", {"text": 7})
    checks.refused(result.is_error, result)


async def progress(session):
    seen = []

    async def saw(progress, _total, _message):
        seen.append(progress)

    result = await session.call_tool("analyze", {"text": "a slow one"}, progress_callback=saw)
    assert "offline" in text(result).lower()
    checks.rises(seen)


async def resources(session):
    equal([str(each.uri) for each in (await session.list_resources()).resources], [checks.NOTE])
    templates = (await session.list_resource_templates()).resource_templates
    equal([each.uri_template for each in templates], [checks.NOTES])
    for uri, wanted in checks.READ.items():
        [contents] = (await session.read_resource(uri)).contents
        equal((str(contents.uri), contents.text), (uri, wanted))


async def prompts(session):
    equal([prompt.name for prompt in (await session.list_prompts()).prompts], [checks.PROMPT])
    got = await session.get_prompt(checks.PROMPT, {"name": "Ada"})
    equal([message.content.text for message in got.messages], ["Greet Ada."])


async def mode(promises, name, version):
    async with client(PLAIN, name) as session:
        await promises.hold(f"{version}: negotiated in mode {name}", negotiated, session, version)
        await promises.hold(f"{version}: every tool is listed", tools, session)
        await promises.hold(f"{version}: analyze reads a real source file", checks.analyze, session)
        await promises.hold(f"{version}: echo keeps every character", echo, session)
        await promises.hold(f"{version}: fifty calls on one connection get fifty answers", many_at_once, session)
        await promises.hold(f"{version}: a megabyte comes back whole", a_megabyte, session)
        await promises.hold(f"{version}: an unknown tool is an error", unknown_tool, session)
        await promises.hold(f"{version}: invalid arguments are a result that names them", invalid_arguments, session)
        closing = time.monotonic()
    if not OVER_HTTP:
        await promises.hold(f"{version}: the shim ends when its stdin ends", ended_by_itself, time.monotonic() - closing)
    async with client(OFFERING, name) as session:
        await promises.hold(f"{version}: resources are listed and read", resources, session)
        await promises.hold(f"{version}: prompts are listed and got", prompts, session)
    async with client(SLOW, name) as session:
        await promises.hold(f"{version}: a cancelled call stops, others go on", checks.cancellation, session)
        await promises.hold(f"{version}: a slow call tells its progress", progress, session)


async def ended_by_itself(seconds):
    assert seconds < KILLED_AFTER_SECONDS, f"it took {seconds:.1f} s: it was killed"


async def main():
    promises = Promises()
    for name, version in (("auto", "2026-07-28"), ("legacy", "2025-11-25")):
        await promises.hold(f"{version}: a session from start to end", mode, promises, name, version, seconds=80)
    promises.end()


anyio.run(main)
