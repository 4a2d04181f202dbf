"""fastmcp over Streamable HTTP, and over stdio through `inflightd shim`: in its default mode, which settles on
2026-07-28, and in the mode of older servers, which starts with `initialize`."""

import os

import anyio
from fastmcp import Client
from fastmcp.client.transports import StdioTransport
from fastmcp.exceptions import ToolError
from mcp import MCPError

import checks
from checks import OFFERING, PLAIN, SLOW, Promises, equal, text


def client(address, door, mode, **options):
    if door == "http":
        return Client(f"http://{address}/mcp", mode=mode, timeout=30, **options)
    shim = StdioTransport(
        os.environ["INFLIGHTD_BIN"], ["shim"], env={"INFLIGHTD_URL": f"ws://{address}"}, keep_alive=False
    )
    return Client(shim, mode=mode, timeout=30, **options)


async def negotiated(session, version):
    equal(session.protocol_version, version)
    equal(session.server_info.name, "inflightd")
    assert session.server_capabilities.tools, "it offers no tools"


async def tools(session):
    checks.listed(await session.list_tools())


async def echo(session):
    result = await session.call_tool("echo", {"text": checks.UNICODE})
    equal(text(result), checks.UNICODE)
    assert result.meta["inflightd/request_id"].startswith("req_"), f"the answer does not name its request: {result.meta}"


async def unknown_tool(session):
    try:
        result = await session.call_tool("no_such_tool", {})
    except MCPError as error:
        equal(error.code, checks.UNKNOWN_TOOL)
        assert "no_such_tool" in error.message, f"the tool is not named: {error.message}"
    else:
        raise AssertionError(f"it was answered: {result}")


async def invalid_arguments(session):
    result = await session.call_tool("analyze", {"text": 7}, raise_on_error=False)
    checks.refused(result.is_error, result)
    try:
        await session.call_tool("analyze", {"text": 7})
    except ToolError as error:
        assert "text" in str(error), f"the argument is not named: {error}"
    else:
        raise AssertionError("no error was raised")


async def progress(session):
    seen = []

    async def saw(progress, _total, _message):
        seen.append(progress)

    result = await session.call_tool("analyze", {"text": "a slow one"}, progress_handler=saw)
    assert "offline" in text(result).lower()
    checks.rises(seen)


async def resources(session):
    equal([str(each.uri) for each in await session.list_resources()], [checks.NOTE])
    equal([each.uri_template for each in await session.list_resource_templates()], [checks.NOTES])
    for uri, wanted in checks.READ.items():
        [contents] = await session.read_resource(uri)
        equal((str(contents.uri), contents.text), (uri, wanted))


async def prompts(session):
    equal([prompt.name for prompt in await session.list_prompts()], [checks.PROMPT])
    got = await session.get_prompt(checks.PROMPT, {"name": "Ada"})
    equal([message.content.text for message in got.messages], ["Greet Ada."])


async def session_checks(promises, door, mode, version):
    told = f"{door}, {version}:"
    async with client(PLAIN, door, mode) as session:
        await promises.hold(f"{told} negotiated in mode {mode}", negotiated, session, version)
        await promises.hold(f"{told} every tool is listed", tools, session)
        await promises.hold(f"{told} analyze reads a real source file", checks.analyze, session)
        await promises.hold(f"{told} echo keeps every character", echo, session)
        await promises.hold(f"{told} an unknown tool is an error", unknown_tool, session)
        await promises.hold(f"{told} invalid arguments are a result that names them", invalid_arguments, session)
    async with client(OFFERING, door, mode) as session:
        await promises.hold(f"{told} resources are listed and read", resources, session)
        await promises.hold(f"{told} prompts are listed and got", prompts, session)
    async with client(SLOW, door, mode) as session:
        await promises.hold(f"{told} a cancelled call stops, others go on", checks.cancellation, session)
        await promises.hold(f"{told} a slow call tells its progress", progress, session)


async def main():
    promises = Promises()
    for door in ("http", "stdio"):
        for mode, version in (("auto", "2026-07-28"), ("legacy", "2025-11-25")):
            told = f"{door}, {version}: a session from start to end"
            await promises.hold(told, session_checks, promises, door, mode, version, seconds=80)
    promises.end()


anyio.run(main)
