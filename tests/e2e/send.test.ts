/** A reply from `sendMessage` to its end, in every version and with both transports. */
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { Client, COMBINATIONS, plain } from "./chat.js";
import { CuttingProxy, type Fault } from "./proxy.js";
import { TestServer } from "./server.js";
import { counted, fresh } from "./support.js";

vi.setConfig({ testTimeout: 30_000, hookTimeout: 60_000 });

let server: TestServer;
beforeAll(async () => {
  server = await TestServer.begin();
});
afterAll(() => server?.close());

const proxies: CuttingProxy[] = [];
afterEach(async () => {
  for (const proxy of proxies.splice(0)) await proxy.close();
});
async function broken(plan: () => Fault | undefined): Promise<CuttingProxy> {
  const proxy = await CuttingProxy.begin(server.port, plan);
  proxies.push(proxy);
  return proxy;
}

describe.each(COMBINATIONS)("$name", ({ major, kind }) => {
  const begin = (name: string, url = server.url) =>
    new Client({
      major,
      kind,
      url,
      id: fresh(name),
      // One that is not up to waiting: these tests want to see the error.
      transport: { retry: { minDelayMs: 1, maxDelayMs: 5, giveUpAfterMs: url === server.url ? 30_000 : 60 } },
    });

  /** What the client shows is what the server has; and what a page that is loaded now shows. */
  async function agrees(client: Client, replies = 1) {
    const history = await server.settled(client.id);
    expect(plain(client.chat.messages)).toEqual(history.messages);
    expect(client.assistants.length).toBe(replies);
    const reloaded = await client.reload({ url: server.url });
    expect(plain(reloaded.chat.messages)).toEqual(history.messages);
    expect(reloaded.chat.status).toBe("ready");
    return history;
  }

  test("send, stream, finish", async () => {
    const client = begin("send");
    await client.chat.sendMessage({ text: "count to 40 every 1 ms" });
    expect(client.text).toBe(counted(40));
    expect(client.chat.status).toBe("ready");
    expect(client.state.statuses).toEqual(["submitted", "streaming", "ready"]);
    expect(client.finishes).toMatchObject([{ isAbort: false, isDisconnect: false, isError: false }]);
    expect(client.errors).toEqual([]);
    const history = await agrees(client);
    expect(Object.values(history.runs)).toMatchObject([{ status: "completed" }]);
    expect((await server.calls(client.id)).called).toBe(1);
  });

  test("a conversation of three turns", async () => {
    const client = begin("turns");
    for (const to of [3, 5, 7]) await client.chat.sendMessage({ text: `count to ${to} every 1 ms` });
    expect(client.chat.messages.map(({ role }) => role).join(" ")).toBe(
      "user assistant user assistant user assistant",
    );
    expect(client.text).toBe(counted(7));
    await agrees(client, 3);
    expect(client.finishes.length).toBe(3);
    expect((await server.calls(client.id)).called).toBe(3);
  });

  test("regenerate, with and without naming the reply", async () => {
    const client = begin("regenerate");
    await client.chat.sendMessage({ text: "count to 5 every 1 ms" });
    const first = client.assistants[0]?.id;
    await client.chat.regenerate();
    const second = client.assistants[0]?.id;
    expect(second).not.toBe(first);
    expect(client.text).toBe(counted(5));
    await agrees(client);
    await client.chat.sendMessage({ text: "count to 3 every 1 ms" });
    await client.chat.regenerate({ messageId: second as string });
    expect(client.chat.messages.length).toBe(2);
    expect(client.text).toBe(counted(5));
    await agrees(client);
    expect((await server.calls(client.id)).called).toBe(4);
  });

  test("edit", async () => {
    const client = begin("edit");
    await client.chat.sendMessage({ text: "count to 3 every 1 ms" });
    await client.chat.sendMessage({ text: "count to 4 every 1 ms" });
    const { id } = client.chat.messages[0] as { id: string };
    await client.chat.sendMessage({ text: "count to 9 every 1 ms", messageId: id });
    expect(client.chat.messages.length).toBe(2);
    expect(client.chat.messages[0]?.id).toBe(id);
    expect(client.text).toBe(counted(9));
    await agrees(client);
    expect((await server.calls(client.id)).called).toBe(3);
  });

  test("a server that answers 500, then a retry", async () => {
    let faulty = true;
    const proxy = await broken(() => (faulty ? { status: 500 } : undefined));
    const client = begin("error-500", proxy.url);
    await client.chat.sendMessage({ text: "count to 5 every 1 ms" });
    expect(client.chat.status).toBe("error");
    expect(client.errors.length).toBe(1);
    faulty = false;
    await client.chat.regenerate();
    expect(client.chat.status).toBe("ready");
    expect(client.text).toBe(counted(5));
    await agrees(client);
    expect((await server.calls(client.id)).called).toBe(1);
  });

  test("a server that cannot be reached, then a retry", async () => {
    const proxy = await broken(() => undefined);
    const client = begin("refused", proxy.url);
    await client.chat.sendMessage({ text: "count to 3 every 1 ms" });
    await proxy.refuse();
    await client.chat.sendMessage({ text: "count to 5 every 1 ms" });
    expect(client.chat.status).toBe("error");
    expect(client.errors.length).toBe(1);
    await proxy.accept();
    await client.chat.regenerate();
    expect(client.chat.status).toBe("ready");
    expect(client.text).toBe(counted(5));
    await agrees(client, 2);
    expect((await server.calls(client.id)).called).toBe(2);
  });

  test("a run that fails says what may be said, keeps what was said, and the next message is answered", async () => {
    const client = begin("fail");
    await client.chat.sendMessage({ text: "fail after 3" });
    expect(client.chat.status).toBe("error");
    expect(client.text).toBe(counted(3));
    expect(client.errors.map(({ message }) => message)).toEqual(["The reply failed. Please try again."]);
    expect(client.finishes).toMatchObject([{ isError: true, isAbort: false }]);
    const history = await agrees(client);
    expect(Object.values(history.runs)).toMatchObject([
      { status: "failed", error: client.errors[0]?.message },
    ]);
    expect(JSON.stringify(history)).not.toMatch(/Traceback|DemoFailure|traceback/);
    await client.chat.sendMessage({ text: "count to 2 every 1 ms" });
    expect(client.chat.status).toBe("ready");
    expect(client.text).toBe(counted(2));
    await agrees(client, 2);
  });

  test("a reply without a word", async () => {
    const client = begin("nothing");
    await client.chat.sendMessage({ text: "say nothing" });
    expect(client.chat.status).toBe("ready");
    expect(client.text).toBe("");
    expect(client.errors).toEqual([]);
    expect(client.finishes.length).toBe(1);
    await agrees(client);
  });

  test("reasoning", async () => {
    const client = begin("think");
    await client.chat.sendMessage({ text: "think 3" });
    expect(client.text).toBe("I thought about it in 3 steps, and the answer is **21**.");
    const reasoning = client.assistants[0]?.parts.filter(({ type }) => type === "reasoning");
    expect(reasoning?.map(({ text }) => text).join("")).toMatch(/^Step 1 of 3: .* Step 3 of 3: .* $/);
    await agrees(client);
  });

  test("a tool", async () => {
    const client = begin("tool");
    await client.chat.sendMessage({ text: "call weather Lisbon" });
    const tool = client.assistants[0]?.parts.find(({ type }) => type === "tool-weather");
    expect(tool).toMatchObject({
      state: "output-available",
      input: { city: "Lisbon", unit: "celsius" },
      output: { city: "Lisbon" },
    });
    expect(client.text).toMatch(/^In Lisbon it is \d+ °C, /);
    await agrees(client);
  });
});
