"""The Python SDK 2 over `inflightd shim`, in both eras: what real servers offer is listed and called."""

import json
import os

import anyio
from mcp import Client, StdioServerParameters

from checks import Promises, equal

# The first call of a server may have to wait for its start.
SECONDS = 40

# One call of each server, and what its answer has in it.
CALLS = {
    "everything__echo": ({"message": "Grüße"}, "Echo: Grüße"),
    "filesystem__read_text_file": ({"path": os.path.join(os.environ["FILES"], "note.txt")}, "a note of ours"),
    "memory__read_graph": ({}, "entities"),
    "time__convert_time": (
        {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"},
        "T21:00:00+09:00",
    ),
    "git__git_status": ({"repo_path": os.environ["REPOSITORY"]}, "No commits yet"),
}


def client(mode):
    address = os.environ["DAEMON"]
    shim = StdioServerParameters(
        command=os.environ["INFLIGHTD_BIN"], args=["shim"], env={"INFLIGHTD_URL": f"ws://{address}"}
    )
    return Client(shim, mode=mode, read_timeout_seconds=SECONDS)


async def listed(session):
    listing = await session.list_tools()
    names = {tool.name for tool in listing.tools}
    while listing.next_cursor is not None:
        listing = await session.list_tools(cursor=listing.next_cursor)
        names |= {tool.name for tool in listing.tools}
    assert names >= set(CALLS), f"not listed: {sorted(set(CALLS) - names)}"


async def called(session, tool, arguments, wanted):
    result = await session.call_tool(tool, arguments)
    text = "".join(part.text for part in result.content if part.type == "text")
    assert not result.is_error, text
    assert wanted in text, f"{wanted!r} is not in {text!r}"


async def image(session):
    """What is no text passes too."""
    result = await session.call_tool("everything__get-tiny-image", {})
    kinds = [part.type for part in result.content]
    assert "image" in kinds, kinds


async def progress(session):
    seen = []

    async def saw(progress, _total, _message):
        seen.append(progress)

    arguments = {"duration": 1, "steps": 4}
    await session.call_tool("everything__trigger-long-running-operation", arguments, progress_callback=saw)
    assert len(seen) >= 2 and all(a < b for a, b in zip(seen, seen[1:])), f"progress: {seen}"


async def remembered(session, name):
    entity = {"name": name, "entityType": "thing", "observations": ["it was made here"]}
    await session.call_tool("memory__create_entities", {"entities": [entity]})
    result = await session.call_tool("memory__open_nodes", {"names": [name]})
    graph = json.loads(result.content[0].text)
    assert [entity["name"] for entity in graph["entities"]] == [name], graph


async def prompts(session):
    names = {prompt.name for prompt in (await session.list_prompts()).prompts}
    assert "everything__simple-prompt" in names, names
    result = await session.get_prompt("everything__simple-prompt")
    assert result.messages and result.messages[0].content.text, result


async def resources(session):
    """The first resource that is listed is read under the URI that its server gave it."""
    listed = (await session.list_resources()).resources
    assert listed, "no resource is listed"
    result = await session.read_resource(listed[0].uri)
    equal(str(result.contents[0].uri), str(listed[0].uri))
    templates = (await session.list_resource_templates()).resource_templates
    assert templates, "no template is listed"


async def era(promises, mode):
    async with client(mode) as session:
        version = session.protocol_version
        await promises.hold(f"{version}: every server's tools are listed", listed, session, seconds=SECONDS)
        for tool, (arguments, wanted) in CALLS.items():
            await promises.hold(f"{version}: {tool}", called, session, tool, arguments, wanted, seconds=SECONDS)
        await promises.hold(f"{version}: an image passes", image, session)
        await promises.hold(f"{version}: a server's own progress is told", progress, session)
        await promises.hold(f"{version}: prompts are listed and got", prompts, session, seconds=SECONDS)
        await promises.hold(f"{version}: resources are listed and read", resources, session, seconds=SECONDS)
        await promises.hold(f"{version}: what was written is read", remembered, session, f"made in {version}")


async def main():
    promises = Promises()
    for mode in ("auto", "legacy"):
        await promises.hold(f"{mode}: a session from start to end", era, promises, mode, seconds=150)
    promises.end()


anyio.run(main)
