/** `strandline/react` in Chromium, with the real `useChat` of every major: two people, one session. */
import type { Browser } from "playwright-core";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { textOf } from "./chat.js";
import { launchChromium } from "./chromium.js";
import { CuttingProxy } from "./proxy.js";
import { bundle, Device } from "./react-page.js";
import { TestServer } from "./server.js";
import { counted, eventually, fresh, pause } from "./support.js";

vi.setConfig({ testTimeout: 60_000, hookTimeout: 120_000 });

let server: TestServer;
let browser: Browser;
const devices: Device[] = [];
const proxies: CuttingProxy[] = [];

beforeAll(async () => {
  [server, browser] = await Promise.all([TestServer.begin(), launchChromium()]);
});
afterAll(async () => {
  await browser?.close();
  await server?.close();
});
afterEach(async () => {
  const all = devices.splice(0);
  for (const device of all) await device.context.close();
  for (const proxy of proxies.splice(0)) await proxy.close();
  expect(all.flatMap(({ complaints }) => complaints)).toEqual([]);
});

describe.each([
  { ai: 5, react: 18 },
  { ai: 6, react: 19 },
  { ai: 7, react: 19 },
] as const)("ai@$ai with React $react", ({ ai, react }) => {
  let code: string;
  beforeAll(async () => {
    code = await bundle(ai, react);
  });

  async function open(id: string, base = server.url): Promise<Device> {
    const device = await Device.open(browser, code, base, id);
    devices.push(device);
    return device;
  }
  async function pair(name: string): Promise<{ id: string; a: Device; b: Device }> {
    const id = fresh(`${name}-${ai}`);
    await server.post("/api/sessions", { id });
    return { id, a: await open(id), b: await open(id) };
  }
  /** Both show the same, and it is what the server has. */
  async function agree(id: string, ...all: Device[]): Promise<void> {
    for (const device of all) await device.rests();
    const { messages } = await server.settled(id);
    const stored = messages.map((message) => ({ id: message.id, role: message.role, text: textOf(message) }));
    for (const device of all) {
      await device.shows(...stored.map(({ text }) => text));
      expect(await device.messages()).toEqual(stored);
      expect(await device.says("error")).toBe("");
      expect(await device.says("unsent")).toBe("");
    }
  }

  test("what is typed on one is on the other at once, with its reply; a reload changes nothing", async () => {
    const { id, a, b } = await pair("typed");
    await a.say("count to 60 every 20 ms");
    await b.counts(3);
    expect((await b.texts())[0]).toBe("count to 60 every 20 ms");
    expect(await b.says("status")).toBe("streaming");
    await a.counts(20);
    await a.isSteady();
    await a.reload();
    await a.counts(30);
    await agree(id, a, b);
    expect((await a.texts())[1]).toBe(counted(60));
    await a.isSteady();
    await b.isSteady();
    await b.say("count to 3 every 1 ms");
    await a.shows("count to 60 every 20 ms", counted(60), "count to 3 every 1 ms", counted(3));
    await agree(id, a, b);
    expect((await server.calls(id)).called).toBe(2);
    // Neither chat goes on being put right. (What renders still is who has read how far.)
    for (const device of [a, b]) {
      const before = (await device.rendered()).at(-1)?.version;
      await pause(500);
      const after = (await device.rendered()).at(-1)?.version ?? before;
      expect(after).toBe(before);
    }
  });

  test("a stop on one ends the stream of the other", async () => {
    const { id, a, b } = await pair("stop");
    await a.say("count to 5000 every 10 ms");
    await a.counts(10);
    await b.counts(10);
    expect(await b.at("stop").isEnabled()).toBe(true);
    await b.at("stop").click();
    await agree(id, a, b);
    expect(await a.says("runs")).toBe("stopped");
    await a.isSteady();
    await b.isSteady();
    expect((await server.history(id)).activeRun).toBeNull();
  });

  test("one interrupts the reply of the other", async () => {
    const { id, a, b } = await pair("interrupt");
    await b.say("count to 5000 every 10 ms");
    await a.counts(10);
    await a.say("count to 30 every 10 ms");
    await b.counts(5);
    await agree(id, a, b);
    expect((await a.texts())[3]).toBe(counted(30));
    expect(await b.says("runs")).toBe("stopped completed");
    await a.isSteady();
    await b.isSteady();
  });

  test("an edit and a regeneration on one change the path of the other", async () => {
    const { id, a, b } = await pair("edit");
    await a.say("count to 4 every 1 ms");
    await agree(id, a, b);
    const [, first] = await b.messages();
    await a.say("count to 6 every 1 ms", "edit");
    await b.shows("count to 6 every 1 ms", counted(6));
    await agree(id, a, b);
    await b.at("regenerate").click();
    await eventually("the reply is another one", async () => {
      const [, second] = await a.messages();
      return second !== undefined && second.id !== first?.id && second.text === counted(6);
    });
    await agree(id, a, b);
    expect((await a.messages()).length).toBe(2);
    expect((await server.calls(id)).called).toBe(3);
  });

  // Chats of ai 5 have no approvals.
  const testApprovals = ai === 5 ? () => {} : test;
  testApprovals(
    "an approval that waits is given on another device, and nothing of the reply is lost meanwhile",
    async () => {
      const { id, a, b } = await pair("approval");
      await a.say("ask approval politely");
      for (const device of [a, b])
        await eventually(
          "it is asked",
          async () => (await device.says("tools")) === "refund:approval-requested",
        );
      await a.rendered();
      await b.rendered();
      await b.at("approve").click();
      for (const device of [a, b]) await device.shows("ask approval politely", "Please. refund: approved ");
      await agree(id, a, b);
      for (const device of [a, b]) {
        expect(await device.says("tools")).toBe("refund:output-available");
        await device.isSteady();
      }
      expect((await server.calls(id)).called).toBe(2);
    },
  );

  test("a tool of the client is run where it was asked for, and the other follows", async () => {
    const { id, a, b } = await pair("tool");
    await a.say("ask tool politely");
    for (const device of [a, b]) {
      await eventually("it is over", async () => (await device.says("tools")) === "locate:output-available");
      expect(await device.at("ran").textContent()).toBe(device === a ? "1" : "0");
    }
    await agree(id, a, b);
    expect((await a.texts())[1]).toBe('Please. locate: "here" ');
    for (const device of [a, b]) await device.isSteady();
  });

  test("a branch that one goes to is shown on both", async () => {
    const { id, a, b } = await pair("branch");
    await a.say("count to 4 every 1 ms");
    await agree(id, a, b);
    await a.say("count to 6 every 1 ms", "edit");
    await agree(id, a, b);
    await b.at("first").click();
    for (const device of [a, b]) await device.shows("count to 4 every 1 ms", counted(4));
    await agree(id, a, b);
  });

  test("a message that one deletes or corrects is so on both, also while a reply is written", async () => {
    const { id, a, b } = await pair("delete");
    await a.say("count to 3 every 1 ms");
    await agree(id, a, b);
    await a.say("count to 5000 every 10 ms");
    for (const device of [a, b]) await device.counts(3);
    await b.say("corrected", "correct");
    for (const device of [a, b])
      await eventually("it is corrected", async () => (await device.texts())[0] === "corrected");
    await b.at("delete").click();
    for (const device of [a, b])
      await eventually("it is gone", async () => !(await device.texts()).includes("corrected"));
    expect((await server.history(id)).activeRun).not.toBeNull();
    await b.at("stop").click();
    await agree(id, a, b);
    for (const device of [a, b]) expect((await device.texts())[1]).toBe("count to 5000 every 10 ms");
    // The last one: nothing is an error, for no moment.
    await a.say("count to 5000 every 10 ms");
    for (const device of [a, b]) await device.counts(3);
    await a.rendered();
    await b.rendered();
    await b.at("deleteLast").click();
    for (const device of [a, b])
      await eventually(
        "it is gone",
        async () => (await device.texts()).at(-1) === "count to 5000 every 10 ms",
      );
    await agree(id, a, b);
    for (const device of [a, b])
      expect((await device.rendered()).filter(({ status }) => status === "error")).toEqual([]);
  });

  test("the agent is told something while it writes, and a question waits for its turn", async () => {
    const { id, a, b } = await pair("steer");
    await a.say("attend 150 every 20 ms");
    for (const device of [a, b]) await device.counts(3);
    await b.say("softer", "steer");
    for (const device of [a, b])
      await eventually("it is told", async () => (await device.texts())[1]?.includes("(softer)"));
    await b.say("count to 5 every 1 ms", "queue");
    const waiting = "count to 5 every 1 ms";
    for (const device of [a, b])
      await eventually(
        `it waits on ${device === a ? "a" : "b"}`,
        async () => (await device.texts())[2] === waiting,
      );
    await a.reload();
    await eventually("it waits still", async () => (await a.texts())[2] === waiting);
    expect((await server.history(id)).activeRun).not.toBeNull();
    await agree(id, a, b);
    expect((await b.texts())[3]).toBe(counted(5));
    for (const device of [a, b]) await device.isSteady();
  });

  test("what another agent says beside the reply is on both, and not among the messages", async () => {
    const { id, a, b } = await pair("spawned");
    await a.say("delegate");
    for (const device of [a, b])
      await eventually(
        "it is there",
        async () => (await device.says("spawned")) === "critic: seen from beside",
      );
    await agree(id, a, b);
    await b.reload();
    await b.shows("delegate", "It has said: seen from beside");
    expect(await b.says("spawned")).toBe("critic: seen from beside");
  });

  test("a device that was offline comes back to all that happened", async () => {
    const id = fresh(`offline-${ai}`);
    await server.post("/api/sessions", { id });
    const proxy = await CuttingProxy.begin(server.port);
    proxies.push(proxy);
    const a = await open(id, proxy.url);
    const b = await open(id);
    await a.say("count to 100 every 20 ms");
    await a.counts(10);
    await a.context.setOffline(true);
    proxy.cut();
    await eventually("it knows", async () => (await a.says("connection")) === "offline");
    await b.counts(30);
    await b.at("stop").click();
    await b.rests();
    await b.say("count to 5 every 1 ms");
    await b.rests();
    await a.context.setOffline(false);
    await agree(id, a, b);
    expect((await a.texts())[3]).toBe(counted(5));
  });

  test("a message that is not accepted stays on the screen, and is not sent twice", async () => {
    const id = fresh(`refused-${ai}`);
    await server.post("/api/sessions", { id });
    const proxy = await CuttingProxy.begin(server.port);
    proxies.push(proxy);
    const a = await open(id, proxy.url);
    const b = await open(id);
    await b.say("count to 2 every 1 ms");
    await a.shows("count to 2 every 1 ms", counted(2));
    proxy.plan = ({ method, path }) =>
      method === "POST" && path.endsWith("/messages") ? { status: 422 } : undefined;
    await a.say("count to 3 every 1 ms");
    await eventually("the error is told", async () => (await a.says("error")) !== "");
    await a.shows("count to 2 every 1 ms", counted(2), "count to 3 every 1 ms");
    expect(await a.says("unsent")).not.toBe("");
    proxy.plan = () => undefined;
    await b.say("count to 4 every 1 ms");
    await eventually("the other goes on", async () => (await a.texts()).at(-1) === counted(4));
    expect(await a.texts()).toContain("count to 3 every 1 ms");
    expect(await b.texts()).not.toContain("count to 3 every 1 ms");
    const unsent = await a.says("unsent");
    await a.at("resend").click();
    await b.shows(
      "count to 2 every 1 ms",
      counted(2),
      "count to 4 every 1 ms",
      counted(4),
      "count to 3 every 1 ms",
      counted(3),
    );
    await agree(id, a, b);
    expect((await b.messages())[4]?.id).toBe(unsent);
    expect((await server.calls(id)).called).toBe(3);
  });

  test("a session that is deleted is gone from every screen", async () => {
    const { id, a, b } = await pair("deleted");
    await a.say("count to 5000 every 10 ms");
    await b.counts(5);
    const answer = await fetch(`${server.url}/api/sessions/${id}`, { method: "DELETE" });
    expect(answer.status).toBe(204);
    for (const device of [a, b]) {
      await device.shows();
      expect(await device.says("connection")).toBe("deleted");
      expect(await device.says("status")).toBe("ready");
    }
  });

  test("a component that is gone is connected to nothing; another id is another session", async () => {
    const { id, a, b } = await pair("gone");
    await a.say("count to 300 every 20 ms");
    await b.counts(3);
    const readers = async () => Number(await b.says("readers"));
    await eventually("both are there", async () => (await readers()) === 2);
    await a.at("toggle").click();
    await eventually("one has left", async () => (await readers()) === 1);
    await a.at("toggle").click();
    await a.counts(10);
    await eventually("it is back", async () => (await readers()) === 2);
    const other = fresh(`other-${ai}`);
    await a.show(other);
    await a.shows();
    await eventually("one has left again", async () => (await readers()) === 1);
    await a.say("count to 3 every 1 ms");
    await agree(other, a);
    await a.show(id);
    await a.counts(20);
    await b.at("stop").click();
    await agree(id, a, b);
  });
});
