/** Annotations: two devices of a session see the same summaries, live and after a reload (PROTOCOL §19). */
import { createSessions, type Session, type Sessions } from "strandline";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { TestServer } from "./server.js";
import { eventually, fresh } from "./support.js";
import { TanStackPage } from "./tanstack.js";

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

let server: TestServer;
const opened: Sessions[] = [];
beforeAll(async () => {
  server = await TestServer.begin();
});
afterEach(() => {
  for (const sessions of opened.splice(0)) sessions.close();
});
afterAll(() => server?.close());

function look(id: string): Session {
  const sessions = createSessions({ url: `${server.url}/api/sessions` });
  opened.push(sessions);
  const session = sessions.open(id);
  session.subscribe(() => {});
  return session;
}

test("what one device says of a message all have, whenever they come", async () => {
  const id = fresh("annotated");
  const phone = look(id);
  await phone.send("count to 3 every 1 ms");
  await eventually("the reply", () => phone.getSnapshot().runs.at(-1)?.status === "completed");
  const laptop = look(id);
  const reply = phone.getSnapshot().messages.at(-1)?.id as string;
  const url = "https://en.example/three";
  await phone.annotate({
    message: reply,
    type: "citation",
    data: { url },
    range: { part: 1, start: 0, end: 1 },
  });
  const mine = await laptop.annotate({ message: reply, type: "reaction", data: { name: "👍" } });
  await laptop.annotate({ message: reply, type: "citation", data: { url: "https://en.example/one" } });
  const said = {
    [reply]: {
      citation: { count: 2, names: { "en.example": 2 } },
      reaction: { count: 1, names: { "👍": 1 } },
    },
  };
  for (const device of [phone, laptop, look(id)]) {
    await eventually("all summaries", () => device.getSnapshot().annotations[reply]?.citation?.count === 2);
    expect(device.getSnapshot().annotations).toEqual(said);
  }
  await laptop.unannotate(mine);
  await laptop.unannotate(mine);
  const { [reply]: all } = said;
  for (const device of [phone, laptop, look(id)]) {
    await eventually("the removal", () => {
      const summaries = device.getSnapshot().annotations[reply];
      return summaries?.citation !== undefined && summaries.reaction === undefined;
    });
    expect(device.getSnapshot().annotations).toEqual({ [reply]: { citation: all?.citation } });
  }
  await expect(phone.annotate({ message: reply, type: "Citation" })).rejects.toMatchObject({ status: 422 });
});

interface Noted {
  strandline?: { annotations?: Record<string, unknown> };
}

test("a TanStack chat has them in the metadata of its messages, live and after a reload", async () => {
  const thread = fresh("annotated");
  const session = look(thread);
  const page = TanStackPage.live({ url: server.url, thread });
  const notes = (of: TanStackPage) =>
    Object.fromEntries(
      of.messages.map(({ id, metadata }) => [id, (metadata as Noted)?.strandline?.annotations ?? {}]),
    );
  await page.chat.sendMessage("count to 3 every 1 ms");
  const [asked, reply] = page.messages.map(({ id }) => id) as [string, string];
  const heart = { type: "reaction", data: { name: "heart" } };
  const first = await session.annotate({ message: asked, ...heart });
  await session.annotate({ message: reply, ...heart });
  await session.annotate({ message: reply, type: "grade", data: 5 });
  const reaction = { count: 1, names: { heart: 1 } };
  const both = { reaction, grade: { count: 1 } };
  const shows = (of: TanStackPage, said: object) =>
    eventually("it shows them", () => {
      expect(notes(of)).toEqual(said);
      return true;
    });
  await shows(page, { [asked]: { reaction }, [reply]: both });
  expect(page.customs.map(({ name, value }) => [name, value.message, value.type])).toEqual([
    ["strandline.annotated", asked, "reaction"],
    ["strandline.annotated", reply, "reaction"],
    ["strandline.annotated", reply, "grade"],
  ]);
  const stock = TanStackPage.opened({ url: server.url, thread });
  const again = TanStackPage.live({ url: server.url, thread });
  for (const each of [stock, again]) await shows(each, { [asked]: { reaction }, [reply]: both });
  // What was loaded and what is told later come together; what is taken back goes.
  await session.annotate({ message: asked, type: "grade", data: 1 });
  await session.unannotate(first);
  for (const each of [page, again]) await shows(each, { [asked]: { grade: { count: 1 } }, [reply]: both });
  // One that is said of a reply while that is written, before it has said a word.
  const sent = page.chat.sendMessage("think 3");
  await eventually("it is written", async () => (await server.history(thread)).activeRun);
  const { messageId } = (await server.history(thread)).activeRun as { messageId: string };
  await session.annotate({ message: messageId, ...heart });
  await sent;
  for (const each of [page, again])
    await eventually("it shows it", () => {
      expect(notes(each)[messageId]).toEqual({ reaction });
      return true;
    });
  for (const each of [page, stock, again]) each.close();
});
