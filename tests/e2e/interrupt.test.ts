/** A message that comes while a reply streams: the reply ends where it is, and both are kept in order. */
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { Client, COMBINATIONS, open, plain, textOf } from "./chat.js";
import { TestServer } from "./server.js";
import { counted, eventually, fresh } from "./support.js";

vi.setConfig({ testTimeout: 30_000, hookTimeout: 60_000 });

let server: TestServer;
beforeAll(async () => {
  server = await TestServer.begin();
});
afterAll(() => server?.close());

const LONG = "relay 2000 every 5 ms";

describe.each(COMBINATIONS)("$name", ({ major, kind }) => {
  const begin = () => new Client({ major, kind, url: server.url, id: fresh("interrupt") });

  async function isOrderly(id: string) {
    const history = await server.settled(id);
    expect(history.messages.map(({ role }) => role)).toEqual(["user", "assistant", "user", "assistant"]);
    const [question, first, next, second] = history.messages;
    expect([textOf(question), textOf(next)]).toEqual([LONG, "count to 7 every 2 ms"]);
    expect(counted(2000).startsWith(textOf(first))).toBe(true);
    expect(textOf(first).length).toBeGreaterThan(0);
    expect(textOf(second)).toBe(counted(7));
    expect(history.runs[first?.id ?? ""]).toMatchObject({ status: "stopped", reason: "superseded" });
    expect(history.runs[second?.id ?? ""]).toMatchObject({ status: "completed" });
    await eventually("the provider's stream is closed", async () => {
      const { closed } = await server.calls(id);
      return closed.length === 1 && closed[0]?.whole === false;
    });
    expect((await server.calls(id)).called).toBe(2);
    expect(await server.history(id)).toEqual(history);
    return history;
  }

  test("from the same page", async () => {
    const client = begin();
    const first = client.chat.sendMessage({ text: LONG });
    await client.shows(counted(6).length);
    await client.chat.sendMessage({ text: "count to 7 every 2 ms" });
    await first;
    const history = await isOrderly(client.id);
    expect(client.chat.status).toBe("ready");
    expect(client.errors).toEqual([]);
    expect(client.finishes.length).toBe(2);
    expect(plain(client.chat.messages)).toEqual(history.messages);
  });

  test("from another page, which has loaded the chat", async () => {
    const client = begin();
    const first = client.chat.sendMessage({ text: LONG });
    await client.shows(counted(6).length);
    const { client: other, done } = await open({ ...client.options });
    await other.shows(counted(9).length);
    await other.chat.sendMessage({ text: "count to 7 every 2 ms" });
    await Promise.all([first, done]);
    const history = await isOrderly(client.id);
    expect(client.chat.status).toBe("ready");
    expect(other.chat.status).toBe("ready");
    expect(plain(other.chat.messages)).toEqual(history.messages);
    // The first page has the beginning; the rest is there as soon as it is loaded again.
    expect(plain(client.chat.messages)).toEqual(history.messages.slice(0, 2));
    expect(client.finishes.map(({ isAbort }) => isAbort)).toEqual([kind === "ours"]);
    expect(plain((await client.reload()).chat.messages)).toEqual(history.messages);
  });
});
