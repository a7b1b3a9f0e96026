/** A reply whose agent says it anew, or is called again after a crash: every page ends with the new words, once. */
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { Client, COMBINATIONS, open, plain } from "./chat.js";
import { TestServer } from "./server.js";
import { eventually, fresh } from "./support.js";

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

let server: TestServer;
beforeAll(async () => {
  server = await TestServer.begin();
});
afterAll(() => server?.close());

const isOver = (id: string) =>
  eventually("the reply is over", async () => {
    const response = await fetch(`${server.url}/api/sessions/${id}`);
    const { runs } = (await response.json()) as { runs: { status: string }[] };
    return runs.length > 0 && runs.every(({ status }) => status === "completed");
  });

/** The page shows the new words and nothing else, as history does. */
async function isWhole(client: Client, called: number) {
  const { messages } = await server.settled(client.id);
  expect(client.text.replaceAll("\n", "")).toBe("new words");
  expect(plain(client.chat.messages)).toEqual(messages);
  expect((await server.calls(client.id)).called).toBe(called);
}

describe.each(COMBINATIONS)("$name", ({ major, kind }) => {
  // A stock client says nothing of its version by itself.
  const headers = (agent?: string) => ({
    "Strandline-Client": kind === "stock" ? `stock; ai=${major}` : `shim/0.0.0; ai=${major}`,
    ...(agent && { "Strandline-Agent": agent }),
  });
  const settings = (agent?: string) => {
    const named = kind === "stock" ? { headers: headers(agent) } : { transport: { headers: headers(agent) } };
    return { major, kind, url: server.url, id: fresh("republish"), ...named };
  };

  test.each(["replace after", "step again after"])("%s a moment", async (command) => {
    const options = settings();
    const client = new Client(options);
    const sent = client.chat.sendMessage({ text: `${command} 150 ms` });
    await client.shows("old words".length);
    const { client: loaded, done } = await open(options);
    await Promise.all([sent, done]);
    await isOver(client.id);
    for (const each of [client, loaded]) {
      await each.chat.resumeStream();
      await isWhole(each, 1);
    }
  });

  test.each(["phoenix-restart", "phoenix-continue"])("%s, after kill -9", async (agent) => {
    const options = settings(agent);
    const client = new Client(options);
    const sent = client.chat.sendMessage({ text: "hello" });
    await client.shows("old words".length);
    await server.restart("SIGKILL");
    await sent;
    await isOver(client.id);
    // A stock client that was cut off and comes back after the end is told so; what it missed is in the history.
    const page = kind === "stock" ? await client.reload() : client;
    await page.chat.resumeStream();
    await isWhole(page, 2);
    await isWhole((await open(options)).client, 2);
  });
});
