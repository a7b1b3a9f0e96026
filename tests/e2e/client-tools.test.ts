/** Tools that a client runs the way the AI SDK has them: `onToolCall`, then `addToolOutput`. One device runs each call. */
import { createSessions, type Session } from "strandline";
import { sessionTransport } from "strandline/ai-sdk/sessions";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import {
  createSync,
  type Sync,
  type SyncedChat,
  type SyncedMessage,
} from "../../js-adapter/src/react-sync.js";
import type { SessionView } from "../../js-adapter/src/session.js";
import { Client, type ClientOptions, MAJORS, type Major } from "./chat.js";
import { type Message, TestServer } from "./server.js";
import { eventually, fresh } from "./support.js";

vi.setConfig({ testTimeout: 30_000, hookTimeout: 60_000 });

let server: TestServer;
const leaving: (() => void)[] = [];
beforeAll(async () => {
  server = await TestServer.begin();
});
afterEach(() => {
  for (const leave of leaving.splice(0)) leave();
});
afterAll(() => server?.close());

/** The tool of a device: where it was run, and what it gives. */
interface Device {
  client: Client;
  ran: string[];
}

function device(options: Omit<ClientOptions, "url">, where: string, isLate = Promise.resolve()): Device {
  const ran: string[] = [];
  const client: Client = new Client({
    ...options,
    url: server.url,
    headers: { "Strandline-Client": `test; ai=${options.major}` },
    onToolCall({ toolCall: { toolName: tool, toolCallId } }) {
      ran.push(toolCallId);
      // Not awaited, as the documentation of `ai` says: it would wait for itself.
      void isLate.then(() => client.chat.addToolOutput({ tool, toolCallId, output: { where } }));
    },
  });
  return { client, ran };
}

/** A device that shows its session as `useSessionSync` has it. */
function synced(
  major: Major,
  id: string,
  where: string,
  fetch = globalThis.fetch,
): Device & { session: Session } {
  const sessions = createSessions({ url: `${server.url}/api/sessions`, ai: major, fetch });
  const made = sessionTransport({ sessions, api: `${server.url}/api/chat` });
  const { client, ran } = device({ major, kind: "ours", id, made }, where);
  const session = sessions.open(id);
  let due = false;
  const update = () => {
    if (due) return;
    due = true;
    queueMicrotask(() => {
      due = false;
      sync.update(chat as SyncedChat<Shown>, session.getSnapshot() as SessionView);
    });
  };
  const sync: Sync<Shown> = createSync<Shown>(update);
  const chat = {
    id,
    get status() {
      return client.chat.status;
    },
    get messages() {
      return client.chat.messages;
    },
    setMessages(next: Message[] | ((local: Message[]) => Message[])) {
      client.chat.messages = typeof next === "function" ? next(client.chat.messages) : next;
      update();
    },
    resumeStream: (options?: object) => client.chat.resumeStream(options),
    stop: () => client.chat.stop(),
  };
  const timer = setInterval(update, 5);
  const leave = session.subscribe(update);
  leaving.push(() => {
    clearInterval(timer);
    sync.detach();
    leave();
    sessions.close();
  });
  return { client, ran, session };
}

type Shown = SyncedMessage & Message;

const SAID = (where: string) => `locate: {"where": "${where}"} `;

async function said(client: Client, where: string): Promise<void> {
  await eventually(`it says ${where}`, () => client.text === SAID(where) && client.chat.status === "ready");
  expect(client.errors).toEqual([]);
}

const WIRES = MAJORS.flatMap((major) => (["stock", "ours"] as const).map((kind) => ({ major, kind })));

describe.each(WIRES)("onToolCall, ai@$major, $kind transport", ({ major, kind }) => {
  const options = (id: string): Omit<ClientOptions, "url"> => ({ major, kind, id, transport: { ai: major } });

  test("is called where the message was sent, once, and the reply goes on", async () => {
    const { client, ran } = device(options(fresh("call")), "phone");
    await client.chat.sendMessage({ text: "ask tool" });
    await said(client, "phone");
    expect(ran.length).toBe(1);
    expect((await server.calls(client.id)).called).toBe(2);
  });

  test("a page that is loaded while it is pending does not run it by itself, but by what is pending", async () => {
    const id = fresh("later");
    const never = device(options(id), "gone", new Promise(() => {}));
    await never.client.chat.sendMessage({ text: "ask tool" });
    const { messages } = await server.history(id);
    const { client, ran } = device({ ...options(id), messages }, "tablet");
    await client.chat.resumeStream();
    expect([client.chat.status, ran]).toEqual(["ready", []]);
    const { decisions } = await (await fetch(`${server.url}/api/sessions/${id}/decisions`)).json();
    const { tool, toolCallId } = decisions[0];
    await client.chat.addToolOutput({ tool, toolCallId, output: { where: "tablet" } });
    await said(client, "tablet");
  });

  test("when two have run it the first output counts, and the other device is shown what came of it", async () => {
    const id = fresh("both");
    let go = () => {};
    const started = new Promise<void>((resolve) => {
      go = resolve;
    });
    const asking = device(options(id), "phone", started);
    await asking.client.chat.sendMessage({ text: "ask tool" });
    const { messages } = await server.history(id);
    const other: Device = device(
      {
        ...options(id),
        messages,
        ...(kind === "ours" && {
          transport: { ai: major, onResync: () => void other.client.chat.resumeStream() },
        }),
      },
      "tablet",
    );
    const part = other.client.assistants.at(-1)?.parts.find(({ type }) => type === "tool-locate");
    go();
    await said(asking.client, "phone");
    const toolCallId = String(part?.toolCallId);
    await other.client.chat.addToolOutput({ tool: "locate", toolCallId, output: { where: "tablet" } });
    if (kind === "stock") {
      await other.client.until("error");
      expect(other.client.errors[0]?.message).toContain("taken already");
      other.client.errors.length = 0;
      await other.client.chat.resumeStream();
    }
    await said(other.client, "phone");
    expect((await server.calls(id)).called).toBe(2);
  });
});

describe.each(MAJORS.map((major) => ({ major })))("onToolCall, useSessionSync, ai@$major", ({ major }) => {
  test("is called on the device that has sent the message only, and both show what came of it", async () => {
    const id = fresh("synced");
    const asking = synced(major, id, "phone");
    await asking.client.chat.sendMessage({ text: "count to 2 every 1 ms" });
    const other = synced(major, id, "tablet");
    await eventually("it is there", () => other.client.text === "1 2 ");
    await asking.client.chat.sendMessage({ text: "ask tool politely" });
    for (const { client } of [asking, other])
      await eventually("it is over", () => client.text === `Please. ${SAID("phone")}`);
    expect([asking.ran.length, other.ran.length]).toEqual([1, 0]);
    expect([...asking.client.errors, ...other.client.errors]).toEqual([]);
    expect((await server.calls(id)).called).toBe(3);
  });

  test("a device that looks on can answer, and the asking one that is late is ready", async () => {
    const id = fresh("late");
    let posts = 0;
    let go = () => {};
    const decided = new Promise<void>((resolve) => {
      go = resolve;
    });
    const asking = synced(major, id, "phone", async (url, init) => {
      if (init?.method === "POST" && String(url).endsWith("/messages") && ++posts === 2) await decided;
      return fetch(url, init);
    });
    void asking.client.chat.sendMessage({ text: "ask tool" });
    await eventually("it has its output, which is on its way", () => posts === 2);
    const other = synced(major, id, "tablet");
    await eventually("it is pending", () => other.session.getSnapshot().decisions.length === 1);
    await eventually("it is shown", () =>
      other.client.assistants.at(-1)?.parts.some(({ state }) => state === "input-available"),
    );
    const [pending] = other.session.getSnapshot().decisions;
    await other.session.decide(pending?.id ?? "", { output: { where: "tablet" } });
    go();
    for (const { client } of [asking, other])
      await eventually("it is over", () => client.text === SAID("tablet") && client.chat.status === "ready");
    expect([...asking.client.errors, ...other.client.errors]).toEqual([]);
    expect([asking.ran.length, other.ran.length]).toEqual([1, 0]);
  });
});
