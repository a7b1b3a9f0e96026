/**
 * Branches, edits and deletes with real clients against the real server: session clients, a live TanStack AI chat and a
 * stock AI SDK page that is loaded all show the same tree and path, whoever changed it, also after a restart.
 */
import { createSessions, type Session, type Sessions } from "strandline";
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from "vitest";
import { open, plain, textOf } from "./chat.js";
import { type Message, TestServer } from "./server.js";
import { counted, eventually, fresh } from "./support.js";
import { hydrated, TanStackPage, textOf as textIn } from "./tanstack.js";

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

const RETRY = { minDelayMs: 1, maxDelayMs: 20, giveUpAfterMs: 30_000 };

let server: TestServer;
const closing: { close(): void }[] = [];
beforeAll(async () => {
  server = await TestServer.begin();
});
afterEach(() => {
  for (const each of closing.splice(0)) each.close();
});
afterAll(() => server?.close());

function look(id: string): Session {
  const sessions: Sessions = createSessions({ url: `${server.url}/api/sessions`, retry: RETRY });
  closing.push(sessions);
  const session = sessions.open(id);
  session.subscribe(() => {});
  return session;
}

const say = (to: number) => `count to ${to} every 1 ms`;
const textsOf = (session: Session) => session.getSnapshot().messages.map((one) => textOf(one as Message));
const placesOf = (session: Session) =>
  Object.fromEntries(
    Object.entries(session.getSnapshot().branches).map(([id, { index, count }]) => [id, [index, count]]),
  );
const text = (words: string) => [{ type: "text", text: words }];

async function asked(session: Session, ...args: Parameters<Session["send"]>): Promise<string> {
  const { run, messageId } = await session.send(...args);
  await eventually("it was answered", () =>
    session.getSnapshot().runs.some(({ id, status }) => id === run && status === "completed"),
  );
  return messageId;
}

/** Every client shows these texts, and those that know of branches the same ones; so does a page that is loaded now. */
async function agree(texts: string[], pages: Session[], threads: TanStackPage[] = []): Promise<void> {
  const [first] = pages as [Session];
  for (const page of pages) {
    const isThere = () => JSON.stringify(textsOf(page)) === JSON.stringify(texts);
    await eventually("the page shows it", isThere).catch(() => expect(textsOf(page)).toEqual(texts));
    await eventually("the branches are the same", () => {
      expect(page.getSnapshot().branches).toEqual(first.getSnapshot().branches);
      return true;
    });
  }
  const { client, done, history } = await open({
    major: 7,
    kind: "stock",
    url: server.url,
    id: first.id,
  });
  await done;
  expect(client.chat.messages.map(textOf)).toEqual(texts);
  expect((history as unknown as { branches: object }).branches).toEqual(first.getSnapshot().branches);
  const fromElsewhere = look(first.id);
  await eventually("it is loaded", () => fromElsewhere.getSnapshot().status === "live");
  expect(plain(fromElsewhere.getSnapshot().messages)).toEqual(plain(first.getSnapshot().messages));
  expect(fromElsewhere.getSnapshot().branches).toEqual(first.getSnapshot().branches);
  const { messages } = await hydrated(server.url, first.id);
  expect(messages.map(textIn)).toEqual(texts);
  for (const thread of threads) {
    const isThere = () => JSON.stringify(thread.messages.map(textIn)) === JSON.stringify(texts);
    await eventually("the thread shows it", isThere).catch(() =>
      expect(thread.messages.map(textIn)).toEqual(texts),
    );
  }
}

describe("a tree of answers and questions", () => {
  test("is the same everywhere, whoever goes where", async () => {
    const id = fresh("tree");
    const [here, there] = [look(id), look(id)] as [Session, Session];
    const first = await asked(here, { id: "u1", parts: text(say(2)) });
    const thread = TanStackPage.live({ url: server.url, thread: id });
    closing.push(thread);
    const replies = [first];
    for (const _ of [1, 2, 3]) replies.push(await asked(here, undefined, { trigger: "regenerate-message" }));
    const newest = replies.at(-1) as string;
    await agree([say(2), counted(2)], [here, there], [thread]);
    expect(placesOf(there)).toEqual({ [newest]: [3, 4] });
    expect(there.getSnapshot().branches[newest]?.versions).toEqual(replies);

    await there.selectBranch(newest, 1);
    const second = replies[1] as string;
    await eventually("both have gone there", () =>
      [here, there].every((page) => page.getSnapshot().messages.at(-1)?.id === second),
    );
    expect(placesOf(here)).toEqual({ [second]: [1, 4] });
    await asked(here, { id: "u2", parts: text(say(3)) });
    await agree([say(2), counted(2), say(3), counted(3)], [here, there], [thread]);

    await asked(there, { id: "u1", parts: text(say(4)) }, { messageId: "u1" });
    await agree([say(4), counted(4)], [here, there], [thread]);
    expect(placesOf(here)).toEqual({ u1: [1, 2] });
    await here.selectBranch("u1", 0);
    await agree([say(2), counted(2), say(3), counted(3)], [here, there], [thread]);
    expect(placesOf(there)).toEqual({ u1: [0, 2], [second]: [1, 4] });
  });

  test("what is written on a branch that is not shown goes on, and is there when one comes back", async () => {
    const id = fresh("aside");
    const [here, there] = [look(id), look(id)] as [Session, Session];
    const first = await asked(here, { id: "u1", parts: text(say(2)) });
    const thread = TanStackPage.live({ url: server.url, thread: id });
    closing.push(thread);
    const { messageId } = await here.send(undefined, { trigger: "regenerate-message" });
    await here.stop();
    const running = await here.send({ id: "u2", parts: text("count to 60 every 20 ms") });
    await eventually("it has begun", () => textsOf(there).at(-1)?.startsWith("1 ") === true);
    await there.selectBranch(messageId, 0);
    await agree([say(2), counted(2)], [here, there], [thread]);
    expect(here.getSnapshot().messages.at(-1)?.id).toBe(first);
    expect(here.getSnapshot().activeRuns.map((run) => run.id)).toEqual([running.run]);
    await here.selectBranch(running.messageId, 0);
    await eventually("it is shown again", () => textsOf(there).at(-1)?.startsWith("1 2 ") === true);
    await eventually("it is over", () => there.getSnapshot().activeRuns.length === 0, 20_000);
    expect(textsOf(there).at(-1)).toBe(counted(60));
    await eventually("the thread has it", () => thread.text === counted(60), 20_000);
  });
});

describe("a message that is edited in place, or deleted", () => {
  test("is that on every device, and stays it over a restart", async () => {
    const id = fresh("edits");
    const [here, there] = [look(id), look(id)] as [Session, Session];
    await asked(here, { id: "u1", parts: text(say(2)) });
    await asked(here, { id: "u2", parts: text(say(3)) });
    const thread = TanStackPage.live({ url: server.url, thread: id });
    closing.push(thread);
    await there.edit("u1", text("never mind"));
    await agree(["never mind", counted(2), say(3), counted(3)], [here, there], [thread]);
    expect(there.getSnapshot().info?.title).toBe("never mind");
    expect(here.getSnapshot().info?.title).toBe("never mind");
    await here.delete("u2");
    await agree(["never mind", counted(2), counted(3)], [here, there], [thread]);
    await here.delete("u2"); // once more
    await there.delete(there.getSnapshot().messages.at(-1)?.id as string);
    await agree(["never mind", counted(2)], [here, there], [thread]);
    await server.restart("SIGKILL");
    await agree(["never mind", counted(2)], [here, there], [thread]);
    await asked(there, { id: "u3", parts: text(say(4)) });
    await agree(["never mind", counted(2), say(4), counted(4)], [here, there], [thread]);
  });

  test("whatever two devices do at once, they end in the same place", async () => {
    const id = fresh("race");
    const [here, there] = [look(id), look(id)] as [Session, Session];
    await asked(here, { id: "u1", parts: text(say(2)) });
    const reply = await asked(here, undefined, { trigger: "regenerate-message" });
    await eventually("both know it", () => there.getSnapshot().messages.at(-1)?.id === reply);
    const results = await Promise.allSettled([
      here.delete(reply),
      there.selectBranch(reply, 0),
      there.edit("u1", text("there")),
      here.edit("u1", text("here")),
      there.delete(reply),
    ]);
    expect(results.filter(({ status }) => status === "fulfilled").length).toBeGreaterThanOrEqual(4);
    await eventually("one of them won", () => textsOf(here)[0] === textsOf(there)[0]);
    await agree([textsOf(here)[0] as string, counted(2)], [here, there]);
    expect(["here", "there"]).toContain(textsOf(here)[0]);
    expect(here.getSnapshot().branches).toEqual({});
  });

  test("is not edited by a browser when an agent has said it", async () => {
    const page = look(fresh("refused"));
    const reply = await asked(page, { id: "u1", parts: text(say(2)) });
    await expect(page.edit(reply, text("x"))).rejects.toMatchObject({
      status: 403,
      problem: "not-a-user-message",
    });
    await expect(page.delete("nobody")).rejects.toMatchObject({ status: 404 });
  });
});
