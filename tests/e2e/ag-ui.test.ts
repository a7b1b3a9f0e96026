/** An AG-UI 1.0 client, `HttpAgent` of @ag-ui/client, which refuses every stream that is not well-formed. */
import { readFileSync } from "node:fs";
import { EventType, HttpAgent, type Message } from "@ag-ui/client";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { Client } from "./chat.js";
import { TestServer } from "./server.js";
import { counted, eventually, fresh } from "./support.js";
import { hydrated, plainOf, TanStackPage, textOf } from "./tanstack.js";

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

let server: TestServer;
beforeAll(async () => {
  server = await TestServer.begin();
});
afterAll(() => server?.close());

const agentOf = (threadId: string) => new HttpAgent({ url: `${server.url}/api/tanstack`, threadId });

/** Sends a message and gives back the types of all events. A stream that `verifyEvents` refuses rejects. */
async function ask(agent: HttpAgent, text: string): Promise<string[]> {
  agent.addMessage({ id: fresh("m"), role: "user", content: text });
  const types: string[] = [];
  await agent.runAgent({}, { onEvent: ({ event }) => void types.push(event.type) });
  return types;
}

const said = (messages: readonly Message[]): string =>
  messages.map((message) => (message.role === "assistant" ? (message.content ?? "") : "")).join("");

const FAILING = "fail after 3";
const ENDING_WELL = [
  "count to 20 every 1 ms",
  "think 3",
  "call weather Lisbon",
  "say nothing",
  "help",
  "delete report.pdf",
  "send mail to Ann",
  "plan 2 days in Lisbon",
  "research tides",
];

describe("HttpAgent", () => {
  test("is asked everything that the demo agent understands", () => {
    const source = readFileSync(new URL("../../python/strandline/demo/agent.py", import.meta.url), "utf8");
    const patterns = [...source.matchAll(/re\.compile\(r"(.+?)"/g)].map(([, pattern]) => pattern as string);
    expect(patterns.length).toBeGreaterThan(4);
    for (const pattern of patterns) {
      const asked = [...ENDING_WELL, FAILING].filter((text) => new RegExp(`^${pattern}$`, "i").test(text));
      expect(asked, pattern).toHaveLength(1);
    }
  });

  test.each(ENDING_WELL)("%s", async (text) => {
    const agent = agentOf(fresh("agent"));
    const types = await ask(agent, text);
    expect(types[0]).toBe(EventType.RUN_STARTED);
    expect(types.at(-1)).toBe(EventType.RUN_FINISHED);
    const history = await server.settled(agent.threadId);
    const stored = history.messages
      .at(-1)
      ?.parts.map((part) => (part.type === "text" ? part.text : ""))
      .join("");
    expect(said(agent.messages)).toBe(stored);
    expect(agent.messages.some(({ id }) => id === history.messages.at(-1)?.id)).toBe(true);
  });

  test(FAILING, async () => {
    const agent = agentOf(fresh("fail"));
    agent.addMessage({ id: fresh("m"), role: "user", content: FAILING });
    const told: unknown[] = [];
    await agent.runAgent({}, { onRunErrorEvent: ({ event }) => void told.push([event.message, event.code]) });
    expect(told).toEqual([["The reply failed. Please try again.", "agent-error"]]);
    expect(said(agent.messages)).toBe(counted(3));
  });

  test("a tool call has its arguments, and its result is a message of its own", async () => {
    const agent = agentOf(fresh("tool"));
    await ask(agent, "call weather Lisbon");
    const [call] = agent.messages.flatMap((message) =>
      message.role === "assistant" ? (message.toolCalls ?? []) : [],
    );
    expect(call?.function.name).toBe("weather");
    expect(JSON.parse(call?.function.arguments ?? "")).toEqual({ city: "Lisbon", unit: "celsius" });
    const [result] = agent.messages.filter(({ role }) => role === "tool");
    expect(result).toMatchObject({ toolCallId: call?.id });
    expect(JSON.parse(String(result?.content))).toMatchObject({ city: "Lisbon" });
  });

  test("a conversation", async () => {
    const agent = agentOf(fresh("turns"));
    for (const to of [2, 3, 4]) await ask(agent, `count to ${to} every 1 ms`);
    expect(said(agent.messages)).toBe(counted(2) + counted(3) + counted(4));
    expect((await server.settled(agent.threadId)).messages.length).toBe(6);
    expect((await server.calls(agent.threadId)).called).toBe(3);
  });

  test("a reply that is started over ends the stream; asked for again, the run is told anew", async () => {
    const threadId = fresh("restart");
    const runId = fresh("run");
    const codes: unknown[] = [];
    const run = async () => {
      const agent = agentOf(threadId);
      agent.addMessage({ id: "m", role: "user", content: "restart after 300 ms" });
      await agent.runAgent({ runId }, { onRunErrorEvent: ({ event }) => void codes.push(event.code) });
      return said(agent.messages);
    };
    expect(await run()).toBe("old words");
    expect(await run()).toBe("new words");
    expect(codes).toEqual(["resync"]);
    expect((await server.calls(threadId)).called).toBe(1);
  });

  test("a run that is stopped ends as cancelled", async () => {
    const agent = agentOf(fresh("stop"));
    agent.addMessage({ id: fresh("m"), role: "user", content: "count to 1000 every 5 ms" });
    const outcomes: unknown[] = [];
    const done = agent.runAgent({}, { onRunFinishedEvent: ({ event }) => void outcomes.push(event.outcome) });
    await eventually("it has begun", () => said(agent.messages).length > 10);
    await server.post("/api/tanstack/stop", { threadId: agent.threadId });
    await done;
    expect(outcomes).toEqual([{ type: "cancelled" }]);
  });
});

describe("across wires", () => {
  test.each(["count to 5 every 1 ms", "think 2", "call weather Lisbon", "say nothing"])(
    "%s",
    async (text) => {
      const thread = fresh("wires");
      const page = new TanStackPage({ url: server.url, thread });
      await page.chat.sendMessage(text);

      // Written on TanStack's wire, read on the AI SDK's, and answered there.
      const history = await server.settled(thread);
      const other = new Client({
        major: 7,
        kind: "stock",
        url: server.url,
        id: thread,
        messages: history.messages,
      });
      expect(other.chat.messages.map(({ id }) => id)).toEqual(page.messages.map(({ id }) => id));
      expect(other.text).toBe(page.text);
      await other.chat.sendMessage({ text: "count to 7 every 1 ms" });

      // And the other way round.
      const again = page.reloaded();
      await again.shows(counted(7));
      expect(plainOf(again.messages)).toEqual(plainOf((await hydrated(server.url, thread)).messages));
      expect(again.messages.map(({ id }) => id)).toEqual(other.chat.messages.map(({ id }) => id));
      await again.chat.reload();
      expect(again.text).toBe(counted(7));
      expect((await server.settled(thread)).messages.length).toBe(4);
    },
  );

  test("a reply that is being written on one wire is followed on the other", async () => {
    const thread = fresh("follow");
    const first = new Client({ major: 7, kind: "stock", url: server.url, id: thread });
    const sent = first.chat.sendMessage({ text: "count to 40 every 5 ms" });
    await server.knows(thread);
    const page = TanStackPage.opened({ url: server.url, thread });
    await page.shows(counted(40));
    await sent;
    expect(page.replies.map(textOf)).toEqual([first.text]);
    expect(page.replies[0]?.id).toBe(first.assistants[0]?.id);
  });
});
