/**
 * Replies that are written at the same time (submit policy `concurrent`), on live TanStack AI chats: one after the other,
 * because the client would mix up what they reason. With that of the client, which is why.
 */
import { ChatClient, type UIMessage } from "@tanstack/ai-client";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { CuttingProxy } from "./proxy.js";
import { TestServer } from "./server.js";
import { counted, eventually, fresh, pause } from "./support.js";
import { agrees, TanStackPage, textOf } from "./tanstack.js";

vi.setConfig({ testTimeout: 30_000, hookTimeout: 60_000 });

let server: TestServer;
beforeAll(async () => {
  server = await TestServer.begin();
});
afterAll(() => server?.close());

type Shown = Record<string, string>;

/** Everything that the replies of a page have shown, in order, by message id. */
function watch(page: TanStackPage): Shown[] {
  const seen: Shown[] = [];
  const look = () => {
    const now = Object.fromEntries(page.replies.map((reply) => [reply.id, textOf(reply)]));
    if (JSON.stringify(now) !== JSON.stringify(seen.at(-1))) seen.push(now);
  };
  const timer = setInterval(look, 1);
  watching.push(() => clearInterval(timer));
  return seen;
}
const watching: (() => void)[] = [];

describe("two replies at the same time", () => {
  test.each([
    { name: "the first ends first", first: "count to 40 every 5 ms", second: "count to 60 every 5 ms" },
    { name: "the second ends first", first: "count to 60 every 5 ms", second: "count to 10 every 5 ms" },
    { name: "both reason", first: "think 8", second: "think 8" },
  ])("are shown one after the other, on both devices: $name", async ({ first, second }) => {
    const options = { url: server.url, thread: fresh("both") };
    const [one, two] = [TanStackPage.live(options), TanStackPage.live(options)];
    await one.chat.sendMessage("count to 2 every 1 ms");
    await two.shows(counted(2));
    const changed = await fetch(`${server.url}/api/sessions/${options.thread}`, {
      method: "PATCH",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ submit: "concurrent" }),
    });
    expect(changed.ok).toBe(true);

    const seen = [watch(one), watch(two)];
    const mine = one.chat.sendMessage(first);
    await eventually("the first is being written", () => one.replies.length === 2);
    const theirs = two.chat.sendMessage(second);
    await eventually("both are being written", async () => {
      const { active } = (await (await fetch(`${server.url}/api/sessions/${options.thread}`)).json()) as {
        active: object[];
      };
      return active.length === 2;
    });
    await Promise.all([mine, theirs]);
    await agrees(server, one, two);
    for (const stop of watching.splice(0)) stop();
    expect([one.errors, two.errors]).toEqual([[], []]);
    const [before, after] = one.replies.slice(1) as [UIMessage, UIMessage];
    for (const each of seen) {
      // The second begins when the first is whole, and nothing is ever taken back.
      for (const now of each) if (after.id in now) expect(now[before.id]).toBe(textOf(before));
      const lengths = each.map((now) => (now[before.id] ?? "").length + (now[after.id] ?? "").length);
      expect(lengths).toEqual([...lengths].sort((a, b) => a - b));
      expect(lengths.at(-1)).toBe((textOf(before) + textOf(after)).length);
    }
    await one.chat.sendMessage("count to 3 every 1 ms");
    await agrees(server, one, two);
    one.close();
    two.close();
  });
});

describe("a page that is loaded while two replies are written, of which", () => {
  test.each([
    { name: "both were started over", second: "restart after 1500 ms" },
    { name: "the first was started over", second: "count to 60 every 50 ms" },
  ])("$name: it loads once more for what comes after the first", async ({ second }) => {
    const thread = fresh("over");
    const said = async () =>
      JSON.stringify(await (await fetch(`${server.url}/api/sessions/${thread}`)).json());
    for (const text of ["restart after 1400 ms", second]) {
      const message = { id: fresh("u"), role: "user", parts: [{ type: "text", text }] };
      await server.post(`/api/sessions/${thread}/messages`, { message, submit: "concurrent" });
    }
    const over = second.startsWith("restart") ? 2 : 1;
    await eventually("they were started over", async () => (await said()).split("new words").length > over);
    const proxy = await CuttingProxy.begin(server.port, () => undefined);
    const page = TanStackPage.live({ url: proxy.url, thread });
    await eventually("the first is shown", () => page.text === "new words");
    await server.settled(thread);
    await agrees(server, page);
    expect(page.errors).toEqual([]);
    expect(page.replies.length).toBe(2);
    const loads = proxy.requests.filter(({ path }) => !path.includes("/events"));
    // Once for the chat, and for what came after the first; the second may still go on then.
    expect(loads.length).toBeLessThanOrEqual(3);
    page.close();
    await proxy.close();
  });
});

test("the client puts what a reply reasons into the message that spoke last (@tanstack/ai-client 0.33.2)", async () => {
  const events = (async function* () {
    const runs = ["r1", "r2"].map((runId) => ({ type: "RUN_STARTED", threadId: "t", runId }));
    const says = (messageId: string) => [
      { type: "TEXT_MESSAGE_START", messageId, role: "assistant" },
      { type: "TEXT_MESSAGE_CONTENT", messageId, delta: `${messageId} ` },
    ];
    yield* [...runs, ...says("m1"), ...says("m2")];
    yield { type: "TEXT_MESSAGE_CONTENT", messageId: "m1", delta: "goes on" };
    yield { type: "REASONING_MESSAGE_CONTENT", messageId: "m1-reasoning", delta: "I am of m1." };
    await pause(10_000);
  })();
  const connection = { subscribe: () => events, send: async () => {} };
  const chat = new ChatClient({ connection: connection as never, threadId: "t" });
  chat.subscribe();
  const thinks = () => chat.getMessages().find(({ parts }) => parts.some(({ type }) => type === "thinking"));
  await eventually("it has reasoned", thinks);
  expect(chat.getMessages().map(textOf)).toEqual(["m1 goes on", "m2 "]);
  // When it is in m1, `thread.ts` need not hold anything back any more.
  expect(thinks()?.id).toBe("m2");
  chat.dispose();
});
