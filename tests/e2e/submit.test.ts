/** Messages that come while a reply streams, under the policies that do not end it: real chats, real server. */
import { createSessions, type Session } from "strandline";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { Client, COMBINATIONS, open, plain, textOf } from "./chat.js";
import { TestServer } from "./server.js";
import { counted, eventually, fresh, pause, range, trial } from "./support.js";
import { agrees, idle, TanStackPage, textOf as textIn } from "./tanstack.js";

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

let server: TestServer;
beforeAll(async () => {
  server = await TestServer.begin();
});
afterAll(() => server?.close());

type Policy = "queue" | "steer";

describe.each(COMBINATIONS)("$name", ({ major, kind }) => {
  const begin = (id: string, submit?: Policy) => {
    // A stock client of ai 5 or 6 does not know the chunk by which an agent acknowledges what it was told.
    const client = { "Strandline-Client": `test; ai=${major}` };
    const headers = submit ? { ...client, "Strandline-Submit": submit } : client;
    return {
      major,
      kind,
      url: server.url,
      id,
      ...(kind === "ours" ? { transport: { submit } } : { headers }),
    };
  };

  test("what another page tells the agent: that page is ready at once and shows no reply to it", async () => {
    const id = fresh("steer");
    const client = new Client(begin(id) as never);
    const first = client.chat.sendMessage({ text: "attend 60 every 15 ms" });
    await client.shows(counted(5).length);
    const other = new Client(begin(id, "steer") as never);
    await other.chat.sendMessage({ text: "faster" });
    expect(other.chat.status).toBe("ready");
    expect(other.errors).toEqual([]);
    expect(other.chat.messages.map(({ role }) => role)).toEqual(["user"]);
    await first;
    expect(client.chat.status).toBe("ready");
    expect(client.text).toMatch(/^1 2 3 4 5 .*\(faster\) .* 60 $/);
    const history = await server.settled(id);
    expect(history.messages.map(({ role }) => role)).toEqual(["user", "assistant"]);
    expect(textOf(history.messages[1])).toBe(client.text);
    expect(plain((await client.reload()).chat.messages)).toEqual(history.messages);
  });

  test("what another page queues: it waits for its turn, then streams, and is in order everywhere", async () => {
    const id = fresh("queue");
    const client = new Client(begin(id) as never);
    const first = client.chat.sendMessage({ text: "count to 60 every 10 ms" });
    await client.shows(counted(5).length);
    const other = new Client(begin(id, "queue") as never);
    const second = other.chat.sendMessage({ text: "count to 7 every 2 ms" });
    await eventually("it is queued", async () => (await statuses(id)).join() === "running,queued");
    // A page that is loaded now shows the reply that is being written where it belongs.
    const { client: late, done } = await open(begin(id) as never);
    await Promise.all([first, second, done]);
    expect(textOf(late.chat.messages.at(-1))).toBe(counted(60));
    expect([client, other].map(({ chat }) => chat.status)).toEqual(["ready", "ready"]);
    expect(other.text).toBe(counted(7));
    const { messages } = await server.settled(id);
    expect(messages.map(textOf)).toEqual([
      "count to 60 every 10 ms",
      counted(60),
      "count to 7 every 2 ms",
      counted(7),
    ]);
    expect(plain((await late.reload()).chat.messages)).toEqual(messages);
  });

  test.each(["steer", "queue"] as const)("what the page itself may %s", async (submit) => {
    const client = new Client(begin(fresh("same"), submit) as never);
    const first = client.chat.sendMessage({ text: "attend 60 every 10 ms" });
    await client.shows(counted(5).length);
    const [run] = Object.values((await server.history(client.id)).activeRun ?? {});
    await client.chat.sendMessage({ text: submit === "steer" ? "faster" : "count to 3 every 1 ms" });
    // A stop still means the reply that is being written.
    if (kind === "ours" && submit === "steer") expect(client.ours?.activeRun(client.id)?.run).toBe(run);
    await first;
    expect(client.chat.status).toBe("ready");
    expect(client.errors).toEqual([]);
    const { messages } = await server.settled(client.id);
    const shown = client.chat.messages.map(textOf);
    if (submit === "queue") expect(shown).toEqual(messages.map(textOf));
    else expect(shown).toEqual([...messages.map(textOf), "faster"]);
    expect(shown[1]).toMatch(submit === "steer" ? /^1 2 3 .*\(faster\) .* 60 $/ : /^1 2 3 .* 60 $/);
  });

  test("what is queued and taken back leaves a page that is ready", async () => {
    const id = fresh("taken-back");
    const client = new Client(begin(id) as never);
    const first = client.chat.sendMessage({ text: "relay 2000 every 5 ms" });
    await client.shows(counted(5).length);
    const other = new Client(begin(id, "queue") as never);
    const second = other.chat.sendMessage({ text: "count to 7 every 2 ms" });
    await eventually("it is queued", async () => (await statuses(id)).join() === "running,queued");
    await server.stop(id, { messageId: other.chat.messages[0]?.id as string });
    await second;
    expect(other.chat.status).toBe("ready");
    expect(other.errors).toEqual([]);
    expect(other.text).toBe("");
    expect(await statuses(id)).toEqual(["running", "stopped"]);
    await server.stop(id);
    await first;
  });
});

describe("TanStack AI", () => {
  const headers = (submit: Policy) => ({ "Strandline-Submit": submit });

  test("stock: what another page tells the agent", async () => {
    const thread = fresh("steer");
    const page = TanStackPage.opened({ url: server.url, thread });
    const first = page.chat.sendMessage("attend 60 every 15 ms");
    await page.begun(10);
    const other = new TanStackPage({
      url: server.url,
      thread,
      persistence: false,
      headers: headers("steer"),
    });
    await other.chat.sendMessage("faster");
    await idle(other);
    expect(other.errors).toEqual([]);
    expect(other.messages.map(({ role }) => role)).toEqual(["user"]);
    expect(other.customs.map(({ name }) => name)).toEqual(["strandline-steered"]);
    await first;
    expect(page.replies.map(textIn).join("")).toMatch(/^1 2 3 .*\(faster\) .* 60 $/);
    expect(page.customs.map(({ name }) => name)).toContain("steering-message");
    expect(page.errors).toEqual([]);
    page.close();
    other.close();
  });

  test("stock: what another page queues", async () => {
    const thread = fresh("queue");
    const page = TanStackPage.opened({ url: server.url, thread });
    const first = page.chat.sendMessage("count to 60 every 10 ms");
    await page.begun(10);
    const other = new TanStackPage({
      url: server.url,
      thread,
      persistence: false,
      headers: headers("queue"),
    });
    const second = other.chat.sendMessage("count to 7 every 2 ms");
    await eventually("it is queued", async () => (await statuses(thread)).join() === "running,queued");
    const late = TanStackPage.opened({ url: server.url, thread });
    await late.shows(counted(60));
    await Promise.all([first, second]);
    await other.shows(counted(7));
    expect([page, other, late].flatMap(({ errors }) => errors)).toEqual([]);
    const again = late.reloaded();
    await again.shows(counted(7));
    expect(again.messages.map(textIn)).toEqual([
      "count to 60 every 10 ms",
      counted(60),
      "count to 7 every 2 ms",
      counted(7),
    ]);
    for (const each of [page, other, again]) each.close();
  });

  test.each(["queue", "steer"] as const)("ours: two live pages, one of which may %s", async (submit) => {
    const thread = fresh(`live-${submit}`);
    const page = TanStackPage.live({ url: server.url, thread });
    const first = page.chat.sendMessage("attend 60 every 15 ms");
    await page.begun(10);
    const other = TanStackPage.live({ url: server.url, thread, ours: { submit } });
    await other.begun(10);
    await other.chat.sendMessage("count to 7 every 2 ms");
    await first;
    await agrees(server, page, other);
    expect(other.errors).toEqual([]);
    for (const each of [page, other]) each.close();
  });
});

async function statuses(id: string): Promise<string[]> {
  const response = await fetch(`${server.url}/api/sessions/${id}`);
  return ((await response.json()) as { runs: { status: string }[] }).runs.map(({ status }) => status);
}

describe("two devices at once", () => {
  const RETRY = { minDelayMs: 1, maxDelayMs: 4, giveUpAfterMs: 30_000 };

  test("what one tells the agent is shown on the other, until it is taken or becomes a message", async () => {
    const id = fresh("notes");
    const [one, two] = ["laptop", "phone"].map((device) =>
      createSessions({ url: `${server.url}/api/sessions`, retry: RETRY, device }).open(id),
    ) as [Session, Session];
    const leave = [one, two].map((device) => device.subscribe(() => {}));
    const { run } = await one.send("relay 2000 every 5 ms");
    await eventually("it is live", () => two.getSnapshot().activeRuns[0]?.status === "running");
    const told = await two.steer("softer");
    expect(told).toMatchObject({ run, steered: expect.any(String) });
    const waiting = await two.send("and then this", { submit: "queue" });
    for (const device of [one, two]) {
      await eventually("it is told", () => device.getSnapshot().notes.length === 1);
      expect(device.getSnapshot().notes[0]).toMatchObject({
        id: told.steered,
        run,
        by: "user:tester",
        parts: [{ type: "text", text: "softer" }],
      });
      await eventually("it waits", () => device.getSnapshot().runs.at(-1)?.status === "queued");
    }
    // A device that comes now is shown the same.
    const late = createSessions({ url: `${server.url}/api/sessions`, retry: RETRY }).open(id);
    leave.push(late.subscribe(() => {}));
    await eventually("it is live", () => late.getSnapshot().status === "live");
    expect(plain(late.getSnapshot().notes)).toEqual(plain(one.getSnapshot().notes));
    expect((await one.stop({ run: waiting.run })).stopped).toBe(true);
    expect(await two.stop({ all: true })).toMatchObject([{ run, status: "stopped", stopped: true }]);
    const { messages } = await server.settled(id);
    expect(messages.filter(({ role }) => role === "user").map(textOf)).toEqual([
      "relay 2000 every 5 ms",
      "and then this",
      "softer",
    ]);
    for (const device of [one, two, late]) {
      await eventually("it is over", () => device.getSnapshot().messages.length === messages.length);
      expect(device.getSnapshot().notes).toEqual([]);
      expect(plain(device.getSnapshot().messages)).toEqual(messages);
    }
    for (const go of leave) go();
  });

  test.each(range(6))("steer and interrupt under load, and both show one and the same (%i)", (number) =>
    trial("two-at-once", number, async (chance) => {
      const id = fresh("two");
      const clients = ["laptop", "phone"].map((device) =>
        createSessions({ url: `${server.url}/api/sessions`, retry: RETRY, device }),
      );
      const devices = clients.map((client) => client.open(id)) as [Session, Session];
      const heard = devices.map((device) => listened(device));
      for (const device of devices) device.subscribe(() => {});
      const ENDLESS = "attend 20000 every 1 ms";
      const { cursor } = await devices[0].send(ENDLESS);
      await Promise.all(
        devices.map((device) =>
          eventually(`${id} is live`, () => device.getSnapshot().activeRuns.length === 1),
        ),
      );
      // Load: sessions beside it that say as much as they can, until everything here was done.
      const others = range(8).map((n) => clients[n % 2]?.open(fresh("load")) as Session);
      const runs = await Promise.all(others.map((other) => other.send(ENDLESS)));
      const notes: string[] = [];
      const asked: string[] = [];
      await Promise.all(
        devices.map(async (device, index) => {
          // Until enough was said in between, however busy the machine is.
          const appended = () => heard[index]?.filter(({ type }) => type === "appended").length ?? 0;
          for (let turn = 0; turn < 12 || appended() < 100; turn += 1) {
            await pause(chance() * 15);
            if (chance() < 0.6) {
              const { steered } = await device.send(`note ${index}.${turn}`, { submit: "steer" });
              if (steered !== undefined) notes.push(`note ${index}.${turn}`);
            } else asked.push((await device.send(ENDLESS, { submit: "interrupt" })).run as string);
          }
        }),
      );
      await Promise.all(others.map((other, n) => other.stop({ run: runs[n]?.run as string })));
      await devices[1].stop({ all: true });
      const { messages } = await server.settled(id);
      for (const device of devices) {
        await eventually(`${id} is idle`, () => {
          const { activeRuns, messages: shown, notes } = device.getSnapshot();
          return activeRuns.length === 0 && notes.length === 0 && shown.every(({ pending }) => !pending);
        });
      }
      for (const device of devices) expect(plain(device.getSnapshot().messages)).toEqual(messages);

      // The log, read afterwards, is the one order: both were told it, without a gap, and it ends every reply for good.
      const log = await everything(id, cursor);
      const acted = log.find(({ type }) => type === "steered" || type === "run-ended")?.seq as number;
      for (const told of heard) {
        const from = told[0]?.seq as number;
        expect(from).toBeLessThanOrEqual(acted);
        expect(told).toEqual(log.filter(({ seq }) => seq >= from));
        const ended = new Set<string>();
        for (const { type, run } of told) {
          if (run === undefined) continue;
          expect(ended.has(run), `${type} after the end of ${run}`).toBe(false);
          if (type === "run-ended") ended.add(run);
        }
        expect([...ended]).toEqual(expect.arrayContaining(asked));
      }
      // Every note is somewhere, once: in a reply, or as a message of its own.
      const said = messages.flatMap(({ role, parts }) =>
        parts.flatMap((part) =>
          part.type === "steering-message"
            ? (part.parts as { text: string }[]).map(({ text }) => text)
            : role === "user" && part.text?.startsWith("note")
              ? [part.text]
              : [],
        ),
      );
      expect(said.toSorted()).toEqual(notes.toSorted());
      expect(Math.min(notes.length, asked.length)).toBeGreaterThan(2);
      for (const client of clients) client.close();
    }),
  );
});

interface Heard {
  seq: number;
  type: string;
  run: string | undefined;
}

const heardOf = ({ seq, type, run }: Record<string, unknown>): Heard =>
  ({ seq, type, run }) as unknown as Heard;

/** What a device is told, in its order, from now on. */
function listened(device: Session): Heard[] {
  const told: Heard[] = [];
  device.onEvent((event) => {
    if (event.seq !== undefined) told.push(heardOf(event));
  });
  return told;
}

/** The log of a session after a cursor, by a reader that was not there. */
async function everything(id: string, after: string): Promise<Heard[]> {
  const response = await fetch(`${server.url}/api/sessions/${id}/events?after=${after}`);
  const decoder = new TextDecoder();
  let text = "";
  for await (const piece of response.body as ReadableStream<Uint8Array>) {
    text += decoder.decode(piece, { stream: true });
    if (text.includes('"type":"readers"')) break;
  }
  const lines = text.split("\n").filter((line) => line.startsWith("data: "));
  return lines
    .map((line) => JSON.parse(line.slice(6)))
    .filter(({ seq }) => seq !== undefined)
    .map(heardOf);
}
