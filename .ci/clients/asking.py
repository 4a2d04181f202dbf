"""Servers that ask whoever called them, of both eras, and a client of both: the Python SDK 2 through the shim, before
server-everything (older era, one process for each session) and a server of the SDK's own (newer era, shared)."""

import json
import os
import sys
import tempfile
from pathlib import Path

import anyio
from mcp import Client, StdioServerParameters
from mcp.types import CreateMessageResult, ElicitResult, ListRootsResult, Root, TextContent

from checks import Promises, equal
from daemon import Daemon

HERE = Path(__file__).resolve().parent


class Person:
    """Answers what it is asked, and remembers what that was."""

    def __init__(self, action="accept"):
        self.asked = []
        self.action = action

    async def elicit(self, _context, params):
        self.asked.append("form")
        return ElicitResult(action=self.action, content={"name": "Ada"} if self.action == "accept" else None)

    async def sample(self, _context, params):
        self.asked.append("words")
        content = TextContent(type="text", text="forty-two")
        return CreateMessageResult(role="assistant", content=content, model="m", stop_reason="endTurn")

    async def roots(self, _context):
        self.asked.append("roots")
        return ListRootsResult(roots=[Root(uri="file:///home/ada", name="ada")])


def client(address, mode, person):
    shim = StdioServerParameters(
        command=os.environ["INFLIGHTD_BIN"], args=["shim"], env={"INFLIGHTD_URL": f"ws://{address}"}
    )
    able = {
        "elicitation_callback": person.elicit,
        "sampling_callback": person.sample,
        "list_roots_callback": person.roots,
    }
    return Client(shim, mode=mode, read_timeout_seconds=30, **able)


def text(result):
    assert not result.is_error, result
    return " ".join(block.text for block in result.content)


async def listed(session, name):
    """Some tools come only once their server has been told what its client can."""
    for _ in range(100):
        listing = await session.list_tools()
        if any(tool.name == name for tool in listing.tools):
            return
        await anyio.sleep(0.1)
    raise AssertionError(f"{name} is not listed")


async def older_server(address, mode):
    person = Person()
    async with client(address, mode, person) as session:
        await listed(session, "every__trigger-sampling-request")
        answer = text(await session.call_tool("every__trigger-elicitation-request", {}))
        assert "provided the requested information" in answer, answer
        answer = text(await session.call_tool("every__trigger-sampling-request", {"prompt": "hi", "maxTokens": 5}))
        assert "forty-two" in answer, answer
        answer = text(await session.call_tool("every__get-roots-list", {}))
        assert "file:///home/ada" in answer, answer
    equal(person.asked[:2], ["form", "words"])
    equal(person.asked[-1], "roots")


async def newer_server(address, mode):
    person = Person()
    async with client(address, mode, person) as session:
        await listed(session, "newer__introduce")
        answer = text(await session.call_tool("newer__introduce", {}))
        equal(answer, "Ada: forty-two at file:///home/ada")
    equal(sorted(person.asked), ["form", "roots", "words"])


async def says_no(address, mode):
    person = Person("decline")
    async with client(address, mode, person) as session:
        await listed(session, "every__trigger-elicitation-request")
        answer = text(await session.call_tool("every__trigger-elicitation-request", {}))
        assert "declined" in answer.lower(), answer
    equal(person.asked, ["form"])


def servers(node, everything):
    return {
        "every": {"command": node, "args": [everything, "stdio"], "share": "session"},
        "newer": {"command": sys.executable, "args": [str(HERE / "asking_server.py")]},
    }


async def main():
    promises = Promises()
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump({"mcpServers": servers(*sys.argv[1:])}, file)
        file.flush()
        with Daemon(os.environ["INFLIGHTD_BIN"], MCP_SERVERS_FILE=file.name) as daemon:
            for mode, version in (("auto", "2026-07-28"), ("legacy", "2025-11-25")):
                for server, check in (("an older", older_server), ("a newer", newer_server), ("no to an older", says_no)):
                    await promises.hold(f"{version}: it answers {server} server", check, daemon.address, mode, seconds=40)
            fault = daemon.stop()
            if fault:
                raise AssertionError(fault)
    promises.end()


anyio.run(main)
