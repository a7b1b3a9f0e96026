/**
 * Chats that send by themselves when every tool has its output (`lastAssistantMessageIsCompleteWithToolCalls`) also send
 * back what nobody has asked for: replies that end with a tool of the server, or that say nothing to what they were told.
 */
import { createSessions } from "strandline";
import { sessionTransport } from "strandline/ai-sdk/sessions";
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from "vitest";
import { Client, type Kind, MAJORS, type Major, plain } from "./chat.js";
import { type Message, TestServer } from "./server.js";
import { eventually, fresh } from "./support.js";

vi.setConfig({ testTimeout: 20_000, hookTimeout: 60_000 });

let server: TestServer;
beforeAll(async () => {
  server = await TestServer.begin();
});
afterAll(() => server?.close());

/** How often the chat has sent something. */
let posts: number;
beforeEach(() => {
  posts = 0;
  const { fetch } = globalThis;
  vi.stubGlobal("fetch", (url: string, init?: RequestInit) => {
    const isSent = init?.method === "POST" && /\/(chat|messages)$/.test(url);
    if (isSent && ++posts > 10) throw new Error("It sends and sends.");
    return fetch(url, init);
  });
});

const STEP = { type: "start-step" };
const END = { type: "finish-step" };
const call = (id: string, more: object = {}) => [
  { type: "tool-input-available", toolCallId: id, toolName: "look", input: { at: id }, ...more },
];
const output = (id: string, more: object = {}) => [
  { type: "tool-output-available", toolCallId: id, output: { seen: [id] }, ...more },
];
const text = (id: string) => [
  { type: "text-start", id },
  { type: "text-delta", id, delta: `${id} ` },
  { type: "text-end", id },
];

/** What a reply says that ends with tools of the server. */
const REPLIES: Record<string, object[]> = {
  "one output": [STEP, ...text("Let me see."), ...call("a"), ...output("a"), END],
  "outputs of two steps": [STEP, ...call("a"), ...output("a"), END, STEP, ...call("b"), ...output("b"), END],
  "an error": [
    STEP,
    ...call("a"),
    { type: "tool-output-error", toolCallId: "a", errorText: "Nothing there." },
    END,
  ],
  "a dynamic tool": [STEP, ...call("a", { dynamic: true }), ...output("a", { dynamic: true }), END],
  "a text in the same step": [STEP, ...call("a"), ...output("a"), ...text("Found."), END],
  "large numbers": [STEP, ...call("a"), { ...output("a")[0], output: 2 ** 60 + 4096 }, END],
};

type Wire = Kind | "session";
const WIRES = MAJORS.flatMap((major) =>
  (["stock", "ours", "session"] as const).map((kind) => ({ major, kind })),
);

function chat(major: Major, kind: Wire): Client {
  const headers = { "Strandline-Client": `test; ai=${major}` };
  const options = { major, url: server.url, id: fresh("back"), headers, transport: { ai: major } };
  if (kind !== "session") return new Client({ ...options, kind });
  const sessions = createSessions({ url: `${server.url}/api/sessions`, ai: major });
  return new Client({ ...options, kind: "ours", made: sessionTransport({ sessions }) });
}

/** The chat is ready, shows what is stored and nothing twice, and has sent so often. `isLast`: it was told by the log. */
async function settled(client: Client, times: number, isLast = false): Promise<Message["parts"]> {
  expect([client.chat.status, client.errors, posts]).toEqual(["ready", [], times]);
  const { messages } = await server.settled(client.id);
  expect(client.chat.messages.map(({ id }) => id)).toEqual(messages.map(({ id }) => id));
  const [shown, stored] = [client.chat.messages, messages].map((all) =>
    (all.at(-1) as Message).parts.map(({ type, text, state, output, errorText }) =>
      plain({ type, text, state, output, errorText }),
    ),
  ) as [object[], Message["parts"]];
  // An empty step tells the chat that there is nothing more to send.
  expect(shown.at(-1)).toEqual({ type: "step-start" });
  expect(isLast ? shown : shown.slice(0, -1)).toEqual(stored);
  return stored;
}

/** A chat that sends it yet again (one that goes by something else than steps) is told to stop that. */
async function refused(client: Client): Promise<void> {
  const before = plain(client.chat.messages);
  await client.chat.sendMessage();
  expect(client.chat.status).toBe("error");
  expect(client.errors[0]?.message).toContain("does not wait");
  expect(client.chat.messages).toEqual(before);
  client.chat.clearError();
  client.errors.length = 0;
}

/** As for any other message. */
async function goesOn(client: Client): Promise<void> {
  await client.chat.sendMessage({ text: "count to 3 every 1 ms" });
  expect(client.errors).toEqual([]);
  expect(client.text).toBe("1 2 3 ");
}

describe.each(WIRES)("ai@$major, $kind transport", ({ major, kind }) => {
  test.each(Object.keys(REPLIES))("a reply that ends with %s", async (name) => {
    const script = fresh("script");
    await fetch(`${server.url}/test/scripts/${script}`, {
      method: "PUT",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify([{ chunks: REPLIES[name], pause: 0 }]),
    });
    const client = chat(major, kind);
    await client.chat.sendMessage({ text: `perform ${script}` });
    await settled(client, 2);
    await refused(client);
    expect((await server.calls(client.id)).called).toBe(1);
    await goesOn(client);
  });

  test.each([
    { how: "silently", times: 2 },
    { how: "busily", times: 3 },
  ])("a tool of the client, after which the agent goes on $how", async ({ how, times }) => {
    const client = chat(major, kind);
    await client.chat.sendMessage({ text: `ask tool ${how}` });
    const part = client.assistants[0]?.parts.find(({ type }) => type === "tool-locate");
    const toolCallId = String(part?.toolCallId);
    await client.chat.addToolOutput({ tool: "locate", toolCallId, output: { lat: 38.7 } });
    await eventually(
      "it has sent all that it sends",
      () => posts === times && client.chat.status === "ready",
    );
    const parts = await settled(client, times, how === "silently");
    expect(parts.map(({ type }) => type).filter((type) => type.startsWith("tool-"))).toEqual(
      how === "silently" ? ["tool-locate"] : ["tool-locate", "tool-note"],
    );
    expect((await server.calls(client.id)).called).toBe(2);
    if (how === "silently") await client.chat.sendMessage();
    await refused(client);
    await goesOn(client);
  });
});
