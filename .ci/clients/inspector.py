"""The Inspector's `--cli`, a process for each request: over Streamable HTTP in both eras, and through `inflightd shim`."""

import json
import os
import subprocess
import sys
import tempfile

import anyio

import checks
from checks import OFFERING, PLAIN, SLOW, Promises, equal

INSPECTOR = [*sys.argv[1:], "--cli"]
# What it is to keep, it keeps here: not in the user's own folder.
HOME = tempfile.TemporaryDirectory(prefix="inflightd-ci-")
# Its exit code where a tool said no, or is not there.
TOOL_ERROR = 5


def command(address, door, era, *arguments):
    """`address` behind a door, asked in one era."""
    how = ["--protocol-era", era, "--format", "json", *arguments]
    if door == "http":
        return [*INSPECTOR, f"http://{address}/mcp", *how]
    return [*INSPECTOR, os.environ["INFLIGHTD_BIN"], "shim", "-e", f"INFLIGHTD_URL=ws://{address}", *how]


async def ask(*how, code=0):
    """What it prints: a result, or nothing; and its complaint."""
    done = await anyio.run_process(command(*how), check=False, env=os.environ | {"HOME": HOME.name})
    out, complaint = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == code, f"it ended with {done.returncode}: {complaint or out}"
    return json.loads(out)["result"] if out.strip() else None, complaint


async def text(*how, tool, arguments):
    result, _ = await ask(*how, "--method", "tools/call", "--tool-name", tool, "--tool-args-json", json.dumps(arguments))
    [part] = result["content"]
    return part["text"]


async def hello(door, era, version):
    result, _ = await ask(PLAIN, door, era, "--method", "initialize")
    equal((result["protocolVersion"], result["serverInfo"]["name"]), (version, "inflightd"))


async def tools(door, era):
    """`--strict` fails at a schema that some model's API would refuse."""
    result, complaint = await ask(PLAIN, door, era, "--method", "tools/list", "--strict")
    names = {tool["name"] for tool in result["tools"]}
    assert names >= checks.TOOLS, f"not listed: {sorted(checks.TOOLS - names)}"
    equal(complaint, "")


async def calls(door, era):
    equal(await text(PLAIN, door, era, tool="echo", arguments={"text": checks.UNICODE}), checks.UNICODE)
    answer = await text(PLAIN, door, era, tool="analyze", arguments={"text": checks.source()})
    assert "offline" in answer.lower(), f"it does not say who answered: {answer}"


async def tool_errors(door, era):
    call = ("--method", "tools/call", "--tool-name")
    result, _ = await ask(PLAIN, door, era, *call, "analyze", "--tool-args-json", '{"text": 7}', code=TOOL_ERROR)
    assert result["isError"], f"not an error: {result}"
    equal(result["_meta"]["inflightd/error"]["code"], "VALIDATION_ERROR")
    _, complaint = await ask(PLAIN, door, era, *call, "no_such_tool", code=TOOL_ERROR)
    equal(json.loads(complaint)["error"]["code"], "tool_not_found")


async def resources(door, era):
    result, _ = await ask(OFFERING, door, era, "--method", "resources/list")
    equal([each["uri"] for each in result["resources"]], [checks.NOTE])
    result, _ = await ask(OFFERING, door, era, "--method", "resources/templates/list")
    equal([each["uriTemplate"] for each in result["resourceTemplates"]], [checks.NOTES])
    for uri, wanted in checks.READ.items():
        result, _ = await ask(OFFERING, door, era, "--method", "resources/read", "--uri", uri)
        equal([(each["uri"], each["text"]) for each in result["contents"]], [(uri, wanted)])


async def prompts(door, era):
    result, _ = await ask(OFFERING, door, era, "--method", "prompts/list")
    equal([prompt["name"] for prompt in result["prompts"]], [checks.PROMPT])
    named = ("--prompt-name", checks.PROMPT, "--prompt-args", "name=Ada")
    result, _ = await ask(OFFERING, door, era, "--method", "prompts/get", *named)
    equal([message["content"]["text"] for message in result["messages"]], ["Greet Ada."])


async def interrupted(door, era):
    """Ctrl-C is its only way to cancel."""
    call = ("--method", "tools/call", "--tool-name", "echo", "--tool-arg", "text=never to be heard")
    env = os.environ | {"HOME": HOME.name}
    process = await anyio.open_process(command(SLOW, door, era, *call), env=env, stdout=subprocess.DEVNULL)
    async with process:
        await checks.waiters_become(SLOW, 1)
        process.send_signal(2)
        await process.wait()
    await checks.waiters_become(SLOW, 0)


async def main():
    promises = Promises()
    for door, era, version in (
        ("http", "legacy", "2025-11-25"),
        ("http", "auto", "2026-07-28"),
        ("shim", "legacy", "2025-11-25"),
        ("shim", "auto", "2026-07-28"),
    ):
        told = f"{door}, {version}:"
        await promises.hold(f"{told} it learns whom it speaks to", hello, door, era, version)
        await promises.hold(f"{told} every tool is listed, with schemas that any model takes", tools, door, era)
        await promises.hold(f"{told} tools answer", calls, door, era)
        await promises.hold(f"{told} what a tool refuses is told", tool_errors, door, era)
        await promises.hold(f"{told} resources are listed and read", resources, door, era)
        await promises.hold(f"{told} prompts are listed and got", prompts, door, era)
        # In the older era a stream that is lost is no cancellation.
        if (door, era) != ("http", "legacy"):
            await promises.hold(f"{told} an interrupted call is waited for no more", interrupted, door, era)
    promises.end()


anyio.run(main)
