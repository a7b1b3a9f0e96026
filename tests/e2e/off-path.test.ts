/**
 * What happens on a branch that is not shown, or stops being shown while it happens: real session clients on two devices, the
 * real server. Both always end with what a page shows that is loaded now.
 */
import { createSessions, type Session } from "strandline";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { plain, textOf } from "./chat.js";
import { type Message, TestServer } from "./server.js";
import { counted, eventually, fresh } from "./support.js";

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
  const sessions = createSessions({ url: `${server.url}/api/sessions`, retry: RETRY });
  closing.push(sessions);
  const session = sessions.open(id);
  session.subscribe(() => {});
  return session;
}
const devices = (name: string): [Session, Session] => {
  const id = fresh(name);
  return [look(id), look(id)];
};

const say = (to: number, ms = 1) => `count to ${to} every ${ms} ms`;
const text = (words: string) => [{ type: "text", text: words }];
const shown = (session: Session) => session.getSnapshot().messages.map((one) => textOf(one as Message));
const until = (what: string, look: () => unknown) => eventually(what, () => Boolean(look()));

async function asked(session: Session, ...args: Parameters<Session["send"]>): Promise<string> {
  const { run, messageId } = await session.send(...args);
  await until("it was answered", () =>
    session.getSnapshot().runs.some(({ id, endedAt }) => id === run && endedAt !== null),
  );
  return messageId;
}

/** Both show these texts, the same in everything, and so does a page that is loaded now. */
async function agree(texts: string[], ...pages: Session[]): Promise<void> {
  for (const page of pages)
    await until("nothing is written", () => page.getSnapshot().activeRuns.length === 0);
  const loaded = look(pages[0]?.id as string);
  await until("it is loaded", () => loaded.getSnapshot().status === "live");
  const parts = (session: Session) => {
    const { messages, branches, authors, decisions, annotations, activeRuns, info } = session.getSnapshot();
    return plain({ messages, branches, authors, decisions, annotations, activeRuns, info });
  };
  expect(shown(loaded)).toEqual(texts);
  for (const page of pages)
    await eventually("the page shows that", () => {
      expect(parts(page)).toEqual(parts(loaded));
      return true;
    });
}

/** u1 with two versions: the first was answered, the second asks; the first is shown. Its decision is pending. */
async function waitingElsewhere(name: string): Promise<{ pages: [Session, Session]; decision: string }> {
  const pages = devices(name);
  const [here, there] = pages;
  await asked(here, { id: "u1", parts: text(say(2)) });
  await asked(here, { id: "u1", parts: text("ask approval politely") }, { messageId: "u1" });
  await until("it is asked", () => there.getSnapshot().decisions.length === 1);
  await there.selectBranch("u1", 0);
  for (const page of pages) await until("it has gone there", () => shown(page)[1] === counted(2));
  return { pages, decision: there.getSnapshot().decisions[0]?.id as string };
}

test("a reply that goes on where nobody looks changes nothing of what is shown", async () => {
  const { pages, decision } = await waitingElsewhere("elsewhere");
  const [here, there] = pages;
  const before = pages.map((page) => page.getSnapshot().messages);
  const seen: string[] = [];
  const kinds: string[] = [];
  here.onEvent(({ type }) => {
    kinds.push(type);
    seen.push(JSON.stringify(shown(here)));
  });
  await here.decide(decision, { approved: true });
  await until("it has gone on", () => here.getSnapshot().runs.at(-1)?.status === "completed");
  await until("the other knows", () => there.getSnapshot().runs.at(-1)?.status === "completed");
  expect(pages.map((page) => page.getSnapshot().messages)).toEqual(before);
  expect([...new Set(seen)]).toEqual([JSON.stringify([say(2), counted(2)])]);
  expect(kinds).toContain("appended");
  expect(kinds, "it need not be read anew").not.toContain("snapshot");
  for (const page of pages) expect(page.getSnapshot().decisions).toEqual([]);
  await agree([say(2), counted(2)], ...pages);
  await here.selectBranch("u1", 1);
  const whole = ["ask approval politely", "Please. refund: approved "];
  await until("it is shown", () => shown(there)[1] === whole[1]);
  await agree(whole, ...pages);
  expect(here.getSnapshot().branches.u1).toMatchObject({ index: 1, count: 2 });
});

test("somebody goes to a branch while it goes on there, and away again", async () => {
  const { pages, decision } = await waitingElsewhere("meanwhile");
  const [here, there] = pages;
  await here.decide(decision, { approved: true });
  await there.selectBranch("u1", 1);
  await until("both see it", () => pages.every((page) => shown(page)[0] === "ask approval politely"));
  await agree(["ask approval politely", "Please. refund: approved "], ...pages);
  await there.selectBranch("u1", 0);
  await until("both have left", () => pages.every((page) => shown(page)[1] === counted(2)));
  await agree([say(2), counted(2)], ...pages);
});

test("places among siblings hold when what is decided goes on", async () => {
  const [here, there] = devices("places");
  await asked(here, { id: "u1", parts: text("ask approval") });
  const second = await asked(here, undefined, { trigger: "regenerate-message" });
  await until("it is asked", () => there.getSnapshot().decisions.length === 1);
  const place = { index: 1, count: 2 };
  expect(there.getSnapshot().branches[second]).toMatchObject(place);
  await there.decide(there.getSnapshot().decisions[0]?.id as string, { approved: false });
  await until("it has gone on", () => shown(here)[1] === "refund: denied ");
  for (const page of [here, there]) expect(page.getSnapshot().branches[second]).toMatchObject(place);
  await agree(["ask approval", "refund: denied "], here, there);
});

test("two siblings are deleted in a row", async () => {
  const [here, there] = devices("deleted");
  const replies = [await asked(here, { id: "u1", parts: text(say(2)) })];
  for (const _ of [1, 2, 3]) replies.push(await asked(here, undefined, { trigger: "regenerate-message" }));
  await asked(here, { id: "u2", parts: text(say(3)) });
  const [first, second, third, fourth] = replies as [string, string, string, string];
  await Promise.all([here.delete(first), there.delete(third)]);
  await until("both know", () =>
    [here, there].every((page) => page.getSnapshot().branches[fourth]?.count === 2),
  );
  expect(there.getSnapshot().branches[fourth]).toEqual({ index: 1, count: 2, versions: [second, fourth] });
  await agree([say(2), counted(2), say(3), counted(3)], here, there);
  await there.delete(second);
  await until("it is the only one", () => here.getSnapshot().branches[fourth] === undefined);
  await agree([say(2), counted(2), say(3), counted(3)], here, there);
});

test("a question is edited while its answer streams", async () => {
  const [here, there] = devices("edit");
  await here.send({ id: "u1", parts: text(say(400, 5)) });
  await until("it streams", () => (shown(there)[1]?.length ?? 0) > 10);
  await there.send({ id: "u1", parts: text(say(4)) }, { messageId: "u1" });
  await until("the new one is answered", () => shown(here)[1] === counted(4));
  await agree([say(4), counted(4)], here, there);
  expect(here.getSnapshot().branches.u1).toMatchObject({ index: 1, count: 2 });
  await here.selectBranch("u1", 0);
  await until("the half reply is there", () => shown(there)[0] === say(400, 5));
  expect(counted(400).startsWith(shown(there)[1] as string)).toBe(true);
  await agree(shown(there), here, there);
});

test("an annotation of a message that is deleted goes with it, and none comes after", async () => {
  const [here, there] = devices("annotated");
  const reply = await asked(here, { id: "u1", parts: text(say(2)) });
  await asked(here, { id: "u2", parts: text(say(3)) });
  await there.annotate({ message: reply, type: "reaction", data: { name: "+1" } });
  await until("it is counted", () => here.getSnapshot().annotations[reply]?.reaction?.count === 1);
  await here.delete(reply);
  await until("it is gone", () => there.getSnapshot().annotations[reply] === undefined);
  await expect(
    there.annotate({ message: reply, type: "reaction", data: { name: "+1" } }),
  ).rejects.toMatchObject({
    status: 404,
  });
  await agree([say(2), say(3), counted(3)], here, there);
});

test.each(["the one that sent it", "the other one"])(
  "the branch is switched while a reply streams, by %s, and back",
  async (who) => {
    const [here, there] = devices("switch");
    await asked(here, { id: "u1", parts: text(say(2)) });
    await asked(here, undefined, { trigger: "regenerate-message" });
    const { run } = await here.send({ id: "u2", parts: text(say(500, 5)) });
    await until("it streams", () => (shown(there)[3]?.length ?? 0) > 10);
    const by = who === "the other one" ? there : here;
    const second = by.getSnapshot().messages[1]?.id as string;
    await by.selectBranch(second, 0);
    for (const page of [here, there]) {
      await until("it has gone there", () => shown(page).length === 2);
      expect(page.getSnapshot().activeRuns.map(({ id }) => id)).toEqual([run]);
    }
    const [first] = by.getSnapshot().messages.slice(1);
    await by.selectBranch(first?.id as string, 1);
    await until("both are back, in the middle of it", () =>
      [here, there].every((page) => shown(page)[3]?.startsWith(counted(3))),
    );
    expect(here.getSnapshot().activeRuns.length).toBe(1);
    await until("it is over", () => there.getSnapshot().activeRuns.length === 0);
    await agree([say(2), counted(2), say(500, 5), counted(500)], here, there);
  },
);
