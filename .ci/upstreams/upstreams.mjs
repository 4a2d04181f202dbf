// The TypeScript SDK 1 over WebSocket: what real servers offer is listed and called.

import assert from "node:assert/strict";
import { join } from "node:path";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { WebSocketClientTransport } from "@modelcontextprotocol/sdk/client/websocket.js";

const { DAEMON, FILES, REPOSITORY } = process.env;
const CALLS = [
  ["everything__echo", { message: "Grüße" }, "Echo: Grüße"],
  ["filesystem__read_text_file", { path: join(FILES, "note.txt") }, "a note of ours"],
  ["memory__read_graph", {}, "entities"],
  ["time__convert_time", { source_timezone: "UTC", time: "12:00", target_timezone: "Asia/Tokyo" }, "T21:00:00+09:00"],
  ["git__git_status", { repo_path: REPOSITORY }, "No commits yet"],
];

let passed = 0;
let failed = 0;

async function hold(promise, check) {
  try {
    await check();
    passed += 1;
    console.log(`ok ${promise}`);
  } catch (fault) {
    failed += 1;
    console.log(`FAILED ${promise}: ${fault.stack ?? fault}`);
  }
}

const client = new Client({ name: "inflightd-ci", version: "1.0.0" });
client.onerror = (error) => {
  failed += 1;
  console.log(`FAILED the client could not read a message: ${error}`);
};
await client.connect(new WebSocketClientTransport(new URL(`ws://${DAEMON}/`)));
await hold("every server's tools are listed", async () => {
  const names = [];
  let cursor;
  do {
    const page = await client.listTools(cursor === undefined ? undefined : { cursor });
    names.push(...page.tools.map((tool) => tool.name));
    cursor = page.nextCursor;
  } while (cursor !== undefined);
  assert.deepEqual(
    CALLS.map(([name]) => name).filter((name) => !names.includes(name)),
    [],
  );
});
for (const [name, args, wanted] of CALLS) {
  await hold(name, async () => {
    // The SDK holds structured results against each tool's own schema of them.
    const result = await client.callTool({ name, arguments: args });
    const text = result.content.map((part) => part.text ?? "").join("");
    assert(!result.isError, text);
    assert(text.includes(wanted), `${wanted} is not in ${text}`);
  });
}
await client.close();
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
