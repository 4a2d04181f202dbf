// What the TypeScript clients share: promises that are told one a line, looks at the daemon's statistics, and what is
// asked of each door. `call(client, name, arguments, options)` calls a tool: the lines of the SDK differ in that.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { setTimeout as pause } from "node:timers/promises";

const { PLAIN, SLOW, OFFERING, SOURCE_FILE } = process.env;
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
// What offering_server.py offers, under the daemon's names.
const NOTE = "note://today";
const NOTES = "note://days/{day}";
const READ = { [NOTE]: "Water the plants – all of them.", "note://days/Monday": "On Monday: nothing." };
const PROMPT = "offering__greet";

let passed = 0;
let failed = 0;

// What the client cannot read is told here and nowhere else.
function watch(client) {
  client.onerror = (error) => {
    // Its own stream over HTTP, which it ends when it is closed.
    if (/AbortError/.test(error)) return;
    failed += 1;
    console.log(`FAILED the client could not read a message: ${error}`);
  };
}

export function end() {
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed === 0 ? 0 : 1);
}

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

async function plainChecks(hold, client, call) {
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
  await hold("analyze reads a real source file", async () => {
    const code = readFileSync(SOURCE_FILE, "utf8");
    const answers = [];
    for (const question of ["What is it for?", "What may go wrong?"]) {
      answers.push(text(await call(client, "analyze", { text: code, question })));
    }
    assert.match(answers[0], /offline/i);
    assert.notEqual(answers[0], answers[1]);
  });
  await hold("echo keeps every character", async () => {
    const result = await call(client, "echo", { text: UNICODE });
    assert.equal(text(result), UNICODE);
    assert(!result.isError);
  });
  await hold("an unknown tool is an error", async () => {
    const refused = (error) => error.code === UNKNOWN_TOOL && /no_such_tool/.test(error.message);
    await assert.rejects(call(client, "no_such_tool", {}), refused);
  });
  await hold("invalid arguments are a result that names them", async () => {
    const result = await call(client, "analyze", { text: 7 });
    assert.equal(result.isError, true);
    assert.match(text(result), /text/);
    assert.equal(result._meta?.["inflightd/error"]?.code, "VALIDATION_ERROR");
  });
}

async function offeringChecks(hold, client) {
  await hold("resources are listed and read", async () => {
    const { resources } = await client.listResources();
    assert.deepEqual(
      resources.map(({ uri }) => uri),
      [NOTE],
    );
    const { resourceTemplates } = await client.listResourceTemplates();
    assert.deepEqual(
      resourceTemplates.map(({ uriTemplate }) => uriTemplate),
      [NOTES],
    );
    for (const [uri, wanted] of Object.entries(READ)) {
      const { contents } = await client.readResource({ uri });
      assert.deepEqual(
        contents.map((part) => [part.uri, part.text]),
        [[uri, wanted]],
      );
    }
  });
  await hold("prompts are listed and got", async () => {
    const { prompts } = await client.listPrompts();
    assert.deepEqual(
      prompts.map(({ name }) => name),
      [PROMPT],
    );
    const { messages } = await client.getPrompt({ name: PROMPT, arguments: { name: "Ada" } });
    assert.deepEqual(
      messages.map(({ content }) => content.text),
      ["Greet Ada."],
    );
  });
}

async function slowChecks(hold, client, call) {
  const alive = async () => assert.match(text(await call(client, "version", {})), /inflightd/);
  await hold("a cancelled call stops, others go on", async () => {
    const cancel = new AbortController();
    const cancelled = call(client, "echo", { text: "never to be heard" }, { signal: cancel.signal });
    cancelled.catch(() => {});
    await waitersBecome(1);
    await alive();
    cancel.abort("no longer wanted");
    await assert.rejects(cancelled);
    await waitersBecome(0);
    await alive();
  });
  await hold("a slow call tells its progress", async () => {
    const seen = [];
    const onprogress = ({ progress }) => seen.push(progress);
    const result = await call(client, "analyze", { text: "a slow one" }, { onprogress });
    assert.match(text(result), /offline/i);
    assert(seen.length > 0, "no progress came");
    assert(
      seen.every((value, index) => index === 0 || value > seen[index - 1]),
      `progress does not rise: ${seen}`,
    );
  });
}

// A session with each daemon. `more`, if given, is what else is asked of the first.
export async function sessions(told, connect, call, more = async () => {}) {
  const holdTold = (promise, check) => hold(told + promise, check);
  const plainly = async (...how) => {
    await plainChecks(...how);
    await more(...how);
  };
  const daemons = { plain: [PLAIN, plainly], offering: [OFFERING, offeringChecks], slow: [SLOW, slowChecks] };
  for (const [name, [address, checks]] of Object.entries(daemons)) {
    let client;
    await holdTold(`connected to the ${name} daemon`, async () => {
      client = await connect(address, watch);
    });
    if (client === undefined) continue;
    await checks(holdTold, client, call);
    await holdTold(`left the ${name} daemon`, () => client.close());
  }
}
