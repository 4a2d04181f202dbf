"""A server of the Python SDK 2 with one tool that asks for a form, a model's words and roots: by results in the newer
era, by requests in the older one."""

from typing import Annotated

from mcp.server.mcpserver import Elicit, ListRoots, MCPServer, Resolve, Sample
from mcp.types import CreateMessageResult, ListRootsResult, SamplingMessage, TextContent
from pydantic import BaseModel

server = MCPServer("asking")


class Name(BaseModel):
    name: str


def ask_name() -> Elicit[Name]:
    return Elicit("What is your name?", Name)


def ask_model(name: Annotated[Name, Resolve(ask_name)]) -> Sample:
    text = TextContent(type="text", text=f"Greet {name.name}")
    return Sample([SamplingMessage(role="user", content=text)], max_tokens=20)


def ask_roots() -> ListRoots:
    return ListRoots()


@server.tool()
async def introduce(
    name: Annotated[Name, Resolve(ask_name)],
    greeting: Annotated[CreateMessageResult, Resolve(ask_model)],
    roots: Annotated[ListRootsResult, Resolve(ask_roots)],
) -> str:
    """Says who calls."""
    return f"{name.name}: {greeting.content.text} at {roots.roots[0].uri}"


server.run()
