"""A server of the Python SDK 2 that offers a resource, a template of resources and a prompt."""

from mcp.server.mcpserver import MCPServer

server = MCPServer("offering")


@server.resource("note://today")
def today() -> str:
    """What is to be done today."""
    return "Water the plants – all of them."


@server.resource("note://days/{day}")
def day(day: str) -> str:
    """What is to be done on a day."""
    return f"On {day}: nothing."


@server.prompt()
def greet(name: str) -> str:
    """Asks for a greeting."""
    return f"Greet {name}."


server.run()
