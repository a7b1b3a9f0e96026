/** Stop stops: on every device, at any moment, once and for all. */
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { Client, COMBINATIONS, MAJORS, open, plain, textOf } from "./chat.js";
import { CuttingProxy } from "./proxy.js";
import { type StopAnswer, TestServer } from "./server.js";
import { counted, eventually, fresh, pause, pool, range, trial } from "./support.js";

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

let server: TestServer;
beforeAll(async () => {
  server = await TestServer.begin();
});
afterAll(() => server?.close());

const proxies: CuttingProxy[] = [];
afterEach(async () => {
  for (const proxy of proxies.splice(0)) await proxy.close();
});

const LONG = "relay 2000 every 5 ms";

/** The Stop button: what our transport has, and what an application with a stock transport calls. */
const press = async (client: Client, url = server.url): Promise<StopAnswer> => {
  if (client.ours !== undefined) return (await client.ours.stop(client.id)) as StopAnswer;
  const response = await fetch(`${url}/api/chat/${client.id}/stop`, { method: "POST" });
  return (await response.json()) as StopAnswer;
};

/** A client that streams a long reply and shows some of it. */
async function streaming(
  options: { major: (typeof MAJORS)[number]; kind: "stock" | "ours" },
  shown = 5,
  text = LONG,
) {
  const client = new Client({ ...options, url: server.url, id: fresh("stop") });
  const sent = client.chat.sendMessage({ text });
  await client.shows(counted(shown).length);
  return { client, sent };
}

/** Ready, told once, and told that it was stopped where the transport can say so. */
function isReady(client: Client) {
  expect(client.chat.status).toBe("ready");
  expect(client.errors).toEqual([]);
  expect(client.finishes.map(({ isAbort }) => isAbort)).toEqual([client.ours !== undefined]);
}

/** The frames of a run's whole stream: what a reader gets now, and for ever. */
async function frames(session: string, run: string) {
  const { status, text } = await server.resume(session, `?run=${run}`);
  expect(status).toBe(200);
  const events = text.split("\n\n").filter((event) => /^data:/m.test(event));
  return events.map((event) => ({
    data: /^data: (.*)$/m.exec(event)?.[1] ?? "",
    id: /^id: (.*)$/m.exec(event)?.[1],
  }));
}

/** Everything that must be so after a stop: in the log, in the history, on the wire and at the provider. */
async function isOver(client: Client, answer: StopAnswer) {
  expect(answer).toMatchObject({ status: "stopped", reason: "user", stopped: true });
  const at = await server.history(client.id);
  expect(at.activeRun).toBeNull();
  expect((await server.resume(client.id)).status).toBe(204);
  const stored = at.messages.at(-1);
  expect(stored?.role).toBe("assistant");
  expect(at.runs[stored?.id ?? ""]).toMatchObject({ run: answer.run, status: "stopped", reason: "user" });
  const text = textOf(stored);
  expect(counted(2000).startsWith(text) && (text === "" || text.endsWith(" "))).toBe(true);
  expect(stored?.parts.map((part) => part.state).filter(Boolean)).not.toContain("streaming");

  const closed = await eventually(
    "the provider's stream is closed",
    async () => (await server.calls(client.id)).closed,
  );
  expect(closed).toMatchObject([{ run: answer.run, whole: false }]);
  expect((await server.calls(client.id)).called).toBe(1);

  // The agent is gone for good, so what is not there now never comes.
  const log = await frames(client.id, answer.run as string);
  expect(log.at(-1)).toEqual({ data: "[DONE]", id: undefined });
  expect(log.at(-2)?.id).toBe(answer.cursor);
  expect(JSON.parse(log.at(-2)?.data ?? "")).toMatchObject({ type: "abort", reason: "user" });
  expect(await server.history(client.id)).toEqual(at);
  return at;
}

describe.each(COMBINATIONS)("$name", ({ major, kind }) => {
  const options = { major, kind };

  test("while it streams", async () => {
    const { client, sent } = await streaming(options);
    const answer = await press(client);
    await sent;
    isReady(client);
    const history = await isOver(client, answer);
    expect(plain(client.chat.messages)).toEqual(history.messages);
    // The chat goes on.
    await client.chat.sendMessage({ text: "count to 3 every 1 ms" });
    expect(client.text).toBe(counted(3));
    expect(plain(client.chat.messages)).toEqual((await server.settled(client.id)).messages);
  });

  test("after a reload", async () => {
    const { client, sent } = await streaming(options);
    const { client: page, done } = await client.reloading();
    await page.shows(counted(10).length);
    const answer = await press(page);
    await Promise.all([sent, done]);
    isReady(page);
    const history = await isOver(page, answer);
    expect(plain(page.chat.messages)).toEqual(history.messages);
  });

  test("from a second client, and both see it", async () => {
    const { client, sent } = await streaming(options);
    const second = await open({ ...options, url: server.url, id: client.id });
    await second.client.shows(counted(8).length);
    const answer = await press(second.client);
    await Promise.all([sent, second.done]);
    isReady(client);
    isReady(second.client);
    const history = await isOver(client, answer);
    for (const shown of [client, second.client]) expect(plain(shown.chat.messages)).toEqual(history.messages);
  });

  test("twice, and at the same moment from two places", async () => {
    const { client, sent } = await streaming(options);
    const answers = await Promise.all([press(client), server.stop(client.id).then(({ answer }) => answer)]);
    await sent;
    isReady(client);
    const winner = answers.find(({ stopped }) => stopped);
    expect(answers.filter(({ stopped }) => stopped).length).toBe(1);
    await isOver(client, winner as StopAnswer);
    const named = await server.stop(client.id, { run: winner?.run });
    expect(named).toEqual({ http: 200, answer: { ...winner, stopped: false } });
    const idle = await server.stop(client.id);
    expect(idle).toEqual({ http: 200, answer: { run: null, status: "idle", stopped: false } });
  });

  test("after the end it changes nothing", async () => {
    const client = new Client({ ...options, url: server.url, id: fresh("late") });
    await client.chat.sendMessage({ text: "count to 5 every 1 ms" });
    const before = await server.history(client.id);
    expect(await press(client)).toMatchObject({ run: null, status: "idle", stopped: false });
    const { run } = Object.values(before.runs)[0] as { run: string };
    expect((await server.stop(client.id, { run })).answer).toMatchObject({
      run,
      status: "completed",
      stopped: false,
    });
    expect(await server.history(client.id)).toEqual(before);
    expect(client.chat.status).toBe("ready");
  });

  test("racing the natural end: one of them wins, and all agree which", async () => {
    const outcomes = { stopped: 0, completed: 0, idle: 0 };
    await pool(range(16), 4, (number) =>
      trial(`race ai@${major} ${kind}`, number, async (chance) => {
        const client = new Client({ ...options, url: server.url, id: fresh("race") });
        // The first few are sure to be early and the last few to be late; the others race.
        const slow = number < 3;
        const sent = client.chat.sendMessage({ text: `relay 8 every ${slow ? 60 : 3} ms` });
        if (number > 12) await sent;
        else if (slow) await client.shows(1);
        else {
          await client.shows(counted(4 + Math.floor(chance() * 5)).length);
          await pause(chance() * 8);
        }
        const answer = await press(client);
        await sent;
        const history = await server.settled(client.id);
        const ended = Object.values(history.runs)[0];
        expect(client.chat.status).toBe("ready");
        expect(client.errors).toEqual([]);
        expect(client.finishes.length).toBe(1);
        expect(plain(client.chat.messages)).toEqual(history.messages);
        if (answer.stopped) {
          outcomes.stopped += 1;
          expect(ended).toMatchObject({ run: answer.run, status: "stopped", reason: "user" });
          expect(counted(8).startsWith(client.text)).toBe(true);
          expect(client.finishes[0]?.isAbort).toBe(kind === "ours");
        } else {
          outcomes[answer.status as "idle"] += 1;
          expect(["completed", "idle"]).toContain(answer.status);
          expect(ended).toMatchObject({ status: "completed" });
          expect(client.text).toBe(counted(8));
          expect(client.finishes[0]?.isAbort).toBe(false);
        }
        expect((await server.resume(client.id)).status).toBe(204);
      }),
    );
    expect(outcomes.stopped, JSON.stringify(outcomes)).toBeGreaterThan(0);
    expect(outcomes.completed + outcomes.idle, JSON.stringify(outcomes)).toBeGreaterThan(0);
  });
});

describe.each(MAJORS.map((major) => ({ major })))("our transport, ai@$major", ({ major }) => {
  test.each([{ known: false }, { known: true }])(
    "before the message that it stops: %o",
    async ({ known }) => {
      let release = () => {};
      const hold = new Promise<void>((resolve) => {
        release = resolve;
      });
      const proxy = await CuttingProxy.begin(server.port, ({ method, path }) =>
        method === "POST" && path === "/api/chat" ? { hold } : undefined,
      );
      proxies.push(proxy);
      const id = fresh("early");
      if (known) {
        const other = new Client({ major, kind: "ours", url: server.url, id });
        await other.chat.sendMessage({ text: "count to 2 every 1 ms" });
      }
      const { messages } = await server.history(id);
      const client = new Client({ major, kind: "ours", url: proxy.url, id, messages });
      const before = proxy.count("POST");
      const sent = client.chat.sendMessage({ text: LONG });
      await eventually("the POST is under way", () => proxy.count("POST") > before);
      const answer = await client.ours?.stop(id);
      if (known === false) expect((await server.history(id)).messages).toEqual([]);
      expect(answer).toEqual({ run: null, status: "remembered", stopped: false });
      release();
      await sent;
      isReady(client);
      const history = await server.settled(id);
      const stored = history.messages.at(-1);
      expect(history.messages.length).toBe(messages.length + 2);
      expect(history.runs[stored?.id ?? ""]).toMatchObject({ status: "stopped", reason: "user" });
      expect(textOf(stored)).toBe("");
      expect(plain(client.chat.messages)).toEqual(history.messages);
      expect((await server.resume(id)).status).toBe(204);
      expect((await server.calls(id)).called).toBe(known ? 1 : 0);
    },
  );

  test("before the message's answer has come", async () => {
    let release = () => {};
    const hold = new Promise<void>((resolve) => {
      release = resolve;
    });
    let posts = 0;
    // The first POST is delivered and its answer lost; the repetition is held until the stop has been answered.
    const proxy = await CuttingProxy.begin(server.port, ({ method, path }) => {
      if (method !== "POST" || path !== "/api/chat") return undefined;
      posts += 1;
      return posts === 1 ? { swallow: true } : { hold };
    });
    proxies.push(proxy);
    const client = new Client({ major, kind: "ours", url: proxy.url, id: fresh("unanswered") });
    const sent = client.chat.sendMessage({ text: LONG });
    await eventually("the POST is repeated", () => posts === 2);
    const answer = (await client.ours?.stop(client.id)) as StopAnswer;
    expect(answer.stopped).toBe(true);
    release();
    await sent;
    isReady(client);
    const history = await isOver(client, answer);
    expect(plain(client.chat.messages)).toEqual(history.messages);
  });

  test("from elsewhere, while this client's connection is gone", async () => {
    const proxy = await CuttingProxy.begin(server.port);
    proxies.push(proxy);
    const client = new Client({ major, kind: "ours", url: proxy.url, id: fresh("away") });
    const sent = client.chat.sendMessage({ text: LONG });
    await client.shows(counted(5).length);
    await proxy.refuse();
    proxy.cut();
    const { answer } = await server.stop(client.id);
    await proxy.accept();
    await sent;
    isReady(client);
    const history = await isOver(client, answer);
    expect(plain(client.chat.messages)).toEqual(history.messages);
  });

  test("while the network is gone: the stop arrives when it is back", async () => {
    const proxy = await CuttingProxy.begin(server.port);
    proxies.push(proxy);
    const client = new Client({ major, kind: "ours", url: proxy.url, id: fresh("dark") });
    const sent = client.chat.sendMessage({ text: LONG });
    await client.shows(counted(5).length);
    await proxy.refuse();
    proxy.cut();
    const pressed = client.ours?.stop(client.id) as Promise<StopAnswer>;
    await pause(100);
    await proxy.accept();
    const answer = await pressed;
    await sent;
    isReady(client);
    const history = await isOver(client, answer);
    expect(plain(client.chat.messages)).toEqual(history.messages);
  });
});

test("a provider that is silent is closed at once", async () => {
  const { client, sent } = await streaming({ major: 7, kind: "stock" }, 1, "relay 3 every 30000 ms");
  const began = Date.now();
  const answer = await press(client);
  await sent;
  await isOver(client, answer);
  expect(Date.now() - began).toBeLessThan(5_000);
});

test("a run that does not exist cannot be stopped, and nothing else is stopped in its place", async () => {
  const { client, sent } = await streaming({ major: 7, kind: "stock" });
  for (const run of ["run_of_nobody", "x"]) {
    const response = await server.post(`/api/chat/${client.id}/stop`, { run });
    expect(response.status).toBe(404);
    expect(await response.json()).toMatchObject({ code: "not-found", status: 404 });
  }
  const other = await streaming({ major: 7, kind: "stock" });
  const { activeRun } = await server.history(other.client.id);
  expect((await server.post(`/api/chat/${client.id}/stop`, { run: activeRun?.id })).status).toBe(404);
  expect((await server.history(client.id)).activeRun).not.toBeNull();
  expect((await server.history(other.client.id)).activeRun).not.toBeNull();
  expect((await server.post("/api/chat/no-such-session/stop", { run: "run_1" })).status).toBe(404);
  await Promise.all([press(client), press(other.client), sent, other.sent]);
});
