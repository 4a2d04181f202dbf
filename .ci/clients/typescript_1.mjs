// The TypeScript SDK 1, straight to the daemon: its WebSocket client on Node's own WebSocket, or with DOOR=http its
// Streamable HTTP one.

import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { WebSocketClientTransport } from "@modelcontextprotocol/sdk/client/websocket.js";
import { end, sessions } from "./checks.mjs";

async function connect(address, watch) {
  const client = new Client({ name: "inflightd-ci", version: "1.0.0" });
  watch(client);
  const door =
    process.env.DOOR === "http"
      ? new StreamableHTTPClientTransport(new URL(`http://${address}/mcp`))
      : new WebSocketClientTransport(new URL(`ws://${address}/`));
  await client.connect(door);
  return client;
}

const call = (client, name, args, options) => client.callTool({ name, arguments: args }, undefined, options);

await sessions("", connect, call, (hold, client) => hold("a ping is answered", () => client.ping()));
end();
