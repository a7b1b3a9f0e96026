/** Annotations: two devices of a session see the same summaries, live and after a reload (PROTOCOL §19). */
import { createSessions, type Session, type Sessions } from "strandline";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { TestServer } from "./server.js";
import { eventually, fresh } from "./support.js";

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
