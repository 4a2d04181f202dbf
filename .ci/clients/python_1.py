"""The Python SDK 1, straight to the daemon: its WebSocket client, or with DOOR=http its Streamable HTTP one."""

import os

from contextlib import asynccontextmanager
from datetime import timedelta

import anyio
from mcp import ClientSession, McpError, types
from mcp.client.streamable_http import streamablehttp_client
from mcp.client.websocket import websocket_client
from pydantic import AnyUrl

import checks
from checks import OFFERING, PLAIN, SLOW, Promises, equal, text


@asynccontextmanager
async def client(address):
    if os.environ.get("DOOR") == "http":
        door = streamablehttp_client(f"http://{address}/mcp")
    else:
        door = websocket_client(f"ws://{address}/")
    async with door as (read, write, *_):
        async with ClientSession(read, write, read_timeout_seconds=timedelta(seconds=30)) as session:
            hello = await session.initialize()
            equal(hello.serverInfo.name, "inflightd")
            equal(hello.protocolVersion, types.LATEST_PROTOCOL_VERSION)
            yield session


async def tools(session):
    listing = await session.list_tools()
    found = list(listing.tools)
    while listing.nextCursor is not None:
        listing = await session.list_tools(params=types.PaginatedRequestParams(cursor=listing.nextCursor))
        found += listing.tools
    checks.listed(found)
    assert all(tool.inputSchema.get("type") == "object" for tool in found), "a schema is not an object's"


async def echo(session):
    result = await session.call_tool("echo", {"text": checks.UNICODE})
    equal(text(result), checks.UNICODE)
    assert not result.isError


async def ping(session):
    await session.send_ping()


async def unknown_tool(session):
    try:
        result = await session.call_tool("no_such_tool", {})
    except McpError as error:
        equal(error.error.code, checks.UNKNOWN_TOOL)
        assert "no_such_tool" in error.error.message, f"the tool is not named: {error.error.message}"
    else:
        raise AssertionError(f"it was answered: {result}")


async def invalid_arguments(session):
    result = await session.call_tool("analyze", {"text": 7})
    checks.refused(result.isError, result)


async def cancellation(session):
    """This SDK sends no `notifications/cancelled` by itself, so its user does."""
    # Ids count up; the SDK shows the next one nowhere else.
    request_id = session._request_id
    async with anyio.create_task_group() as group:
        group.start_soon(session.call_tool, "echo", {"text": "never to be heard"})
        await checks.waiters_become(SLOW, 1)
        await session.send_ping()
        await session.send_notification(
            types.ClientNotification(
                types.CancelledNotification(
                    params=types.CancelledNotificationParams(requestId=request_id, reason="no longer wanted")
                )
            )
        )
        await checks.waiters_become(SLOW, 0)
        group.cancel_scope.cancel()
    await session.send_ping()


async def progress(session):
    seen = []

    async def saw(progress, _total, _message):
        seen.append(progress)

    result = await session.call_tool("analyze", {"text": "a slow one"}, progress_callback=saw)
    assert "offline" in text(result).lower()
    checks.rises(seen)


async def resources(session):
    equal([str(each.uri) for each in (await session.list_resources()).resources], [checks.NOTE])
    templates = (await session.list_resource_templates()).resourceTemplates
    equal([each.uriTemplate for each in templates], [checks.NOTES])
    for uri, wanted in checks.READ.items():
        [contents] = (await session.read_resource(AnyUrl(uri))).contents
        equal((str(contents.uri), contents.text), (uri, wanted))


async def prompts(session):
    equal([prompt.name for prompt in (await session.list_prompts()).prompts], [checks.PROMPT])
    got = await session.get_prompt(checks.PROMPT, {"name": "Ada"})
    equal([message.content.text for message in got.messages], ["Greet Ada."])


async def leaving():
    """A caller whose connection goes is no longer waited on."""
    async with client(SLOW) as session, anyio.create_task_group() as group:
        group.start_soon(session.call_tool, "echo", {"text": "nobody stays to hear it"})
        await checks.waiters_become(SLOW, 1)
        group.cancel_scope.cancel()
    await checks.waiters_become(SLOW, 0)


async def session_checks(promises):
    async with client(PLAIN) as session:
        await promises.hold("every tool is listed", tools, session)
        await promises.hold("a ping is answered", ping, session)
        await promises.hold("analyze reads a real source file", checks.analyze, session)
        await promises.hold("echo keeps every character", echo, session)
        await promises.hold("an unknown tool is an error", unknown_tool, session)
        await promises.hold("invalid arguments are a result that names them", invalid_arguments, session)
    async with client(OFFERING) as session:
        await promises.hold("resources are listed and read", resources, session)
        await promises.hold("prompts are listed and got", prompts, session)
    async with client(SLOW) as session:
        await promises.hold("a cancelled call stops, pings go on", cancellation, session)
        await promises.hold("a slow call tells its progress", progress, session)
    await promises.hold("a caller that left waits no more", leaving)


async def main():
    promises = Promises()
    await promises.hold("a session from start to end", session_checks, promises, seconds=120)
    promises.end()


anyio.run(main)
