// The TypeScript SDK 2 through `inflightd shim`, or with DOOR=http over Streamable HTTP: in its default mode, which starts
// with `initialize`, and in the one that asks first and settles on 2026-07-28.

import assert from "node:assert/strict";
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";
import { end, sessions } from "./checks.mjs";

function door(address) {
  if (process.env.DOOR === "http") return new StreamableHTTPClientTransport(new URL(`http://${address}/mcp`));
  const env = { INFLIGHTD_URL: `ws://${address}` };
  return new StdioClientTransport({ command: process.env.INFLIGHTD_BIN, args: ["shim"], env });
}

const call = (client, name, args, options) => client.callTool({ name, arguments: args }, options);

for (const [mode, version] of Object.entries({ legacy: "2025-11-25", auto: "2026-07-28" })) {
  const connect = async (address, watch) => {
    const client = new Client({ name: "inflightd-ci", version: "1.0.0" }, { versionNegotiation: { mode } });
    watch(client);
    await client.connect(door(address));
    return client;
  };
  await sessions(`${version}: `, connect, call, async (hold, client) => {
    await hold(`negotiated in mode ${mode}`, async () => assert.equal(client.getNegotiatedProtocolVersion(), version));
    // The newer era has none.
    if (mode === "legacy") await hold("a ping is answered", () => client.ping());
  });
}
end();
