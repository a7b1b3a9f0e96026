/** What else pages can ask of a session: single annotations, no reasoning, an agent by its name, a stop of several runs. */
import { createSessions, type Session, type SessionsOptions } from "strandline";
import { strandlineTransport } from "strandline/ai-sdk";
import { sessionTransport } from "strandline/ai-sdk/sessions";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { Client } from "./chat.js";
import { TestServer } from "./server.js";
import { eventually, fresh } from "./support.js";

vi.setConfig({ testTimeout: 30_000, hookTimeout: 60_000 });

let server: TestServer;
const closing: (() => void)[] = [];
beforeAll(async () => {
  server = await TestServer.begin();
});
afterEach(() => {
  for (const close of closing.splice(0)) close();
});
afterAll(() => server?.close());

function look(id: string, options: SessionsOptions = {}): Session {
  const sessions = createSessions({ url: `${server.url}/api/sessions`, ...options });
  const session = sessions.open(id);
  session.subscribe(() => {});
  closing.push(() => sessions.close());
  return session;
}

async function ended(session: Session, runs: number): Promise<void> {
  await eventually("it is over", () => {
    const { runs: all, activeRuns } = session.getSnapshot();
    return all.length === runs && activeRuns.length === 0;
  });
}

test("the single annotations of a message, in pages and by type, whoever has made them", async () => {
  const id = fresh("single");
  const [phone, laptop] = [look(id), look(id)];
  await phone.send("count to 3 every 1 ms");
  await ended(phone, 1);
  const message = phone.getSnapshot().messages.at(-1)?.id as string;
  const data = { url: "https://en.example/three", title: "Three" };
  const range = { part: 1, start: 0, end: 1 };
  const first = await phone.annotate({ message, type: "citation", data, range });
  await phone.annotate({ message, type: "reaction", data: { name: "👍" } });
  const other = { url: "https://en.example/one" };
  const second = await laptop.annotate({ message, type: "citation", data: other });
  const page = await laptop.loadAnnotations(message, { type: "citation", limit: 1 });
  expect(page.annotations).toMatchObject([{ id: first, message, type: "citation", data, range }]);
  const rest = await laptop.loadAnnotations(message, {
    type: "citation",
    after: page.next ?? undefined,
    limit: 1,
  });
  expect(rest).toMatchObject({ annotations: [{ id: second, data: other }], next: null });
  expect((await phone.loadAnnotations(message)).annotations.length).toBe(3);
  await expect(phone.loadAnnotations("nobody")).rejects.toMatchObject({ status: 404 });
});

test("without reasoning: live, in the snapshot, and in older pages", async () => {
  const id = fresh("thinks");
  const plain = look(id);
  const live = look(id, { exclude: "reasoning" });
  for (const runs of [1, 2]) {
    await plain.send("think 3");
    for (const session of [plain, live]) await ended(session, runs);
  }
  const paged = look(id, { exclude: "reasoning", pageSize: 2 });
  await eventually("it is there", () => paged.getSnapshot().hasOlder);
  await paged.loadOlder();
  const types = (session: Session) =>
    session.getSnapshot().messages.map(({ parts }) => parts.map(({ type }) => type));
  expect(types(plain)[1]).toContain("reasoning");
  const without = types(plain).map((all) => all.filter((type) => type !== "reasoning"));
  expect(types(live)).toEqual(without);
  expect(types(paged)).toEqual(without);
});

test("a header names the agent, of a message and of all", async () => {
  const headers = { "Strandline-Agent": "phoenix-restart" };
  const [one, all] = [look(fresh("agent")), look(fresh("agent"), { headers })];
  await one.send("hello", { headers });
  await all.send("hello");
  for (const session of [one, all]) {
    await eventually("it has begun", () => session.getSnapshot().activeRuns.length === 1);
    expect(session.getSnapshot().activeRuns[0]?.agent).toBe("phoenix-restart");
    await session.stop();
  }
  await expect(one.send("hello", { headers: { "Strandline-Agent": "nobody" } })).rejects.toMatchObject({
    status: 422,
    problem: "unknown-agent",
  });
});

test.each(["its own", "that of the sessions"])("a transport, %s, stops several runs", async (which) => {
  const id = fresh("several");
  const sessions = createSessions({ url: `${server.url}/api/sessions` });
  closing.push(() => sessions.close());
  const api = `${server.url}/api/chat`;
  const made = which === "its own" ? strandlineTransport({ api }) : sessionTransport({ sessions, api });
  const client = new Client({ major: 7, kind: "ours", url: server.url, id, made });
  const sent = client.chat.sendMessage({ text: "count to 5000 every 10 ms" });
  await client.shows(4);
  const { run } = await sessions.open(id).send("count to 3 every 1 ms", { submit: "queue" });
  expect(await made.stop(id, { agent: "phoenix-restart" })).toEqual([]);
  const stopped = await made.stop(id, { all: true, reason: "enough" });
  expect(stopped.map(({ status }) => status)).toEqual(["stopped", "stopped"]);
  expect(stopped.map((one) => one.run)).toContain(run);
  await sent;
  expect(client.finishes).toMatchObject([{ isAbort: true, isError: false }]);
  expect(await made.stop(fresh("nobody"), { all: true })).toEqual([]);
});
