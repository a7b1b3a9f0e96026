/** What a reply waits for, as TanStack AI shows it: stock and with our connection, after a reload, on two devices. */
import { toolDefinition } from "@tanstack/ai/client";
import type { ChatClient } from "@tanstack/ai-client";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { TestServer } from "./server.js";
import { counted, eventually, fresh, pause } from "./support.js";
import { hydrated, plainOf, type TanStackOptions, TanStackPage } from "./tanstack.js";

vi.setConfig({ testTimeout: 30_000, hookTimeout: 60_000 });

let server: TestServer;
beforeAll(async () => {
  server = await TestServer.begin();
});
afterAll(() => server?.close());

interface Interrupt {
  id: string;
  metadata: { kind: string; toolName: string; input: unknown };
}
const interruptsOf = ({ chat }: TanStackPage) => chat.getInterrupts() as unknown as Interrupt[];
type Part = { type: string; name?: string; state?: string; output?: unknown; [field: string]: unknown };
const callsOf = (page: TanStackPage): Part[] =>
  page.messages.flatMap(({ parts }) => parts as unknown as Part[]).filter(({ type }) => type === "tool-call");

const callOf = (page: TanStackPage, tool: string) =>
  String(callsOf(page).find(({ name }) => name === tool)?.id);

const waits = (page: TanStackPage, count: number) =>
  eventually(`it waits for ${count}`, () => interruptsOf(page).length === count);
const approve = (chat: ChatClient, id: string, approved: boolean) =>
  chat.addToolApprovalResponse({ id, approved });
const called = (page: TanStackPage, times: number) =>
  eventually(`the agent is called ${times} times`, async () => {
    const { called: so } = await server.calls(page.options.thread);
    return so === times && (await server.history(page.options.thread)).activeRun === null;
  });

/** Results follow their calls in history, and come when they come on a stream. */
const inOrder = (messages: Parameters<typeof plainOf>[0]) =>
  plainOf(messages).map(({ parts, ...rest }) => ({
    ...rest,
    // How a call was approved is known to who was asked.
    parts: (parts as Part[])
      .filter(({ type }) => type !== "tool-result")
      .map(({ approval, ...part }) => part),
    results: new Set((parts as Part[]).filter(({ type }) => type === "tool-result")),
  }));

/** All of them show what is stored, and what a page shows that is loaded now. */
async function same(...pages: TanStackPage[]) {
  const [{ options }] = pages as [TanStackPage];
  await server.settled(options.thread);
  const { messages } = await hydrated(server.url, options.thread);
  const again = TanStackPage.opened({ url: server.url, thread: options.thread });
  for (const page of [...pages, again])
    await eventually("the page shows what is stored", () => {
      expect(inOrder(page.messages)).toEqual(inOrder(messages));
      return true;
    });
  again.close();
}

describe("the stock client", () => {
  test("an approval is asked for, shown after a reload, given, and the reply goes on", async () => {
    const page = new TanStackPage({ url: server.url, thread: fresh("approve") });
    await page.chat.sendMessage("ask approval");
    expect(page.errors).toEqual([]);
    const [asked] = interruptsOf(page);
    expect(asked?.metadata).toEqual({
      kind: "approval",
      toolName: "refund",
      input: { order: 42, amount: 9.5 },
    });
    const again = page.reloaded();
    await waits(again, 1);
    expect(interruptsOf(again)[0]).toMatchObject({ id: asked?.id, metadata: asked?.metadata });
    expect(callsOf(again)).toMatchObject([{ name: "refund", state: "approval-requested" }]);
    await approve(again.chat, asked?.id ?? "", true);
    await called(again, 2);
    await eventually("it is ready", () => again.chat.getStatus() === "ready");
    expect(again.errors).toEqual([]);
    expect(interruptsOf(again)).toEqual([]);
    expect(callsOf(again)).toMatchObject([{ state: "complete", output: { refunded: 9.5 } }]);
    await same(again);
    await again.chat.sendMessage("count to 3 every 1 ms");
    expect(again.errors).toEqual([]);
    again.close();
  });

  test("a denial and a tool of the client, decided at once", async () => {
    const page = new TanStackPage({ url: server.url, thread: fresh("both") });
    await page.chat.sendMessage("ask both");
    const [refund, locate] = interruptsOf(page) as [Interrupt, Interrupt];
    expect(locate.metadata).toMatchObject({ kind: "client_tool", input: { precise: true } });
    await approve(page.chat, refund.id, false);
    await page.chat.addToolResult({
      toolCallId: callOf(page, "locate"),
      tool: "locate",
      output: { lat: 1 },
    });
    await called(page, 2);
    await eventually("it is ready", () => page.chat.getStatus() === "ready");
    expect(page.errors).toEqual([]);
    expect(page.text).toBe('refund: denied locate: {"lat": 1} ');
    await same(page);
    page.close();
  });

  test("what was said before it asked stays, on the page that asked and on one that joins", async () => {
    const page = new TanStackPage({ url: server.url, thread: fresh("before") });
    await page.chat.sendMessage("ask approval politely");
    const [asked] = interruptsOf(page) as [Interrupt];
    await approve(page.chat, asked.id, true);
    await eventually(
      "the reply goes on",
      async () => (await hydrated(server.url, page.options.thread)).activeRun,
    );
    const joined = TanStackPage.opened({ url: server.url, thread: page.options.thread });
    await called(page, 2);
    await eventually("it is ready", () => page.chat.getStatus() === "ready");
    await eventually("the other is ready", () => joined.chat.getStatus() === "ready");
    expect([page.errors, joined.errors]).toEqual([[], []]);
    await same(page, joined);
    page.close();
    joined.close();
  });

  test("who decides otherwise than somebody else is told, and sees what was decided when it is loaded", async () => {
    const page = new TanStackPage({ url: server.url, thread: fresh("late") });
    await page.chat.sendMessage("ask approval");
    const [asked] = interruptsOf(page) as [Interrupt];
    const path = `/api/sessions/${page.options.thread}/decisions/${asked.id}`;
    expect((await server.post(path, { approved: false })).status).toBe(200);
    await approve(page.chat, asked.id, true);
    await eventually("it is told", () => page.errors.length > 0);
    expect(page.errors[0]?.message).toContain("409");
    await called(page, 2);
    const again = page.reloaded();
    await eventually("it shows what was decided", () => again.text === "refund: denied ");
    expect(interruptsOf(again)).toEqual([]);
    await same(again);
    again.close();
  });

  test("an interrupt that is cancelled is denied", async () => {
    const page = new TanStackPage({ url: server.url, thread: fresh("cancel") });
    await page.chat.sendMessage("ask both");
    page.chat.cancelInterrupts();
    await called(page, 2);
    await eventually("it is ready", () => page.chat.getStatus() === "ready");
    expect(page.text).toBe("refund: denied locate: null ");
    await same(page);
    page.close();
  });
});

describe("a tool that runs in the page by itself (`execute`)", () => {
  /** A page with the tool `locate`, and how often that ran there. */
  function located(page: (options: TanStackOptions) => TanStackPage, thread: string) {
    const ran: unknown[] = [];
    const locate = toolDefinition({ name: "locate", description: "Where are you?" }).client((input) => {
      ran.push(input);
      return { lat: 1 };
    });
    return { page: page({ url: server.url, thread, tools: [locate] }), ran };
  }
  const stock = (options: TanStackOptions) => TanStackPage.opened(options);
  const live = (options: TanStackOptions) => TanStackPage.live(options);

  test.each([
    { name: "the stock client", open: stock },
    { name: "our connection", open: live },
  ])("runs on the page that has sent the message, and on no other: $name", async ({ open }) => {
    const thread = fresh("runs");
    const [one, two] = [located(open, thread), located(live, thread)];
    await one.page.chat.sendMessage("ask tool");
    await called(one.page, 2);
    await same(two.page);
    expect([one.ran, two.ran]).toEqual([[{ precise: true }], []]);
    expect([one.page.errors, two.page.errors]).toEqual([[], []]);
    one.page.close();
    two.page.close();
  });

  test("is not run by the stock client when the page is loaded again: it is resolved by hand", async () => {
    const thread = fresh("again");
    const page = TanStackPage.opened({ url: server.url, thread });
    await page.chat.sendMessage("ask tool");
    page.close();
    const again = located(stock, thread);
    await waits(again.page, 1);
    await pause(300);
    expect(again.ran).toEqual([]);
    await again.page.chat.addToolResult({
      toolCallId: callOf(again.page, "locate"),
      tool: "locate",
      output: 1,
    });
    await called(again.page, 2);
    again.page.close();
  });

  test("is run with our connection when the page is loaded again, by each page that is: the first one counts", async () => {
    const thread = fresh("again");
    const page = TanStackPage.opened({ url: server.url, thread });
    await page.chat.sendMessage("ask tool");
    page.close();
    const again = [located(live, thread), located(live, thread)];
    await called(page, 2);
    for (const { page: shown } of again) await waits(shown, 0);
    await same(...(again.map(({ page: shown }) => shown) as [TanStackPage]));
    expect(again.flatMap(({ ran }) => ran).length).toBeGreaterThan(0);
    expect(callsOf(again[0]?.page as TanStackPage)).toMatchObject([{ name: "locate", output: { lat: 1 } }]);
    for (const { page: shown } of again) shown.close();
  });
});

describe("our connection, live on two devices", () => {
  const devices = (name: string) => {
    const options = { url: server.url, thread: fresh(name) };
    return [TanStackPage.live(options), TanStackPage.live(options)] as [TanStackPage, TanStackPage];
  };

  test.each(["ask approval", "ask approval politely"])(
    "%s: both show it, one gives it, both follow",
    async (text) => {
      const [one, two] = devices("live");
      await one.chat.sendMessage(text);
      await waits(one, 1);
      await waits(two, 1);
      const [asked] = interruptsOf(two) as [Interrupt];
      await approve(two.chat, asked.id, true);
      await called(one, 2);
      for (const page of [one, two]) {
        await waits(page, 0);
        expect(page.errors).toEqual([]);
      }
      await same(one, two);
      await one.chat.sendMessage("count to 3 every 1 ms");
      await same(one, two);
      one.close();
      two.close();
    },
  );

  test("decided by other means, both follow", async () => {
    const [one, two] = devices("elsewhere");
    await one.chat.sendMessage("ask both politely");
    await waits(two, 2);
    const { thread } = one.options;
    const { decisions } = (await (await fetch(`${server.url}/api/sessions/${thread}/decisions`)).json()) as {
      decisions: { id: string }[];
    };
    await server.post(`/api/sessions/${thread}/decisions/${decisions[0]?.id}`, { approved: true });
    await server.post(`/api/sessions/${thread}/decisions/${decisions[1]?.id}`, { output: 7 });
    await called(one, 2);
    for (const page of [one, two]) await waits(page, 0);
    await same(one, two);
    one.close();
    two.close();
  });

  test("a reply that asks while another one waits behind it, or is written beside it: both pages go on", async () => {
    for (const policy of ["queue", "concurrent"]) {
      const [one, two] = devices(policy);
      const { thread } = one.options;
      await one.chat.sendMessage("count to 3 every 1 ms");
      await same(one, two);
      const sent = one.chat.sendMessage("ask approval slowly");
      await eventually("it is begun", async () => (await server.history(thread)).activeRun);
      const parts = [{ type: "text", text: "count to 90 every 10 ms" }];
      const message = { id: fresh("u"), role: "user", parts };
      expect((await server.post(`/api/sessions/${thread}/messages`, { message, submit: policy })).ok).toBe(
        true,
      );
      await sent;
      for (const page of [one, two]) await waits(page, 1);
      if (policy === "concurrent")
        for (const page of [one, two]) {
          await eventually("it shows the other", () => page.text === counted(90));
          await waits(page, 1);
        }
      else
        for (const page of [one, two])
          await eventually("it shows what waits", () => page.messages.at(-1)?.id === message.id);
      const [asked] = interruptsOf(two) as [Interrupt];
      await approve(two.chat, asked.id, true);
      await called(one, 4);
      for (const page of [one, two]) await waits(page, 0);
      await same(one, two);
      expect([one.errors, two.errors]).toEqual([[], []]);
      one.close();
      two.close();
    }
  });

  test("what expires is asked for no more", async () => {
    const [one, two] = devices("expired");
    await one.chat.sendMessage("count to 3 every 1 ms");
    await same(one, two);
    await one.chat.sendMessage("ask approval within 700 ms");
    await waits(one, 1);
    await waits(two, 1);
    for (const page of [one, two]) await waits(page, 0);
    await same(one, two);
    await two.chat.sendMessage("count to 3 every 1 ms");
    await same(one, two);
    one.close();
    two.close();
  });
});
