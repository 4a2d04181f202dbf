"""The Python SDK 2 through the shim, to a daemon in a container that wants a token."""

import os

import anyio
from mcp import Client, StdioServerParameters


async def main():
    shim = StdioServerParameters(
        command=os.environ["INFLIGHTD_BIN"], args=["shim"], env={"INFLIGHTD_TOKEN": os.environ["INFLIGHTD_TOKEN"]}
    )
    with anyio.fail_after(60):
        async with Client(shim, read_timeout_seconds=30) as session:
            assert session.server_info.name == "inflightd", session.server_info
            names = {tool.name for tool in (await session.list_tools()).tools}
            assert {"echo", "analyze"} <= names, names
            result = await session.call_tool("echo", {"text": "from outside"})
            assert result.content[0].text == "from outside", result


anyio.run(main)
