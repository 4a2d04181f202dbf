// The TypeScript SDK 1, straight to the daemon: its WebSocket client on Node's own WebSocket, or with DOOR=http its
// Streamable HTTP one.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { WebSocketClientTransport } from "@modelcontextprotocol/sdk/client/websocket.js";

const { PLAIN, SLOW, SOURCE_FILE } = process.env;
const TOOLS = [
  "echo",
  "chat",
  "analyze",
  "listmodels",
  "version",
  "health",
  "get_server_stats",
  "get_request",
  "list_active_requests",
];
const UNICODE = 'Grüße, 世界 🚀 \u2028 "quoted" \\ \t and\na second line, \u0000, \u{1f469}\u200d\u{1f4bb}';
const UNKNOWN_TOOL = -32602;

let passed = 0;
let failed = 0;

async function hold(promise, check, seconds = 20) {
  const late = new AbortController();
  const bound = pause(seconds * 1000, undefined, { signal: late.signal }).then(() => {
    throw new Error(`not within ${seconds} s`);
  });
  try {
    await Promise.race([check(), bound]);
    passed += 1;
    console.log(`ok ${promise}`);
  } catch (fault) {
    failed += 1;
    console.log(`FAILED ${promise}: ${fault.stack ?? fault}`);
  } finally {
    bound.catch(() => {});
    late.abort();
  }
}

async function connect(address) {
  const client = new Client({ name: "inflightd-ci", version: "1.0.0" });
  // A message that the SDK cannot read is told here and nowhere else.
  client.onerror = (error) => {
    // Its own stream over HTTP, which it ends when it is closed.
    if (/AbortError/.test(error)) return;
    failed += 1;
    console.log(`FAILED the client could not read a message: ${error}`);
  };
  const door =
    process.env.DOOR === "http"
      ? new StreamableHTTPClientTransport(new URL(`http://${address}/mcp`))
      : new WebSocketClientTransport(new URL(`ws://${address}/`));
  await client.connect(door);
  return client;
}

function figure(stats, name) {
  if (stats === null || typeof stats !== "object") return undefined;
  if (typeof stats[name] === "number") return stats[name];
  for (const part of Object.values(stats)) {
    const found = figure(part, name);
    if (found !== undefined) return found;
  }
  return undefined;
}

async function waitersBecome(count, seconds = 5) {
  const until = Date.now() + seconds * 1000;
  for (;;) {
    const stats = await (await fetch(`http://${SLOW}/api/v1/stats`)).json();
    const seen = figure(stats, "waiters");
    if (seen === count) return;
    assert(Date.now() < until, `${seen} callers wait after ${seconds} s, not ${count}`);
    await pause(20);
  }
}

function text(result) {
  assert.deepEqual(
    result.content.map((part) => part.type),
    ["text"],
  );
  return result.content[0].text;
}

async function plainChecks(client) {
  await hold("the server says who it is", async () => {
    assert.equal(client.getServerVersion().name, "inflightd");
    assert(client.getServerCapabilities().tools, "it offers no tools");
  });
  await hold("every tool is listed", async () => {
    const found = [];
    let cursor;
    do {
      const page = await client.listTools(cursor === undefined ? undefined : { cursor });
      found.push(...page.tools);
      cursor = page.nextCursor;
    } while (cursor !== undefined);
    const names = found.map((tool) => tool.name);
    assert.deepEqual(
      TOOLS.filter((name) => !names.includes(name)),
      [],
    );
  });
  await hold("a ping is answered", () => client.ping());
  await hold("analyze reads a real source file", async () => {
    const code = readFileSync(SOURCE_FILE, "utf8");
    const answers = [];
    for (const question of ["What is it for?", "What may go wrong?"]) {
      answers.push(text(await client.callTool({ name: "analyze", arguments: { text: code, question } })));
    }
    assert.match(answers[0], /offline/i);
    assert.notEqual(answers[0], answers[1]);
  });
  await hold("echo keeps every character", async () => {
    const result = await client.callTool({ name: "echo", arguments: { text: UNICODE } });
    assert.equal(text(result), UNICODE);
    assert(!result.isError);
  });
  await hold("an unknown tool is an error", async () => {
    const call = client.callTool({ name: "no_such_tool", arguments: {} });
    await assert.rejects(call, (error) => error.code === UNKNOWN_TOOL && /no_such_tool/.test(error.message));
  });
  await hold("invalid arguments are a result that names them", async () => {
    const result = await client.callTool({ name: "analyze", arguments: { text: 7 } });
    assert.equal(result.isError, true);
    assert.match(text(result), /text/);
    assert.equal(result._meta?.["inflightd/error"]?.code, "VALIDATION_ERROR");
  });
}

async function slowChecks(client) {
  await hold("a cancelled call stops, pings go on", async () => {
    const cancel = new AbortController();
    const call = client.callTool({ name: "echo", arguments: { text: "never to be heard" } }, undefined, {
      signal: cancel.signal,
    });
    call.catch(() => {});
    await waitersBecome(1);
    await client.ping();
    cancel.abort("no longer wanted");
    await assert.rejects(call);
    await waitersBecome(0);
    await client.ping();
  });
  await hold("a slow call tells its progress", async () => {
    const seen = [];
    const result = await client.callTool({ name: "analyze", arguments: { text: "a slow one" } }, undefined, {
      onprogress: ({ progress }) => seen.push(progress),
    });
    assert.match(text(result), /offline/i);
    assert(seen.length > 0, "no progress came");
    assert(
      seen.every((value, index) => index === 0 || value > seen[index - 1]),
      `progress does not rise: ${seen}`,
    );
  });
}

for (const [address, checks] of [
  [PLAIN, plainChecks],
  [SLOW, slowChecks],
]) {
  let client;
  await hold(`connected to ${address}`, async () => {
    client = await connect(address);
  });
  if (client === undefined) continue;
  await checks(client);
  await hold(`left ${address}`, () => client.close());
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
