/** A client that knows nothing but Server-Sent Events resumes by `id:` alone (npm `eventsource`). */
import { EventSource } from "eventsource";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { Client } from "./chat.js";
import { CuttingProxy } from "./proxy.js";
import { CRAMPED, TestServer } from "./server.js";
import { counted, fresh, pool, range, trial, within } from "./support.js";

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

let server: TestServer;
beforeAll(async () => {
  server = await TestServer.begin(CRAMPED);
});
afterAll(() => server?.close());

/** `eventsource` waits 3 s before it connects again, unless the stream says otherwise. */
const hurried: typeof fetch = async (url, init) => {
  const response = await fetch(url, init);
  if (response.status !== 200 || response.body === null) return response;
  const retry = new TextEncoder().encode("retry: 5\n\n");
  const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>({
    start: (controller) => controller.enqueue(retry),
  });
  response.body.pipeTo(writable).catch(() => {});
  return new Response(readable, response);
};

type Chunk = { type: string; delta?: string; messageId?: string };

/** Reads until the server says that there is nothing more (204). */
function readAll(
  url: string,
): Promise<{ chunks: Chunk[]; ids: string[]; done: number; code: number | undefined }> {
  return new Promise((resolve) => {
    const source = new EventSource(url, { fetch: hurried as never });
    const read = {
      chunks: [] as Chunk[],
      ids: [] as string[],
      done: 0,
      code: undefined as number | undefined,
    };
    source.onmessage = ({ data, lastEventId }) => {
      if (data === "[DONE]") read.done += 1;
      else {
        read.chunks.push(JSON.parse(data) as Chunk);
        read.ids.push(lastEventId);
      }
    };
    source.onerror = (event) => {
      if (source.readyState !== source.CLOSED) return;
      resolve({ ...read, code: event.code });
    };
  });
}

test("through cuts, to the end, which is a 204", async () => {
  await pool(range(12), 6, (number) =>
    trial("eventsource", number, async (chance) => {
      const client = new Client({ major: 7, kind: "stock", url: server.url, id: fresh("sse") });
      const sent = client.chat.sendMessage({ text: "count to 60 every 4 ms" });
      await client.shows(counted(3).length);
      // The first connection brings at least the snapshot: an EventSource cannot hold back half of one.
      const proxy = await CuttingProxy.begin(server.port, (request) => ({
        cutAfter: (request.number === 0 ? 1100 : 300) + Math.floor(chance() * 900),
      }));
      try {
        const read = await within(30_000, "reading", readAll(`${proxy.url}/api/chat/${client.id}/stream`));
        await sent;
        expect(read.chunks[0]).toMatchObject({ type: "start", messageId: client.assistants[0]?.id });
        expect(read.chunks.filter(({ type }) => type === "start").length).toBe(1);
        expect(read.chunks.map(({ type, delta }) => (type === "text-delta" ? delta : "")).join("")).toBe(
          counted(60),
        );
        expect(read.chunks.at(-1)?.type).toBe("finish");
        expect(read.code).toBe(204);
        expect(proxy.requests.length).toBeGreaterThan(2);
        expect(proxy.requests.slice(1).every(({ headers }) => headers["last-event-id"])).toBe(true);
      } finally {
        await proxy.close();
      }
    }),
  );
});

test("the stream of a session that nobody knows is a 204 at once", async () => {
  const read = await within(10_000, "reading", readAll(`${server.url}/api/chat/${fresh("nobody")}/stream`));
  expect(read).toEqual({ chunks: [], ids: [], done: 0, code: 204 });
});
