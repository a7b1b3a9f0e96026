/** A reply that starts over while it is read: `onResync`, and the page that heeds it ends with the new words. */
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { Client, COMBINATIONS, type Kind, MAJORS, type Major, open, plain } from "./chat.js";
import { CuttingProxy } from "./proxy.js";
import { TestServer } from "./server.js";
import { eventually, fresh } from "./support.js";

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

let server: TestServer;
beforeAll(async () => {
  server = await TestServer.begin();
});
afterAll(() => server?.close());

/** A page that reads the reply anew as soon as it is told to, or when `first` is over. */
function page(major: Major, url = server.url, first: Promise<unknown> = Promise.resolve()) {
  const resyncs: string[] = [];
  const resumed: Promise<void>[] = [];
  const client: Client = new Client({
    major,
    kind: "ours",
    url,
    id: fresh("resync"),
    transport: {
      onResync: (id) => {
        resyncs.push(id);
        resumed.push(first.then(() => client.chat.resumeStream()));
      },
    },
  });
  return { client, resyncs, resumed };
}

/** Resolves when the reply is over. Nobody asks for the history meanwhile: that would be a promise of its own. */
const isOver = (id: string) =>
  eventually("the reply is over", async () => {
    const response = await fetch(`${server.url}/api/sessions/${id}`);
    const { runs } = (await response.json()) as { runs: { status: string }[] };
    return runs.length > 0 && runs.every(({ status }) => status === "completed");
  });

/** The page shows the new words and nothing else, as history does; the agent was called once. */
async function isWhole(client: Client) {
  const { messages } = await server.settled(client.id);
  expect(client.text).toBe("new words");
  expect(plain(client.chat.messages)).toEqual(messages);
  expect((await server.calls(client.id)).called).toBe(1);
}

describe.each(MAJORS.map((major) => ({ major })))("ai@$major", ({ major }) => {
  test("the stream is open when the reply starts over, and read anew while it goes on", async () => {
    const { client, resyncs, resumed } = page(major);
    await client.chat.sendMessage({ text: "restart after 150 ms" });
    await eventually("the transport says so", () => resumed.length > 0);
    await Promise.all(resumed);
    expect(resyncs).toEqual([client.id]);
    expect(client.chat.status).toBe("ready");
    await isWhole(client);
  });

  test("the stream is open when the reply starts over, and read anew after its end", async () => {
    let over = () => {};
    const ended = new Promise<void>((resolve) => {
      over = resolve;
    });
    const { client, resyncs, resumed } = page(major, server.url, ended);
    await client.chat.sendMessage({ text: "restart after 20 ms" });
    await eventually("the transport says so", () => resumed.length > 0);
    await isOver(client.id);
    over();
    await Promise.all(resumed);
    expect(resyncs).toEqual([client.id]);
    expect(client.chat.status).toBe("ready");
    await isWhole(client);
  });

  test("reconnectToStream, after the end, gives the whole message once", async () => {
    const { client } = page(major, server.url, new Promise(() => {}));
    await client.chat.sendMessage({ text: "restart after 20 ms" });
    await isOver(client.id);
    const stream = await client.ours?.reconnectToStream({ chatId: client.id });
    expect(stream).not.toBeNull();
    let text = "";
    for await (const chunk of stream as unknown as AsyncIterable<{ type: string; delta?: string }>) {
      if (chunk.type === "text-delta") text += chunk.delta;
    }
    expect(text).toBe("new words");
    expect(await client.ours?.reconnectToStream({ chatId: client.id })).toBeNull();
  });

  test("the connection is gone while the reply starts over and ends", async () => {
    const proxy = await CuttingProxy.begin(server.port);
    try {
      const { client, resyncs, resumed } = page(major, proxy.url);
      const sent = client.chat.sendMessage({ text: "restart after 100 ms" });
      await client.shows("old words".length);
      await proxy.refuse();
      proxy.cut();
      await isOver(client.id);
      await proxy.accept();
      await sent;
      await eventually("the transport says so", () => resumed.length > 0);
      await Promise.all(resumed);
      expect(resyncs).toEqual([client.id]);
      await isWhole(client);
    } finally {
      await proxy.close();
    }
  });
});

test.each(COMBINATIONS)("a page that is loaded while the old words are shown, $name", async (options) => {
  const { major, kind }: { major: Major; kind: Kind } = options;
  const client = new Client({ major, kind, url: server.url, id: fresh("reload-restart") });
  const sent = client.chat.sendMessage({ text: "restart after 150 ms" });
  await client.shows("old words".length);
  const { client: loaded, done } = await open({ major, kind, url: server.url, id: client.id });
  await Promise.all([sent, done]);
  await isOver(client.id);
  for (const each of [client, loaded]) {
    // Both were cut off by the reset; each of them asks for the rest when its user does.
    await each.chat.resumeStream();
    await isWhole(each);
  }
});
