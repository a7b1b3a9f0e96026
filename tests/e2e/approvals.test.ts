/** What a reply waits for: asked of real chats, shown after a reload, decided once, on whatever device. */
import { createSessions, type Session, type SessionsOptions, StrandlineHttpError } from "strandline";
import { sessionTransport } from "strandline/ai-sdk/sessions";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { Client, type Kind, type Major, open, plain, textOf } from "./chat.js";
import { type Message, TestServer } from "./server.js";
import { eventually, fresh } from "./support.js";

vi.setConfig({ testTimeout: 30_000, hookTimeout: 60_000 });

let server: TestServer;
beforeAll(async () => {
  server = await TestServer.begin();
});
afterAll(() => server?.close());

type Part = Message["parts"][number];
const tools = (message: Message | undefined): Part[] =>
  (message?.parts ?? []).filter(({ type }) => type.startsWith("tool-"));
const tool = (client: Client, name: string): Part =>
  tools(client.assistants.at(-1)).find(({ type }) => type === `tool-${name}`) as Part;
const approvalOf = (client: Client) => (tool(client, "refund").approval as { id: string }).id;

/** A chat that has sent `text`, whose reply waits. */
async function asked(major: Major, kind: Kind, text: string, more: object = {}): Promise<Client> {
  // How a stock transport says which version it is of.
  const headers = { "Strandline-Client": `test; ai=${major}` };
  const transport = { ai: major };
  const client: Client = new Client({
    ...{ major, kind, url: server.url, id: fresh("ask"), headers, transport },
    ...more,
  });
  await client.chat.sendMessage({ text });
  expect(client.errors).toEqual([]);
  expect(client.chat.status).toBe("ready");
  return client;
}

/** Another page of the same chat. */
async function another(client: Client, more: object = {}): Promise<Client> {
  const { client: other, done } = await open({ ...client.options, ...more });
  await done;
  return other;
}

const approve = (client: Client, approved = true) =>
  client.chat.addToolApprovalResponse({ id: approvalOf(client), approved });

const locate = (client: Client, output: unknown) =>
  client.chat.addToolOutput({
    tool: "locate",
    toolCallId: String(tool(client, "locate").toolCallId),
    output,
  });

/** Everybody shows one reply, the one that the server has. Its approvals are those of ai@7. */
async function agree(...clients: Client[]): Promise<Message> {
  const [first] = clients as [Client];
  const history = await server.settled(first.id);
  const last = history.messages.at(-1) as Message;
  for (const client of clients) {
    await client.until("ready");
    expect(client.assistants.map(({ id }) => id)).toEqual([last.id]);
    const shown = client.assistants.at(-1);
    expect(textOf(shown)).toBe(textOf(last));
    expect(tools(shown).map(({ state }) => state)).toEqual(tools(last).map(({ state }) => state));
    expect(tools(shown).map(({ output }) => plain(output ?? null))).toEqual(
      tools(last).map(({ output }) => output ?? null),
    );
    if (client.options.major === 7) expect(plain(shown)).toEqual(last);
  }
  return last;
}

describe.each([
  { major: 6, kind: "stock" },
  { major: 6, kind: "ours" },
  { major: 7, kind: "stock" },
  { major: 7, kind: "ours" },
] as const)("an approval, ai@$major, $kind transport", ({ major, kind }) => {
  test("is shown after a reload, given on another device, and the reply goes on, on both", async () => {
    const first = await asked(major, kind, "ask approval");
    expect(tool(first, "refund")).toMatchObject({ state: "approval-requested", input: { order: 42 } });
    const page = await first.reload();
    expect(tool(page, "refund").state).toBe("approval-requested");
    expect(page.chat.status).toBe("ready");

    const other = await another(page);
    await approve(other);
    await eventually("the reply goes on", async () => (await server.history(page.id)).activeRun);
    await page.chat.resumeStream();
    const last = await agree(other, page);
    expect(tools(last)).toMatchObject([{ state: "output-available", output: { refunded: 9.5 } }]);
    expect(textOf(last)).toBe("refund: approved ");
    expect((await server.calls(page.id)).called).toBe(2);
    await agree(await page.reload());
  });

  test("is denied, and the chat is told so", async () => {
    const client = await asked(major, kind, "ask approval");
    await approve(client, false);
    await eventually("it is told", () => tool(client, "refund").state === "output-denied");
    const last = await agree(client);
    expect(textOf(last)).toBe("refund: denied ");
    expect((await server.calls(client.id)).called).toBe(2);
  });

  test("is decided once when two click at the same moment, and both end with what was decided", async () => {
    const first = await asked(major, kind, "ask approval", {
      transport: { ai: major, onResync: () => void first.chat.resumeStream() },
    });
    const second: Client = await another(first, {
      transport: { ai: major, onResync: () => void second.chat.resumeStream() },
    });
    await Promise.all([approve(first, true), approve(second, false)]);
    const [loser, winner] = (await eventually("one of them lost", () =>
      first.errors.length > 0 ? [first, second] : second.errors.length > 0 && [second, first],
    )) as [Client, Client];
    expect(loser.errors[0]?.message).toContain("taken already");
    if (kind === "ours") {
      const error = loser.errors[0] as StrandlineHttpError;
      expect(error).toBeInstanceOf(StrandlineHttpError);
      expect([error.status, error.problem]).toEqual([409, "already-decided"]);
      expect(error.document.decision).toMatchObject({ outcome: winner === first ? "approved" : "denied" });
      await loser.until("ready");
    } else {
      await loser.until("error");
      await loser.chat.resumeStream();
    }
    await agree(winner, loser);
    expect(winner.errors).toEqual([]);
    expect((await server.calls(first.id)).called).toBe(2);
  });

  test("is refused when its input was changed, and waits on", async () => {
    const client = await asked(major, kind, "ask approval");
    const input = { order: 42, amount: 9500 };
    client.chat.messages = client.chat.messages.map((message) => ({
      ...message,
      parts: message.parts.map((part) => (part.type === "tool-refund" ? { ...part, input } : part)),
    }));
    await approve(client);
    await client.until("error");
    expect(client.errors[0]?.message).toContain("differs from the stored one");
    expect((await server.calls(client.id)).called).toBe(1);
    const page = await client.reload();
    expect(tool(page, "refund").input).toEqual({ order: 42, amount: 9.5 });
    await approve(page);
    await eventually("the reply goes on", async () => (await server.calls(page.id)).called === 2);
    await agree(page);
  });

  test("expires, and who decides too late is told", async () => {
    const client = await asked(major, kind, "ask approval within 300 ms");
    await eventually("it has expired", async () => {
      const { messages } = await server.history(client.id);
      return tools(messages.at(-1))[0]?.state === "output-denied";
    });
    await approve(client);
    await client.until("error");
    expect(client.errors[0]?.message).toContain("taken already: expired");
    expect((await server.calls(client.id)).called).toBe(1);
    await agree(await client.reload());
  });

  test("is superseded by a new message, and the conversation goes on", async () => {
    const client = await asked(major, kind, "ask approval");
    await client.chat.sendMessage({ text: "count to 3 every 1 ms" });
    expect(client.errors).toEqual([]);
    const { messages } = await server.settled(client.id);
    expect(tools(messages[1])).toMatchObject([{ state: "output-denied" }]);
    const page = await client.reload();
    expect(plain(page.chat.messages)).toEqual(messages);
  });

  test("is asked for twice in one reply", async () => {
    const client = await asked(major, kind, "ask twice");
    for (const round of [1, 2]) {
      const waiting = tools(client.assistants.at(-1)).find(({ state }) => state === "approval-requested");
      const { id } = (waiting as Part).approval as { id: string };
      await client.chat.addToolApprovalResponse({ id, approved: true });
      await eventually("the reply goes on", async () => (await server.calls(client.id)).called === round + 1);
      await eventually("it is over", () => client.chat.status === "ready");
    }
    const last = await agree(client);
    expect(tools(last).map(({ state }) => state)).toEqual(["output-available", "output-available"]);
  });
});

describe.each(
  [5, 6, 7].flatMap((major) => [
    { major, kind: "stock" },
    { major, kind: "ours" },
  ]) as {
    major: Major;
    kind: Kind;
  }[],
)("a tool of the client, ai@$major, $kind transport", ({ major, kind }) => {
  test("is shown after a reload, its output given on another device, and the reply goes on, on both", async () => {
    const first = await asked(major, kind, "ask tool");
    expect(tool(first, "locate")).toMatchObject({ state: "input-available", input: { precise: true } });
    const page = await first.reload();
    const other = await another(page);
    const { toolCallId } = tool(other, "locate") as unknown as { toolCallId: string };
    await other.chat.addToolOutput({ tool: "locate", toolCallId, output: { lat: 38.7 } });
    await eventually("the reply goes on", async () => (await server.history(page.id)).activeRun);
    await page.chat.resumeStream();
    const last = await agree(other, page);
    expect(textOf(last)).toBe('locate: {"lat": 38.7} ');
    expect((await server.calls(page.id)).called).toBe(2);
  });

  test("is answered once when two answer at the same moment, and both end with what was said", async () => {
    const first = await asked(major, kind, "ask tool", {
      transport: { ai: major, onResync: () => void first.chat.resumeStream() },
    });
    const second: Client = await another(first, {
      transport: { ai: major, onResync: () => void second.chat.resumeStream() },
    });
    await Promise.all([locate(first, "here"), locate(second, "there")]);
    await eventually("the reply goes on", async () => (await server.calls(first.id)).called === 2);
    const { messages } = await server.settled(first.id);
    const [winner, loser] = tools(messages.at(-1))[0]?.output === "here" ? [first, second] : [second, first];
    if (kind === "stock") {
      await loser.until("error");
      expect(loser.errors.map(({ message }) => message)).toEqual([expect.stringContaining("taken already")]);
      await loser.chat.resumeStream();
    } else {
      await eventually("it shows what was said", () => loser.text !== "");
      expect(loser.errors).toEqual([]);
    }
    await agree(winner, loser);
    expect(winner.errors).toEqual([]);
    expect((await server.calls(first.id)).called).toBe(2);
  });

  test("expires, and an output that comes too late changes nothing", async () => {
    const client = await asked(major, kind, "ask tool within 300 ms");
    await eventually("it has expired", async () => {
      const { messages } = await server.history(client.id);
      return tools(messages.at(-1))[0]?.state === "output-error";
    });
    await locate(client, "late");
    await client.until(kind === "stock" ? "error" : "ready");
    expect(client.errors.map(({ message }) => message)).toEqual(
      kind === "stock" ? [expect.stringContaining("taken already: expired")] : [],
    );
    expect((await server.calls(client.id)).called).toBe(1);
    expect(tools(await agree(await client.reload()))).toMatchObject([{ state: "output-error" }]);
  });

  test.each([
    ["with another input", { input: { precise: false } }, "differs from the stored one"],
    ["for a call that nobody has made", { toolCallId: "forged" }, "does not wait for"],
  ])("is refused %s, and waits on", async (_, forged, problem) => {
    const client = await asked(major, kind, "ask tool");
    client.chat.messages = client.chat.messages.map((message) => ({
      ...message,
      parts: message.parts.map((part) => (part.type === "tool-locate" ? { ...part, ...forged } : part)),
    }));
    await locate(client, "here");
    await client.until("error");
    expect(client.errors[0]?.message).toContain(problem);
    expect((await server.calls(client.id)).called).toBe(1);
    const page = await client.reload();
    expect(tool(page, "locate")).toMatchObject({ state: "input-available", input: { precise: true } });
    await locate(page, "here");
    await eventually("the reply goes on", async () => (await server.calls(page.id)).called === 2);
    expect(textOf(await agree(page))).toBe('locate: "here" ');
  });

  test("fails, and the agent is told", async () => {
    const client = await asked(major, kind, "ask tool");
    const { toolCallId } = tool(client, "locate") as unknown as { toolCallId: string };
    await client.chat.addToolOutput({ tool: "locate", toolCallId, state: "output-error", errorText: "no" });
    await eventually("the reply goes on", async () => (await server.calls(client.id)).called === 2);
    expect(tools(await agree(client))).toMatchObject([{ state: "output-error", errorText: "no" }]);
  });
});

describe("the session client", () => {
  function device(
    id: string,
    major: Major = 7,
    more: SessionsOptions = {},
  ): { session: Session; client: Client; close(): void } {
    const sessions = createSessions({ url: `${server.url}/api/sessions`, ai: major, ...more });
    const made = sessionTransport({ sessions, api: `${server.url}/api/chat` });
    const client = new Client({ major, kind: "ours", url: server.url, id, made });
    const session = sessions.open(id);
    const leave = session.subscribe(() => {});
    const close = () => {
      leave();
      sessions.close();
    };
    return { session, client, close };
  }
  const shown = (session: Session) => plain(session.getSnapshot().messages) as Message[];

  test("shows what is pending on every device, decides, and follows the reply that goes on", async () => {
    const id = fresh("devices");
    const [one, two] = [device(id), device(id)];
    await one.session.send("ask both");
    for (const { session } of [one, two])
      await eventually("it is asked", () => session.getSnapshot().decisions.length === 2);
    const [refund, locate] = one.session.getSnapshot().decisions;
    expect(refund).toMatchObject({ kind: "approval", tool: "refund", input: { order: 42 }, outcome: null });
    expect(two.session.getSnapshot().decisions).toEqual(one.session.getSnapshot().decisions);

    const partly = await two.session.decide(refund?.id ?? "", { approved: true, reason: "fine" });
    expect(partly).toMatchObject({ run: null, decision: { outcome: "approved" } });
    await eventually("the other is told", () => one.session.getSnapshot().decisions.length === 1);
    expect(tools(shown(one.session).at(-1))[0]).toMatchObject({ state: "approval-responded" });
    await expect(one.session.decide(refund?.id ?? "", { approved: false })).rejects.toMatchObject({
      status: 409,
      document: { decision: { outcome: "approved" } },
    });

    const { run } = await one.session.decide(locate?.id ?? "", { output: [1, 2] });
    expect(run).not.toBeNull();
    const later = device(id);
    await eventually("all of it is said", () => one.session.getSnapshot().activeRuns.length === 0);
    const { messages } = await server.settled(id);
    for (const { session, close } of [one, two, later]) {
      await eventually("it shows what is stored", () => {
        expect(shown(session)).toEqual(messages);
        return true;
      });
      expect(session.getSnapshot().decisions).toEqual([]);
      close();
    }
    expect(messages.length).toBe(2);
  });

  test.each(["while it is being written", "when it is over"])(
    "is decided while a device is offline, which is back %s and shows the same message",
    async (when) => {
      const id = fresh("offline");
      let isOffline = false;
      const fetch: typeof globalThis.fetch = async (...args) => {
        if (isOffline) throw new TypeError("Failed to fetch");
        return globalThis.fetch(...args);
      };
      const one = device(id);
      const two = device(id, 7, { fetch, retry: { minDelayMs: 5, maxDelayMs: 50 } });
      await one.session.send("ask approval politely");
      await eventually("it is asked", () => two.session.getSnapshot().decisions.length === 1);
      const [asked] = two.session.getSnapshot().decisions;
      isOffline = true;
      two.session.drop();
      await one.session.decide(asked?.id ?? "", { approved: true });
      await eventually("the reply goes on", () => one.session.getSnapshot().runs.length === 2);
      if (when === "when it is over") await server.settled(id);
      // It has not been told.
      expect(two.session.getSnapshot().decisions).toEqual([asked]);
      expect(tools(shown(two.session).at(-1))).toMatchObject([{ state: "approval-requested" }]);
      isOffline = false;
      const { messages } = await server.settled(id);
      for (const { session, close } of [one, two]) {
        await eventually("it shows what is stored", () => {
          expect(shown(session)).toEqual(messages);
          return true;
        });
        expect(session.getSnapshot().decisions).toEqual([]);
        close();
      }
      expect(messages.length).toBe(2);
      expect(textOf(messages[1])).toBe("Please. refund: approved ");
    },
  );

  test.each([6, 7] as const)(
    "a chat over it answers, and the other device follows (ai@%s)",
    async (major) => {
      const id = fresh("chats");
      const [one, two] = [device(id, major), device(id, major)];
      await one.client.chat.sendMessage({ text: "ask approval" });
      await eventually("the other is told", () => two.session.getSnapshot().decisions.length === 1);
      await approve(one.client);
      await eventually("the reply goes on", () => two.session.getSnapshot().activeRuns.length > 0);
      two.client.chat.messages = shown(two.session);
      await two.client.chat.resumeStream();
      await agree(one.client, two.client);
      expect(one.client.errors).toEqual([]);
      for (const { close } of [one, two]) close();
    },
  );

  test("one of two answers is recorded, and the chat is ready for the other", async () => {
    const { client, session, close } = device(fresh("partly"));
    await client.chat.sendMessage({ text: "ask both" });
    await approve(client);
    await client.chat.sendMessage();
    expect([client.chat.status, client.errors]).toEqual(["ready", []]);
    expect(session.getSnapshot().decisions.map(({ tool }) => tool)).toEqual(["locate"]);
    const { toolCallId } = tool(client, "locate") as unknown as { toolCallId: string };
    await client.chat.addToolOutput({ tool: "locate", toolCallId, output: 5 });
    await client.chat.sendMessage();
    await agree(client);
    close();
  });
});

test("it survives a restart of the server, pending and decided", async () => {
  const own = await TestServer.begin();
  try {
    const client = new Client({ major: 7, kind: "stock", url: own.url, id: fresh("restart") });
    await client.chat.sendMessage({ text: "ask both" });
    await own.restart("SIGKILL");
    const page = await another(client);
    expect(tools(page.assistants.at(-1)).map(({ state }) => state)).toEqual([
      "approval-requested",
      "input-available",
    ]);
    await approve(page);
    await page.chat.sendMessage();
    await own.restart("SIGKILL");
    const later = await another(client);
    const [refund, locate] = tools(later.assistants.at(-1));
    expect(refund?.state).toBe("approval-responded");
    await later.chat.addToolOutput({
      tool: "locate",
      toolCallId: String(locate?.toolCallId),
      output: "here",
    });
    await eventually("it is over", async () => (await own.history(client.id)).activeRun === null);
    await eventually("it shows all", () => later.text === 'refund: approved locate: "here" ');
    expect((await own.calls(client.id)).called).toBe(2);
  } finally {
    await own.close();
  }
});
