/** The session client against the real server: two pages of one session show the same, whatever happens between. */
import { createSessions, type Session, type Sessions, type SessionsOptions } from "strandline";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { plain } from "./chat.js";
import { CuttingProxy } from "./proxy.js";
import { CRAMPED, TestServer } from "./server.js";
import { counted, eventually, fresh, pool, range, trial } from "./support.js";

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

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

function createClient(options: SessionsOptions = {}): Sessions {
  const sessions = createSessions({ url: `${server.url}/api/sessions`, retry: RETRY, ...options });
  opened.push(sessions);
  return sessions;
}

function look(id: string, options: SessionsOptions = {}): Session {
  const session = createClient(options).open(id);
  session.subscribe(() => {});
  return session;
}

const isLive = (session: Session) =>
  eventually(`${session.id} is live`, () => session.getSnapshot().status === "live");
const isIdle = (session: Session) =>
  eventually(`${session.id} is idle`, () => {
    const { activeRuns, messages, status } = session.getSnapshot();
    return status === "live" && activeRuns.length === 0 && messages.every(({ pending }) => !pending);
  });
const shows = (session: Session, text: string) =>
  eventually(`${session.id} shows ${text}`, () => textOf(session).startsWith(text));
const textOf = (session: Session) =>
  (session.getSnapshot().messages.at(-1)?.parts ?? []).map(({ text }) => text ?? "").join("");

const readersOf = async (id: string) =>
  (await (await fetch(`${server.url}/api/sessions/${id}/readers`)).json()) as {
    readers: { connected: boolean; acknowledged: string | null }[];
    cursor: string;
  };

/** Both pages, and the server's history, say the same. */
async function agree(...sessions: [Session, ...Session[]]) {
  const { messages } = await server.settled(sessions[0].id);
  for (const session of sessions) {
    await isIdle(session);
    expect(plain(session.getSnapshot().messages)).toEqual(messages);
  }
}

describe("two pages of one session", () => {
  test("that is not there yet: the other one notices, and both know its title and when it changed", async () => {
    const pages = [look(fresh("absent")), look(fresh("absent"))] as [Session, Session];
    pages[1] = look(pages[0].id);
    await eventually("it is absent", () => pages.every((page) => page.getSnapshot().status === "absent"));
    await pages[0].send("count to 3 every 1 ms");
    await agree(...pages);
    const [question] = pages[0].getSnapshot().messages;
    await pages[1].send("count to 4 every 1 ms", { messageId: question?.id as string });
    await eventually("it was edited", () =>
      pages.every(
        (page) => page.getSnapshot().runs.at(-1)?.status === "completed" && textOf(page) === counted(4),
      ),
    );
    await agree(...pages);
    const { sessions } = await createClient().list();
    const info = sessions.find(({ id }) => id === pages[0].id);
    for (const page of pages) expect(page.getSnapshot().info).toEqual(info);
  });

  test("that was made without a title know the one that its first message gives it", async () => {
    const client = createClient();
    const { id } = await client.create();
    const page = look(id);
    await isLive(page);
    const { run } = await page.send(`count to 2 every 1 ms \n  ${"🌊 ".repeat(100)}`);
    await page.stop({ run });
    await isIdle(page);
    const { sessions } = await client.list();
    expect(page.getSnapshot().info).toEqual(sessions.find((one) => one.id === id));
    expect(page.getSnapshot().info?.title).toMatch(/^count to 2 every 1 ms 🌊.*…$/u);
  });

  test("and of another one, in a tab that was duplicated: each is one reader, which acknowledges", async () => {
    const tab = () => {
      const kept = new Map([["strandline-reader", fresh("name")]]);
      return {
        getItem: (key: string) => kept.get(key) ?? null,
        setItem: (key: string, name: string) => void kept.set(key, name),
      };
    };
    const [first, second] = [tab(), tab()];
    second.setItem("strandline-reader", first.getItem("strandline-reader") as string);
    const ids = [fresh("tab"), fresh("tab")];
    const name = first.getItem("strandline-reader");
    const client = createClient({ storage: first });
    const pages = ids.map((id) => client.open(id));
    for (const page of pages) {
      await page.send("count to 2 every 1 ms");
      page.subscribe(() => {});
      await isIdle(page);
    }
    const copy = createClient({ storage: second });
    for (const [index, id] of ids.entries()) {
      copy.open(id).subscribe(() => {});
      const page = pages[index] as Session;
      await eventually("it has another name", () => page.getSnapshot().reader !== name);
      await isLive(page);
    }
    expect(new Set(pages.map((page) => page.getSnapshot().reader)).size).toBe(1);
    for (const id of ids) {
      await copy.open(id).send("count to 2 every 1 ms");
      await eventually("both have said that they have it all", async () => {
        const { readers, cursor } = await readersOf(id);
        const here = readers.filter(({ connected }) => connected);
        return here.length === 2 && here.every(({ acknowledged }) => acknowledged === cursor);
      });
    }
  });

  test("see each other's messages, replies, stops, new attempts and edits", async () => {
    const id = fresh("two");
    const one = look(id);
    const two = look(id);
    await one.send("count to 20 every 5 ms");
    two.poke();
    await shows(two, counted(2));
    await agree(one, two);

    await two.send("count to 500 every 5 ms");
    await shows(one, counted(2));
    expect(await one.stop({ reason: "enough" })).toMatchObject({ status: "stopped", stopped: true });
    await agree(one, two);
    expect(two.getSnapshot().runs.at(-1)).toMatchObject({ status: "stopped", reason: "enough" });

    const reply = one.getSnapshot().messages.at(-1)?.id;
    await one.send(undefined, { trigger: "regenerate-message", messageId: reply });
    await shows(two, counted(2));
    await two.stop();
    await agree(one, two);

    const question = one.getSnapshot().messages.at(-2)?.id as string;
    const message = { id: question, parts: [{ type: "text", text: "count to 3 every 1 ms" }] };
    await two.send(message, { messageId: question });
    await eventually("the edit is there", () => textOf(one) === counted(3));
    await agree(one, two);
    expect(one.getSnapshot().messages.length).toBe(4);
  });

  test("see tools, reasoning and data as the server stores them, also half of a reply", async () => {
    const id = fresh("parts");
    const one = look(id);
    for (const text of ["call weather Lisbon", "think 3"]) {
      await one.send(text);
      const two = look(id);
      await agree(one, two);
    }
  });

  test("a new attempt at once after loading follows the message that was loaded", async () => {
    const id = fresh("loaded");
    await look(id).send("count to 2 every 1 ms");
    await server.settled(id);
    const kinds: string[] = [];
    const session = look(id);
    session.onEvent(({ type }) => void kinds.push(type));
    await isLive(session);
    const reply = session.getSnapshot().messages.at(-1)?.id;
    await session.send(undefined, { trigger: "regenerate-message", messageId: reply });
    await agree(session);
    expect(session.getSnapshot().messages.at(-1)?.id).not.toBe(reply);
    expect(kinds.filter((kind) => kind === "snapshot").length).toBe(1);
  });

  test("agree with cuts anywhere", async () => {
    await pool(range(24), 6, (number) =>
      trial("cuts", number, async (chance) => {
        const proxy = await CuttingProxy.begin(server.port, () => ({
          cutAfter: Math.floor(chance() < 1 / 4 ? 8_000 : chance() * 3_000),
        }));
        try {
          const id = fresh("cuts");
          const url = `${proxy.url}/api/sessions`;
          const one = look(id, { url });
          await one.send("count to 40 every 3 ms");
          const two = look(id, { url });
          await one.send("count to 20 every 3 ms");
          await agree(one, two);
          expect(textOf(one)).toBe(counted(20));
        } finally {
          await proxy.close();
        }
      }),
    );
  });

  test("find out that the server was killed in the middle of a reply", async () => {
    const own = await TestServer.begin();
    try {
      const session = look(fresh("killed"), { url: `${own.url}/api/sessions` });
      await session.send("count to 500 every 10 ms");
      await shows(session, counted(2));
      await own.restart("SIGKILL");
      await eventually("it is lost", () => session.getSnapshot().runs.at(-1)?.status === "lost");
      expect(plain(session.getSnapshot().messages)).toEqual((await own.history(session.id)).messages);
    } finally {
      await own.close();
    }
  });
});

test("what was applied is acknowledged, and others see that", async () => {
  const id = fresh("ack");
  const session = look(id, { device: "phone" });
  await session.send("count to 5 every 1 ms");
  await isIdle(session);
  const other = look(id, { device: "desk" });
  const { cursor, reader } = session.getSnapshot();
  await eventually("the end was acknowledged", () =>
    other
      .getSnapshot()
      .readers.some((one) => one.id === reader && one.device === "phone" && one.acknowledged === cursor),
  );
});

test("the list, a new title, the archive, and a deletion that everybody sees", async () => {
  const client = createClient();
  const made = await client.create({ id: fresh("list"), title: "Rain" });
  expect(made).toMatchObject({ title: "Rain", archived: false });
  const session = look(made.id);
  await isLive(session);
  await client.rename(made.id, "Sun");
  await client.archive(made.id);
  await eventually("it is told", () => session.getSnapshot().info?.archived);
  expect(session.getSnapshot().info?.title).toBe("Sun");
  const ids = async (archived: boolean | "any") =>
    (await client.list({ archived, limit: 200 })).sessions.map(({ id }) => id);
  expect(await ids(true)).toContain(made.id);
  expect(await ids(false)).not.toContain(made.id);
  await client.delete(made.id);
  await eventually("it is deleted", () => session.getSnapshot().status === "deleted");
  expect(await ids("any")).not.toContain(made.id);
  await client.delete(made.id);
});

test("older messages are loaded a page at a time", async () => {
  const id = fresh("pages");
  const writer = look(id);
  for (let n = 1; n <= 4; n++) {
    await writer.send(`count to ${n} every 1 ms`);
    await server.settled(id);
  }
  const session = look(id, { pageSize: 3 });
  await isLive(session);
  expect(session.getSnapshot().messages.length).toBe(3);
  while (session.getSnapshot().hasOlder) await session.loadOlder();
  await agree(session);
});
