/** AI SDK chats over the session client: one connection carries everything, and cutting it anywhere changes nothing. */
import { createSessions, type Session, type Sessions } from "strandline";
import { sessionTransport } from "strandline/ai-sdk/sessions";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { Client, MAJORS, type Major, plain, textOf } from "./chat.js";
import { CuttingProxy, type Fault, type ProxiedRequest } from "./proxy.js";
import { CRAMPED, type History, type Message, TestServer } from "./server.js";
import { counted, eventually, fresh, pool, range, trial } from "./support.js";

vi.setConfig({ testTimeout: 120_000, hookTimeout: 60_000 });

const WIDTH = 12;
const RETRY = { minDelayMs: 1, maxDelayMs: 4, giveUpAfterMs: 30_000 };

let server: TestServer;
const opened: Sessions[] = [];
beforeAll(async () => {
  server = await TestServer.begin(CRAMPED);
});
afterEach(() => {
  for (const sessions of opened.splice(0)) sessions.close();
});
afterAll(() => server?.close());

interface Page {
  client: Client;
  sessions: Sessions;
  session: Session;
}

/** A page with a chat in it. */
function openPage(major: Major, id: string, url = server.url, messages: Message[] = []): Page {
  const sessions = createSessions({ url: `${url}/api/sessions`, ai: major, retry: RETRY });
  opened.push(sessions);
  const made = sessionTransport({
    sessions,
    api: `${url}/api/chat`,
    onResync: () => void client.chat.resumeStream(),
  });
  const client = new Client({ major, kind: "ours", url, id, made, messages });
  return { client, sessions, session: sessions.open(id) };
}

async function through<T>(
  plan: (request: ProxiedRequest, feeds: number) => Fault | undefined,
  work: (proxy: CuttingProxy) => Promise<T>,
): Promise<T> {
  let feeds = 0;
  const proxy = await CuttingProxy.begin(server.port, (request) => {
    if (request.path.includes("/events")) feeds++;
    return plan(request, feeds);
  });
  try {
    return await work(proxy);
  } finally {
    await proxy.close();
  }
}

const isFeed = ({ path }: ProxiedRequest) => path.includes("/events");

/** Equal to the stored one; told once; nobody saw an error. */
async function isWhole(client: Client, text: string) {
  expect(client.errors).toEqual([]);
  expect(client.chat.status).toBe("ready");
  expect(client.text).toBe(text);
  expect(client.finishes).toMatchObject([{ isAbort: false, isDisconnect: false, isError: false }]);
  expect(plain(client.chat.messages)).toEqual((await server.settled(client.id)).messages);
}

interface Reader {
  connected: boolean;
  wire: string;
  acknowledged: string | null;
}

async function readers(id: string): Promise<{ readers: Reader[]; cursor: string }> {
  return (await fetch(`${server.url}/api/sessions/${id}/readers`)).json() as never;
}

describe.each(MAJORS.map((major) => ({ major })))("ai@$major", ({ major }) => {
  test("a chat sends and reads over one connection, which its session shares", async () => {
    const { client, session } = openPage(major, fresh("one"));
    const leave = session.subscribe(() => {});
    const sent = client.chat.sendMessage({ text: "count to 30 every 10 ms" });
    await client.shows(4);
    const during = await readers(client.id);
    expect(during.readers.filter(({ connected }) => connected)).toMatchObject([{ wire: "session" }]);
    await sent;
    await isWhole(client, counted(30));
    await eventually("the session shows the same", () => session.getSnapshot().activeRuns.length === 0);
    expect(plain(session.getSnapshot().messages)).toEqual(plain(client.chat.messages));
    leave();
    await eventually("nobody is connected", async () =>
      (await readers(client.id)).readers.every(({ connected }) => !connected),
    );
  });

  test("tools, reasoning and data come as they do on the other wire", async () => {
    for (const text of ["call weather Lisbon", "think 3"]) {
      const { client } = openPage(major, fresh("parts"));
      await client.chat.sendMessage({ text });
      expect(client.errors).toEqual([]);
      const { messages } = await server.settled(client.id);
      if (major === 7) expect(plain(client.chat.messages)).toEqual(messages);
      else expect(client.text).toBe(textOf(messages.at(-1)));
    }
  });

  test("a reply that was over between the history and the first look is shown, once", async () => {
    const { client, sessions } = openPage(major, fresh("owed"));
    await sessions.open(client.id).send("count to 30 every 5 ms");
    const history = (await (await fetch(`${server.url}/api/chat/${client.id}/messages`)).json()) as History;
    expect(history.messages.length).toBe(1);
    await server.settled(client.id);
    const later = openPage(major, client.id, server.url, history.messages).client;
    await later.chat.resumeStream();
    await isWhole(later, counted(30));
  });

  test("a stop ends it on every device, and the words stay", async () => {
    const { client, sessions } = openPage(major, fresh("stop"));
    const other = openPage(major, client.id);
    const sent = client.chat.sendMessage({ text: "count to 500 every 10 ms" });
    await client.shows(4);
    const resumed = other.client.chat.resumeStream();
    await other.client.shows(4);
    const answer = await other.client.ours?.stop(client.id, { reason: "enough" });
    await Promise.all([sent, resumed]);
    expect(answer).toMatchObject({ status: "stopped", stopped: true });
    for (const one of [client, other.client]) {
      expect(one.chat.status).toBe("ready");
      expect(one.finishes).toMatchObject([{ isAbort: true, isError: false }]);
      expect(plain(one.assistants)).toEqual((await server.history(client.id)).messages.slice(-1));
    }
    expect(sessions.open(client.id).getSnapshot().runs.at(-1)).toMatchObject({ reason: "enough" });
  });

  test("a new message of another device interrupts it", async () => {
    const { client } = openPage(major, fresh("interrupt"));
    const other = openPage(major, client.id);
    const sent = client.chat.sendMessage({ text: "count to 500 every 10 ms" });
    await client.shows(4);
    await other.client.chat.sendMessage({ text: "count to 3 every 1 ms" });
    await sent;
    expect(client.finishes).toMatchObject([{ isAbort: true, isError: false }]);
    expect(other.client.text).toBe(counted(3));
  });

  test("a chat that lets go ends nothing, and reads the whole message when it resumes", async () => {
    const { client } = openPage(major, fresh("detach"));
    const sent = client.chat.sendMessage({ text: "count to 60 every 5 ms" });
    await client.shows(4);
    await client.chat.stop();
    await sent;
    expect(client.text.length).toBeLessThan(counted(60).length);
    await client.chat.resumeStream();
    expect(client.text).toBe(counted(60));
    expect((await server.calls(client.id)).called).toBe(1);
  });

  test("a reload shows the reply from its start, and it goes on", async () => {
    const { client } = openPage(major, fresh("reload"));
    const sent = client.chat.sendMessage({ text: "count to 60 every 5 ms" });
    await client.shows(4);
    const { messages } = await server.history(client.id);
    const again = openPage(major, client.id, server.url, messages);
    await again.client.chat.resumeStream();
    await sent;
    expect(again.client.text).toBe(counted(60));
    expect(plain(again.client.chat.messages)).toEqual((await server.settled(client.id)).messages);
  });

  test("resuming when nothing is active is nothing", async () => {
    const { client } = openPage(major, fresh("idle"));
    await client.chat.resumeStream();
    expect(client.chat.status).toBe("ready");
    expect(client.errors).toEqual([]);
    await client.chat.sendMessage({ text: "count to 3 every 1 ms" });
    await client.chat.resumeStream();
    expect(client.chat.status).toBe("ready");
    expect(client.errors).toEqual([]);
    expect(client.text).toBe(counted(3));
  });

  test("a new attempt and an edit", async () => {
    const { client } = openPage(major, fresh("branch"));
    await client.chat.sendMessage({ text: "count to 3 every 1 ms" });
    await client.chat.regenerate();
    expect(client.text).toBe(counted(3));
    const messageId = client.chat.messages[0]?.id as string;
    await client.chat.sendMessage({ text: "count to 4 every 1 ms", messageId });
    expect(client.text).toBe(counted(4));
    expect(client.errors).toEqual([]);
    expect(plain(client.chat.messages)).toEqual((await server.settled(client.id)).messages);
    expect((await server.calls(client.id)).called).toBe(3);
  });

  test("a reply that fails is told, once", async () => {
    const { client } = openPage(major, fresh("fail"));
    await client.chat.sendMessage({ text: "fail after 2" });
    expect(client.chat.status).toBe("error");
    expect(client.errors.map(({ message }) => message)).toEqual(["The reply failed. Please try again."]);
  });

  test("a reply that starts over is read anew", async () => {
    const { client } = openPage(major, fresh("restart"));
    await client.chat.sendMessage({ text: "restart after 300 ms" });
    await eventually("it is read anew", () => client.chat.status === "ready" && client.text === "new words");
    expect(client.errors.map(({ name }) => name)).toEqual(["StrandlineResyncError"]);
    expect(plain(client.assistants)).toEqual((await server.settled(client.id)).messages.slice(-1));
  });
});

describe("cut at every byte of the feed", () => {
  test.each([
    ["a new session", "count to 6 every 4 ms", 0],
    ["one that a page looks at", "count to 6 every 4 ms", 1],
  ] as const)("%s: one reply, told once", async (_, text, looks) => {
    let size = 0;
    await through(
      () => undefined,
      async (proxy) => {
        const { client, session } = openPage(7, fresh("size"), proxy.url);
        if (looks) session.subscribe(() => {});
        await client.chat.sendMessage({ text });
        size = Math.max(...proxy.requests.filter(isFeed).map(({ number }) => proxy.bytes[number] ?? 0));
      },
    );
    expect(size).toBeGreaterThan(2_000);
    const ids: string[] = [];
    let cuts = 0;
    await pool(range(Math.ceil(size / 3)), WIDTH, (step) =>
      trial(`feed ${looks}`, step, () =>
        through(
          // The first one of a new session is answered 404.
          (request, feeds) => (isFeed(request) && feeds === 2 ? { cutAfter: step * 3 } : undefined),
          async (proxy) => {
            const { client, session } = openPage(MAJORS[step % 3] as Major, fresh("byte"), proxy.url);
            const leave = looks ? session.subscribe(() => {}) : () => {};
            ids.push(client.id);
            await client.chat.sendMessage({ text });
            await isWhole(client, counted(6));
            if (proxy.requests.filter(isFeed).length > 2) cuts += 1;
            leave();
          },
        ),
      ),
    );
    const calls = await server.allCalls();
    expect(ids.map((id) => [id, calls[id]?.called])).toEqual(ids.map((id) => [id, 1]));
    expect(cuts).toBeGreaterThan(size / 3 / 3);
  });

  test("every request is cut, after a few bytes or many", async () => {
    const ids: string[] = [];
    await pool(range(36), WIDTH, (number) =>
      trial("many", number, (chance) =>
        through(
          () => ({ cutAfter: Math.floor(chance() < 1 / 4 ? 6_000 : chance() * 2_500) }),
          async (proxy) => {
            const { client } = openPage(MAJORS[number % 3] as Major, fresh("many"), proxy.url);
            ids.push(client.id);
            await client.chat.sendMessage({ text: "count to 40 every 3 ms" });
            await isWhole(client, counted(40));
            expect(proxy.requests.length).toBeGreaterThan(2);
          },
        ),
      ),
    );
    const calls = await server.allCalls();
    expect(ids.map((id) => calls[id]?.called)).toEqual(ids.map(() => 1));
  });
});

test("a killed server loses the reply, and the chat is told", async () => {
  const own = await TestServer.begin();
  try {
    const { client } = openPage(7, fresh("killed"), own.url);
    const sent = client.chat.sendMessage({ text: "count to 500 every 10 ms" });
    await client.shows(4);
    await own.restart("SIGKILL");
    await sent;
    expect(client.errors.map(({ message }) => message)).toEqual([
      "The server stopped before this reply was finished. What it said so far is kept.",
    ]);
    expect(plain(client.chat.messages)).toEqual((await own.settled(client.id)).messages);
  } finally {
    await own.close();
  }
});
