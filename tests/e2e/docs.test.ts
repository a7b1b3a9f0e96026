/** The JavaScript of the docs does what the docs say, against the real server. */
import { readFileSync } from "node:fs";
import { HttpAgent } from "@ag-ui/client";
import { EventSource } from "eventsource";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { TestServer } from "./server.js";
import { counted, eventually, fresh } from "./support.js";

vi.setConfig({ testTimeout: 30_000, hookTimeout: 60_000 });

let server: TestServer;
beforeAll(async () => {
  server = await TestServer.begin();
});
afterAll(() => server?.close());

/** The first example of a page in that language. */
function example(page: string, language: string): string {
  const text = readFileSync(new URL(`../../docs/${page}.md`, import.meta.url), "utf8");
  const code = new RegExp(`\`\`\`${language}\\n(.*?)\`\`\``, "s").exec(text)?.[1];
  if (code === undefined) throw new Error(`docs/${page}.md has no ${language}`);
  return code;
}

/** Runs it as a script that may await, with these names in reach. */
async function run(code: string, names: Record<string, unknown>): Promise<unknown> {
  const body = code.replace(/^import .*$/gm, "");
  return new Function(...Object.keys(names), `return (async () => {\n${body}\n})()`)(...Object.values(names));
}

const say = (id: string, text: string) =>
  server.post(`/api/sessions/${id}/messages`, {
    message: { id: fresh("u"), role: "user", parts: [{ type: "text", text }] },
  });

test("the AG-UI agent writes the reply as it comes", async () => {
  let written = "";
  const stdout = { write: (text: string) => (written += text) };
  const code = example("ag-ui", "ts").replace("https://chat.example.org", server.url);
  await run(code, { HttpAgent, process: { stdout } });
  expect(written).toBe(counted(5));
});

test("the EventSource shows what is said, and its end", async () => {
  const id = fresh("source");
  const shown: { begun: unknown[]; text: string; ended: string[] } = { begun: [], text: "", ended: [] };
  await say(id, "count to 20 every 20 ms");
  const sources: EventSource[] = [];
  class Source extends EventSource {
    constructor(path: string) {
      super(server.url + path);
      sources.push(this);
    }
  }
  await run(example("plain-sse", "js"), {
    id,
    EventSource: Source,
    begin: (messages: { parts: { type: string; text?: string }[] }[]) => {
      shown.begun.push(messages.length);
      shown.text = (messages[1]?.parts ?? []).map(({ text }) => text ?? "").join("");
    },
    add: (_: string, chunk: { delta?: string }) => {
      shown.text += chunk.delta ?? "";
    },
    end: (_: string, status: string) => void shown.ended.push(status),
  });
  await eventually("the reply is over", () => shown.ended.length > 0);
  sources[0]?.close();
  expect(shown).toEqual({ begun: [expect.any(Number)], text: counted(20), ended: ["completed"] });
});

test("who has seen it", async () => {
  const id = fresh("seen");
  await say(id, "say nothing");
  await server.settled(id);
  const { readers, cursor } = await (await fetch(`${server.url}/api/sessions/${id}/readers`)).json();
  expect(readers).toEqual([]);
  const name = fresh("reader");
  const feed = await fetch(`${server.url}/api/sessions/${id}/events?after=${cursor}`, {
    headers: { "Strandline-Reader": name },
  });
  const local = { id, cursor, fetch: (path: string) => fetch(server.url + path) };
  const seen = (await run(`${example("sessions", "js")}; return seen`, local)) as { id: string }[];
  expect(seen.map((reader) => reader.id)).toEqual([name]);
  await feed.body?.cancel();
  expect(await run(`${example("sessions", "js")}; return seen`, { ...local, cursor: "another" })).toEqual([]);
});
