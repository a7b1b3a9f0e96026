/** A session as a page sees it: one connection, every event once and in order, what was sent, what was acknowledged. */
import { createSessions, type Session, type SessionEvent, type SessionsOptions } from "strandline";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { FakeSessions, SAID } from "./fake-sessions.js";
import { openPage } from "./page.js";
import { createGate, EagerClock, FakeClock, settle, until } from "./support.js";

let server: FakeSessions;
let eager: EagerClock;
let clock: FakeClock;
const clients: { close(): void }[] = [];

beforeEach(async () => {
  server = await FakeSessions.start();
  eager = new EagerClock();
  clock = new FakeClock();
});
afterEach(async () => {
  for (const client of clients.splice(0)) client.close();
  await settle(3);
  expect(eager.timers.size, "timers left behind").toBe(0);
  expect(clock.pending, "timers left behind").toEqual([]);
  await server.close();
  vi.unstubAllGlobals();
});

type Options = SessionsOptions & { clock?: EagerClock | FakeClock };

function createClient(options: Options = {}) {
  const client = createSessions({ url: server.url, clock: eager, ...options });
  clients.push(client);
  return client;
}

/** A session that somebody looks at, and all that happens to it. */
function look(session: Session) {
  const events: SessionEvent[] = [];
  const statuses: string[] = [];
  session.onEvent((event) => void events.push(event));
  const leave = session.subscribe(() => {
    const { status } = session.getSnapshot();
    if (statuses.at(-1) !== status) statuses.push(status);
  });
  return { events, statuses, leave, kinds: () => events.map(({ type }) => type) };
}

async function opened(options: Options = {}) {
  const client = createClient(options);
  const session = client.open("s1");
  const seen = look(session);
  await until(() => session.getSnapshot().status === "live");
  return { client, session, ...seen };
}

const texts = (session: Session) =>
  session
    .getSnapshot()
    .messages.map(({ role, parts }) => `${role}: ${parts.map((part) => part.text ?? "").join("")}`);

const last = (session: Session) => texts(session).at(-1);

describe("what is shown", () => {
  test("is the snapshot, then what is said", async () => {
    const log = server.session();
    const run = log.ask("u1", "hello");
    log.say(run, ...SAID.slice(0, 3));
    const { session } = await opened();
    expect(texts(session)).toEqual(["user: hello", "assistant: Grüße, "]);
    expect(session.getSnapshot().activeRuns).toMatchObject([
      { id: "run1", messageId: "a1", status: "running" },
    ]);
    log.say(run, ...SAID.slice(3));
    log.end(run);
    await until(() => session.getSnapshot().activeRuns.length === 0);
    expect(texts(session)).toEqual(["user: hello", "assistant: Grüße, mein 🌊!"]);
    expect(session.getSnapshot().runs).toMatchObject([
      { id: "run1", status: "completed", reason: "completed" },
    ]);
    expect(session.getSnapshot().cursor).toBe(log.cursor());
  });

  test("is a new object when something changed, and the old one stays as it was", async () => {
    const log = server.session();
    log.end(log.ask("u1"));
    const run = log.ask("u2");
    const { session } = await opened();
    const before = session.getSnapshot();
    expect(session.getSnapshot()).toBe(before);
    const frozen = structuredClone(before);
    log.say(run, ...SAID);
    await until(() => last(session) === "assistant: Grüße, mein 🌊!");
    expect(before).toEqual(frozen);
    const after = session.getSnapshot();
    expect(after.messages.slice(0, 3).every((message, index) => message === before.messages[index])).toBe(
      true,
    );
    expect(after.messages[3]).not.toBe(before.messages[3]);
    expect(after.runs).toBe(before.runs);
    expect(after.activeRuns).toBe(before.activeRuns);
    log.wake({ type: "readers", readers: [] });
    await until(() => session.getSnapshot() !== after);
    expect(session.getSnapshot().messages).toBe(after.messages);
  });

  test("has the title that a session without one gets from its first message", async () => {
    const log = server.session();
    const { session } = await opened();
    expect(session.getSnapshot().info?.title).toBeNull();
    log.ask("u1", ` What is\n a ${"🌊".repeat(100)}? `);
    await until(() => session.getSnapshot().info?.title !== null);
    expect(session.getSnapshot().info?.title).toBe(`What is a ${"🌊".repeat(69)}…`);
    log.ask("u2", "something else");
    await until(() => session.getSnapshot().messages.length === 4);
    expect(session.getSnapshot().info?.title).toContain("What is a");
  });

  test("follows the active path: an edit and a new attempt take the place of what was there", async () => {
    const log = server.session();
    log.end(log.ask("u1", "one"));
    const answer = log.leaf;
    log.end(log.ask("u2", "two"));
    const { session } = await opened();
    expect(texts(session).length).toBe(4);
    log.ask("u2", "two, better", answer);
    await until(() => session.getSnapshot().messages.at(-1)?.id === "a3");
    expect(texts(session)).toEqual(["user: one", "assistant: ", "user: two, better", "assistant: "]);
    const question = log.messages.get("a3")?.parent as string;
    log.queue(question);
    await until(() => session.getSnapshot().messages.at(-1)?.id === "a4");
    expect(texts(session).length).toBe(4);
    log.ask("u9", "from the start", null);
    await until(() => session.getSnapshot().messages.length === 2);
    expect(texts(session)[0]).toBe("user: from the start");
    expect(server.count("EVENTS")).toBe(1);
  });

  test("has what other agents say beside a reply, apart from it and under their names", async () => {
    const log = server.session();
    const run = log.ask("u1", "hello");
    const { session } = await opened();
    const parent = { parent: run.messageId, parent_run: run.id };
    const queued = { type: "run-queued", run: "b1", message: "m1", message_id: "m1", agent: "critic" };
    log.append({ ...queued, spawned: true, ...parent });
    log.append({ type: "run-started", run: "b1", message: "m1", message_id: "m1" });
    log.append({ type: "appended", run: "b1", message: "m1", chunks: SAID.slice(0, 3) });
    log.say(run, ...SAID);
    await until(() => last(session) === "assistant: Grüße, mein 🌊!");
    const before = session.getSnapshot();
    const beside = { run: "b1", agent: "critic", parent: "a1" };
    expect(before.spawned).toMatchObject([{ ...beside, message: { id: "m1", role: "assistant" } }]);
    expect(before.spawned[0]?.message.parts.at(-1)?.text).toBe("Grüße, ");
    expect(before.activeRuns.map(({ id }) => id)).toEqual(["run1"]);
    expect(before.info?.activeRun).toBe("run1");
    expect(before.runs).toMatchObject([{ id: "run1" }, { id: "b1", spawned: true, parentRun: "run1" }]);
    log.end(run);
    await until(() => session.getSnapshot().activeRuns.length === 0);
    expect(session.getSnapshot().spawned).toBe(before.spawned);
    log.append({ type: "appended", run: "b1", message: "m1", chunks: SAID.slice(3) });
    await until(() => session.getSnapshot().spawned !== before.spawned);
    expect(session.getSnapshot().spawned[0]?.message.parts.at(-1)?.text).toBe("Grüße, mein 🌊!");
    // A device that comes later has the same.
    const { session: other } = await opened();
    expect(other.getSnapshot().spawned).toEqual(session.getSnapshot().spawned);
    expect(texts(other)).toEqual(texts(session));
    expect(other.getSnapshot().activeRuns).toEqual([]);
  });

  test("has nothing beside, and no annotation, of a reply that was deleted", async () => {
    const log = server.session();
    const run = log.ask("u1", "hello");
    const { session } = await opened();
    const queued = { type: "run-queued", agent: "critic", spawned: true };
    for (const [id, parent] of [
      ["b1", run.messageId],
      ["b2", "b1"],
    ])
      log.append({ ...queued, run: id, message: id, message_id: id, parent, parent_run: run.id });
    const said = { annotation: "n1", message: run.messageId, message_id: run.messageId, kind: "reaction" };
    log.append({ type: "annotated", ...said, summary: { count: 1 } });
    log.end(run);
    log.end(log.ask("u2", "more"));
    await until(() => texts(session).length === 4);
    expect(session.getSnapshot().spawned.length).toBe(2);
    expect(server.count("EVENTS")).toBe(1);
    expect(Object.keys(session.getSnapshot().annotations)).toEqual([run.messageId]);
    log.append({ type: "message-deleted", message: run.messageId, message_id: run.messageId });
    await until(() => texts(session).length === 3);
    expect(session.getSnapshot().spawned).toEqual([]);
    expect(session.getSnapshot().annotations).toEqual({});
    expect(server.count("EVENTS")).toBe(1);
  });

  test("has no annotation of what was edited, which goes by the same id", async () => {
    const log = server.session();
    const run = log.ask("u1", "hello");
    log.end(run);
    const { session } = await opened();
    const version = [...log.messages.values()].find(({ id }) => id === "u1")?.version;
    const said = { annotation: "n1", message: version, message_id: "u1", kind: "reaction" };
    log.append({ type: "annotated", ...said, summary: { count: 1 } });
    await until(() => session.getSnapshot().annotations.u1 !== undefined);
    const edited = { message: "v2", message_id: "u1", role: "user", parts: [{ type: "text", text: "else" }] };
    log.append({ type: "message-created", ...edited });
    await until(() => session.getSnapshot().messages[0]?.parts[0]?.text === "else");
    expect(session.getSnapshot().annotations).toEqual({});
    // One of several was taken back from what it was before.
    log.append({ type: "annotation-removed", ...said, summary: { count: 1 } });
    log.append({ type: "annotated", ...said, message: "v2", summary: { count: 5 } });
    await until(() => session.getSnapshot().annotations.u1 !== undefined);
    expect(session.getSnapshot().annotations).toEqual({ u1: { reaction: { count: 5 } } });
    log.append({ type: "annotation-removed", ...said, kind: "citation", summary: { count: 1 } });
    log.append({ type: "annotated", ...said, message: "v2", summary: { count: 6 } });
    await until(() => session.getSnapshot().annotations.u1?.reaction?.count === 6);
    expect(Object.keys(session.getSnapshot().annotations.u1 ?? {})).toEqual(["reaction"]);
    expect(server.count("EVENTS")).toBe(1);
  });

  test("is progress alone, when that is asked for", async () => {
    const log = server.session();
    log.end(log.ask("u1", "hello"));
    const { session } = await opened({ only: "progress" });
    expect(server.of("EVENTS").at(-1)?.url).toContain("only=progress");
    // The server leaves out the message that this run answers.
    const queued = { type: "run-queued", run: "r", message: "m", message_id: "m", agent: "reply" };
    log.append({ ...queued, parent: "not-told" });
    const value = { label: "Files", done: 1, of: 2 };
    const chunk = { type: "data-progress", id: "files", data: value };
    log.append({ type: "appended", run: "r", message: "m", chunks: [chunk] });
    log.append({
      type: "appended",
      run: "r",
      message: "m",
      chunks: [{ ...chunk, data: { ...value, done: 2 } }],
    });
    const shown = () => session.getSnapshot().messages.find(({ id }) => id === "m")?.parts;
    await until(() => shown()?.some(({ data }) => (data as typeof value).done === 2) === true);
    expect(shown()?.length).toBe(1);
    expect(server.count("EVENTS")).toBe(1);
  });

  test("is read anew when an event does not fit what is here", async () => {
    const log = server.session();
    const run = log.ask("u1", "hello");
    const { session, events } = await opened();
    log.append({
      type: "appended",
      run: run.id,
      message: "a1",
      chunks: [{ type: "text-delta", id: "?", delta: "x" }],
    });
    run.chunks = [...SAID];
    await until(() => last(session) === "assistant: Grüße, mein 🌊!");
    expect(server.of("EVENTS").map(({ headers }) => headers["last-event-id"])).toEqual([
      undefined,
      undefined,
    ]);
    expect(events.some(({ type }) => type === "appended")).toBe(false);
  });

  test.each(["resync", "message-reset"])("is right after a %s", async (kind) => {
    const log = server.session();
    const run = log.ask("u1", "hello");
    const { session } = await opened();
    log.say(run, ...SAID.slice(0, 3));
    await until(() => last(session) === "assistant: Grüße, ");
    run.chunks = [];
    log.append({ type: kind, run: run.id, message: "a1", message_id: "a1" });
    log.say(run, { type: "text-start", id: "t2" }, { type: "text-delta", id: "t2", delta: "again" });
    await until(() => last(session) === "assistant: again");
    expect(server.count("EVENTS")).toBe(kind === "resync" ? 2 : 1);
  });

  test("knows again what was told to an agent whose process was lost", async () => {
    const log = server.session();
    const run = log.ask("u1", "hello");
    const { session } = await opened();
    const parts = [{ type: "text", text: "shorter" }];
    const note = { by: "user:ann", message_id: "n1", parts };
    log.append({ type: "steered", run: run.id, ...note });
    await until(() => session.getSnapshot().notes.length === 1);
    log.say(run, { type: "steering-message", id: "n1", parts });
    await until(() => session.getSnapshot().notes.length === 0);
    run.chunks = [];
    run.notes = [{ at: 1, ...note }];
    log.append({ type: "message-reset", by: "server", run: run.id, message: "a1", message_id: "a1" });
    await until(() => session.getSnapshot().notes.length === 1);
    expect(session.getSnapshot().notes).toMatchObject([{ id: "n1", by: "user:ann", parts }]);
    expect(texts(session)).toEqual(["user: hello", "assistant: "]);
    log.say(run, { type: "steering-message", id: "n1", parts });
    await until(() => session.getSnapshot().notes.length === 0);
  });

  test("takes over what was renamed and archived", async () => {
    const log = server.session();
    const { session } = await opened();
    log.append({ type: "session-changed", title: "Rain", archived: true });
    await until(() => session.getSnapshot().info?.title === "Rain");
    expect(session.getSnapshot().info).toMatchObject({ id: "s1", title: "Rain", archived: true });
    log.append({ type: "session-changed", archived: false });
    await until(() => session.getSnapshot().info?.title === null);
    expect(session.getSnapshot().info?.archived).toBe(false);
  });

  test("holds the newest page, and the older ones when they are asked for", async () => {
    const log = server.session();
    for (let i = 1; i <= 5; i++) log.end(log.ask(`u${i}`, `${i}`));
    const { session } = await opened({ pageSize: 4 });
    const ids = () => session.getSnapshot().messages.map(({ id }) => id);
    expect(ids()).toEqual(["u4", "a4", "u5", "a5"]);
    expect(session.getSnapshot().hasOlder).toBe(true);
    await Promise.all([session.loadOlder(), session.loadOlder()]);
    expect(ids()).toEqual(["u2", "a2", "u3", "a3", "u4", "a4", "u5", "a5"]);
    await session.loadOlder();
    expect(ids().slice(0, 3)).toEqual(["u1", "a1", "u2"]);
    expect(session.getSnapshot().hasOlder).toBe(false);
    await session.loadOlder();
    expect(ids().length).toBe(10);
    // What follows an older message follows it here, too.
    log.ask("u6", "instead", [...log.messages.values()].find(({ id }) => id === "u2")?.version);
    await until(() => session.getSnapshot().messages.at(-1)?.id === "a6");
    expect(ids()).toEqual(["u1", "a1", "u2", "u6", "a6"]);
    expect(server.count("EVENTS")).toBe(1);
  });
});

describe("the connection", () => {
  test("is there while somebody looks, and only one", async () => {
    const log = server.session();
    const { client, session, leave } = await opened();
    const second = client.open("s1");
    expect(second).toBe(session);
    const leaveToo = second.subscribe(() => {});
    leave();
    await settle();
    expect(server.open.size).toBe(1);
    leaveToo();
    await until(() => server.open.size === 0);
    expect(session.getSnapshot().status).toBe("idle");
    log.ask("u1", "meanwhile");
    const back = look(session);
    await until(() => session.getSnapshot().status === "live");
    expect(texts(session)).toEqual(["user: meanwhile", "assistant: "]);
    expect(back.kinds()).not.toContain("snapshot");
    expect(server.count("EVENTS")).toBe(2);
  });

  test("survives leaving and coming back at once", async () => {
    server.session();
    const { session, leave } = await opened();
    leave();
    session.subscribe(() => {});
    await settle();
    expect(server.count("EVENTS")).toBe(1);
  });

  test.each([true, false])(
    "may be cut at every byte: every event is applied once (cleanly: %s)",
    async (cleanly) => {
      const log = server.session();
      const run = log.ask("u1", "hello");
      log.say(run, ...SAID.slice(0, 3));
      const client = createClient({ retry: { minDelayMs: 1, maxDelayMs: 1 } });
      const session = client.open("s1");
      const { events } = look(session);
      await until(() => session.getSnapshot().status === "live");
      const whole = Buffer.byteLength(JSON.stringify(log.snapshot(50))) + 400;
      for (let byte = 0; byte < whole; byte += 7) {
        server.fault("EVENTS", { cutAfter: byte % 400, cleanly });
        session.drop();
        log.say(run, { type: "text-delta", id: "t1", delta: `${byte} ` });
        await until(() => session.getSnapshot().cursor === log.cursor());
      }
      const said = Array.from({ length: Math.ceil(whole / 7) }, (_, i) => `${i * 7} `).join("");
      expect(last(session)).toBe(`assistant: Grüße, ${said}`);
      const order = events.flatMap(({ seq }) => (seq === undefined ? [] : [seq]));
      expect(order).toEqual(order.map((_, i) => i + 5));
      expect(server.of("EVENTS").filter(({ headers }) => !headers["last-event-id"]).length).toBe(1);
    },
    30_000,
  );

  test("shows nothing of a snapshot that is not whole", async () => {
    const log = server.session();
    log.end(log.ask("u1", "hello"));
    const size = Buffer.byteLength(JSON.stringify(log.snapshot(50)));
    server.fault("EVENTS", ...[1, 40, size - 1, size + 5].map((cutAfter) => ({ cutAfter })));
    const { session, statuses, kinds } = await opened({ retry: { minDelayMs: 1, maxDelayMs: 1 } });
    expect(texts(session).length).toBe(2);
    expect(kinds().filter((kind) => kind === "snapshot").length).toBe(1);
    expect(statuses).toEqual([
      "connecting",
      "waiting",
      "connecting",
      "waiting",
      "connecting",
      "waiting",
      "connecting",
      "waiting",
      "connecting",
      "live",
    ]);
  });

  test("begins anew when its cursor cannot be continued", async () => {
    const log = server.session();
    log.end(log.ask("u1", "hello"));
    const { session, kinds } = await opened();
    log.epoch = 2;
    log.ask("u2", "more");
    session.drop();
    await until(() => texts(session).length === 4);
    expect(kinds().filter((kind) => kind === "snapshot").length).toBe(2);
    expect(session.getSnapshot().cursor).toBe(log.cursor());
  });

  test("waits for a server that is away, and is awake when the page is", async () => {
    const page = openPage();
    const log = server.session();
    const { session, statuses } = await opened({ clock });
    server.fault("EVENTS", { status: 503 }, { status: 502 }, { loseRequest: true }, { status: 429 });
    session.drop();
    for (const delay of [250, 500, 1_000, 2_000]) {
      await until(() => session.getSnapshot().status === "waiting" && clock.pending.includes(delay));
      page.online(false);
      page.online(true);
      await until(() => !clock.pending.includes(delay));
    }
    log.ask("u1");
    await until(() => session.getSnapshot().status === "waiting" && clock.pending.includes(4_000));
    clock.advance(4_000);
    await until(() => texts(session).length === 2);
    expect(statuses.at(-1)).toBe("live");
    server.fault("EVENTS", { status: 503 });
    session.drop();
    await until(() => clock.pending.includes(250));
    clock.advance(250);
    await until(() => clock.pending.includes(500));
  });

  test("is live when everything that was missed is there", async () => {
    const log = server.session();
    const run = log.ask("u1");
    const { session } = await opened({ clock });
    session.drop();
    await until(() => clock.pending.includes(250));
    for (const chunk of SAID) log.say(run, chunk);
    const seen: string[] = [];
    session.onEvent(({ type }) => void seen.push(`${type} ${session.getSnapshot().status}`));
    clock.advance(250);
    await until(() => session.getSnapshot().status === "live");
    expect(seen).toEqual([...SAID.map(() => "appended connecting"), "readers live"]);
  });

  test("is given back by a page that is hidden for long, and taken up when it is back", async () => {
    const page = openPage();
    const log = server.session();
    const { session } = await opened({ clock, hiddenMs: 60_000, stallAfterMs: 1e9 });
    page.visible(false);
    clock.advance(59_999);
    await settle();
    expect(server.open.size).toBe(1);
    clock.advance(1);
    await until(() => server.open.size === 0);
    expect(session.getSnapshot().status).toBe("waiting");
    log.end(log.ask("u1", "meanwhile"));
    clock.advance(3_600_000);
    await settle();
    expect(server.open.size).toBe(0);
    page.visible(true);
    await until(() => session.getSnapshot().status === "live");
    expect(texts(session)).toEqual(["user: meanwhile", "assistant: "]);
  });

  test("is never given back by a page that can be seen", async () => {
    const page = openPage();
    server.session();
    await opened({ clock, hiddenMs: 1_000, stallAfterMs: 1e9 });
    page.visible(false);
    clock.advance(999);
    page.visible(true);
    clock.advance(1e8);
    await settle();
    expect(server.open.size).toBe(1);
    expect(server.count("EVENTS")).toBe(1);
  });

  test("has the name that the page has, and the device", async () => {
    server.session();
    const { session } = await opened({ device: "phone" });
    session.drop();
    await until(() => server.count("EVENTS") === 2);
    const names = server.of("EVENTS").map(({ headers }) => headers["strandline-reader"]);
    expect(names).toEqual([session.getSnapshot().reader, session.getSnapshot().reader]);
    expect(server.of("EVENTS")[0]?.headers["strandline-device"]).toBe("phone");
  });

  test("takes another name when another page has its own", async () => {
    const stored = new Map<string, string>();
    const storage = {
      getItem: (name: string) => stored.get(name) ?? null,
      setItem: (name: string, value: string) => void stored.set(name, value),
    };
    const log = server.session();
    log.ask("u1");
    const first = await opened({ storage });
    const second = await opened({ storage });
    const name = first.session.getSnapshot().reader;
    expect(second.session.getSnapshot().reader).toBe(name);
    log.wake({ type: "replaced" });
    await until(() => stored.get("strandline-reader") !== name);
    const names = [first, second].map(({ session }) => session.getSnapshot().reader);
    expect(new Set([name, ...names]).size).toBe(3);
    expect(names).toContain(stored.get("strandline-reader"));
  });

  test("has a name also where nothing can be stored", async () => {
    server.session();
    const setItem = () => {
      throw new DOMException("full", "QuotaExceededError");
    };
    const { session } = await opened({ storage: { getItem: () => null, setItem } });
    expect(session.getSnapshot().reader).toEqual(expect.any(String));
  });

  test("acknowledges as who it is connected as, also when another session's connection lost that name", async () => {
    const [one, two] = [server.session("s1"), server.session("s2")];
    const client = createClient({ clock });
    const sessions = ["s1", "s2"].map((id) => client.open(id));
    for (const session of sessions) look(session);
    await until(() => sessions.every((session) => session.getSnapshot().status === "live"));
    const name = sessions[1]?.getSnapshot().reader;
    one.wake({ type: "replaced" });
    await until(() => sessions[0]?.getSnapshot().reader !== name);
    const other = sessions[0]?.getSnapshot().reader;
    expect(sessions[1]?.getSnapshot().reader).toBe(name);
    two.end(two.ask("u1"));
    await until(() => sessions[1]?.getSnapshot().cursor === two.cursor());
    clock.advance(2_000);
    await until(() => server.of("ACK").some(({ url }) => url.includes("s2")));
    expect(server.of("ACK").find(({ url }) => url.includes("s2"))?.body.reader).toBe(name);
    // It has lost the name as well: the page needs no third one.
    two.wake({ type: "replaced" });
    await until(() => sessions[1]?.getSnapshot().reader !== name);
    expect(sessions[1]?.getSnapshot().reader).toBe(other);
  });

  test("is not asked for again when it was refused", async () => {
    server.session();
    server.fault("EVENTS", { status: 403, code: "forbidden" });
    const session = createClient().open("s1");
    session.subscribe(() => {});
    await until(() => session.getSnapshot().status === "refused");
    expect(session.getSnapshot().error).toMatchObject({ code: "http", status: 403, problem: "forbidden" });
    await settle();
    expect(server.count("EVENTS")).toBe(1);
    session.poke();
    await until(() => session.getSnapshot().status === "live");
    expect(session.getSnapshot().error).toBeNull();
  });
});

describe("a session that is not there", () => {
  test("is absent, until something was sent", async () => {
    const session = createClient().open("s1");
    const { statuses } = look(session);
    await until(() => session.getSnapshot().status === "absent");
    await settle();
    expect(server.count("EVENTS")).toBe(1);
    await session.send("hello");
    await until(() => session.getSnapshot().status === "live");
    expect(texts(session)).toEqual(["user: hello", "assistant: "]);
    expect(statuses).toEqual(["connecting", "absent", "connecting", "live"]);
  });

  test("is asked for again, ever later, while somebody looks and the page is in view", async () => {
    const page = openPage();
    const session = createClient({ clock }).open("s1");
    const { statuses, leave } = look(session);
    const asked = async (times: number) => {
      await until(() => server.count("EVENTS") === times && clock.pending.length === 1);
      await until(() => session.getSnapshot().status === "absent");
      await settle();
    };
    await asked(1);
    for (const [index, ms] of [1_000, 1_500, 2_250].entries()) {
      expect(clock.pending).toEqual([ms]);
      clock.advance(ms);
      await asked(index + 2);
    }
    for (let i = 0; i < 8; i++) {
      clock.advance(15_000);
      await asked(i + 5);
    }
    expect(clock.pending).toEqual([15_000]);
    page.visible(false);
    clock.advance(1e6);
    await settle();
    expect(server.count("EVENTS")).toBe(12);
    expect(statuses).toEqual(["connecting", "absent"]);
    server.session().ask("u1", "from another device");
    page.visible(true);
    await until(() => session.getSnapshot().status === "live");
    expect(texts(session)).toEqual(["user: from another device", "assistant: "]);
    leave();
    clock.advance(0);
    expect(clock.pending).toEqual([]);
    await until(() => page.listening === 0);
  });

  test("is not asked for any more when nobody looks", async () => {
    const page = openPage();
    const session = createClient({ clock }).open("s1");
    const { leave } = look(session);
    await until(() => session.getSnapshot().status === "absent");
    leave();
    clock.advance(1e6);
    await settle();
    expect(server.count("EVENTS")).toBe(1);
    expect(page.listening).toBe(0);
  });

  test("is asked for again when its first message overtook the question", async () => {
    const session = createClient().open("s1");
    const { gate, release } = createGate();
    server.fault("EVENTS", { gate, status: 404 });
    look(session);
    await session.send("hello");
    release();
    await until(() => session.getSnapshot().status === "live");
    expect(texts(session)).toEqual(["user: hello", "assistant: "]);
  });

  test("leaves nothing behind when it is deleted, and can be made again", async () => {
    server.session().ask("u1", "hello");
    const { client, session, kinds } = await opened();
    await client.delete("s1");
    await until(() => session.getSnapshot().status === "deleted");
    expect(session.getSnapshot()).toMatchObject({ messages: [], runs: [], info: null, cursor: null });
    expect(kinds().at(-1)).toBe("session-deleted");
    await session.send("anew");
    await until(() => session.getSnapshot().status === "live");
    expect(texts(session)).toEqual(["user: anew", "assistant: "]);
    expect(server.of("EVENTS").at(-1)?.headers["last-event-id"]).toBeUndefined();
  });

  test("was deleted while nobody was connected", async () => {
    server.session().ask("u1", "hello");
    const { session } = await opened();
    server.sessions.delete("s1");
    session.drop();
    await until(() => session.getSnapshot().status === "deleted");
    expect(texts(session)).toEqual([]);
  });
});

describe("what is sent", () => {
  test("is shown at once as pending, and is the log's when it comes", async () => {
    server.session();
    const { session } = await opened();
    const { gate, release } = createGate();
    server.fault("SEND", { gate });
    const sent = session.send("hello", { body: { model: "m" } });
    expect(session.getSnapshot().messages).toMatchObject([{ role: "user", pending: true }]);
    release();
    expect(await sent).toMatchObject({ run: "run1", messageId: "a1" });
    await until(() => session.getSnapshot().messages.length === 2);
    expect(session.getSnapshot().messages[0]).toEqual({
      id: expect.any(String),
      role: "user",
      parts: [{ type: "text", text: "hello" }],
    });
    expect(server.of("SEND")[0]?.body).toMatchObject({ trigger: "submit-message", body: { model: "m" } });
  });

  test("is repeated with its key until it is answered, and done once", async () => {
    server.session();
    const { session } = await opened({ retry: { minDelayMs: 1, maxDelayMs: 1 } });
    server.fault("SEND", { loseRequest: true }, { loseAnswer: true }, { status: 503 });
    expect(await session.send("hello")).toMatchObject({ run: "run1" });
    const keys = server.of("SEND").map(({ headers }) => headers["idempotency-key"]);
    expect(keys.length).toBe(4);
    expect(new Set(keys).size).toBe(1);
    await until(() => texts(session).length === 2);
    expect(server.session().runs.length).toBe(1);
  });

  test("goes away when it is refused", async () => {
    server.session();
    const { session } = await opened();
    server.fault("SEND", { status: 422, code: "invalid-message" });
    await expect(session.send("hello")).rejects.toMatchObject({ code: "http", problem: "invalid-message" });
    expect(session.getSnapshot().messages).toEqual([]);
  });

  test("shows an edit in the place of its message", async () => {
    const log = server.session();
    log.end(log.ask("u1", "one"));
    log.end(log.ask("u2", "two"));
    const { session } = await opened();
    const message = { id: "u2", parts: [{ type: "text", text: "two, better" }] };
    const sent = session.send(message, { messageId: "u2" });
    expect(texts(session)).toEqual(["user: one", "assistant: ", "user: two, better"]);
    await sent;
    await until(() => texts(session).length === 4);
    expect(texts(session)[2]).toBe("user: two, better");
    expect(session.getSnapshot().messages.some(({ pending }) => pending)).toBe(false);
  });

  test("is an edit, also when it is nothing but a text", async () => {
    const log = server.session();
    log.end(log.ask("u1", "one"));
    const { session } = await opened();
    const sent = session.send("one, better", { messageId: "u1" });
    expect(texts(session)).toEqual(["user: one, better"]);
    await sent;
    expect(server.of("SEND")[0]?.body).toMatchObject({ message: { id: "u1" }, messageId: "u1" });
    await until(() => texts(session).length === 2);
    expect(session.getSnapshot().messages.some(({ pending }) => pending)).toBe(false);
  });

  test("does not stay pending when its session is deleted before it was seen", async () => {
    server.session();
    const { session } = await opened();
    const { gate, release } = createGate();
    server.fault("EVENTS", { gate });
    session.drop();
    await until(() => server.count("EVENTS") === 2);
    await session.send("hello");
    server.sessions.delete("s1");
    release();
    await until(() => session.getSnapshot().status === "deleted");
    expect(session.getSnapshot().messages).toEqual([]);
  });

  test("does not connect a session that was closed meanwhile", async () => {
    server.session();
    const { session } = await opened();
    const { gate, release } = createGate();
    server.fault("SEND", { gate });
    const sent = session.send("hello");
    session.close();
    release();
    await sent;
    await until(() => server.open.size === 0);
    await settle();
    expect(server.count("EVENTS")).toBe(1);
  });

  test("is a new attempt when that is asked for", async () => {
    const log = server.session();
    log.end(log.ask("u1", "one"));
    const { session } = await opened();
    await session.send(undefined, { trigger: "regenerate-message", messageId: "a1" });
    await until(() => session.getSnapshot().messages.at(-1)?.id === "a2");
    expect(texts(session)).toEqual(["user: one", "assistant: "]);
    expect(server.count("EVENTS")).toBe(1);
  });

  test("stays pending while the server has not answered, whatever comes", async () => {
    const log = server.session();
    const { session } = await opened();
    const { gate, release } = createGate();
    server.fault("SEND", { gate });
    const sent = session.send("hello");
    log.epoch = 2;
    log.ask("u9", "from another device");
    session.drop();
    await until(() => texts(session).length === 3);
    expect(session.getSnapshot().messages.at(-1)).toMatchObject({ pending: true });
    release();
    await sent;
    await until(() => texts(session).length === 4);
    expect(session.getSnapshot().messages.some(({ pending }) => pending)).toBe(false);
  });

  test("does not stay pending when another device took it off the path before it was seen", async () => {
    const log = server.session();
    const { session } = await opened();
    const { gate, release } = createGate();
    server.fault("EVENTS", { gate });
    session.drop();
    await until(() => server.count("EVENTS") === 2);
    await session.send("hello");
    log.epoch = 2;
    log.ask("u9", "from another device", null);
    session.drop();
    release();
    await until(() => texts(session)[0] === "user: from another device");
    expect(texts(session).length).toBe(2);
  });
});

describe("a stop", () => {
  test("ends the newest run that is active, and says why", async () => {
    const log = server.session();
    log.say(log.ask("u1"), ...SAID.slice(0, 3));
    const { session } = await opened();
    expect(await session.stop({ reason: "enough" })).toMatchObject({ run: "run1", stopped: true });
    await until(() => session.getSnapshot().runs[0]?.status === "stopped");
    expect(session.getSnapshot().runs[0]?.reason).toBe("enough");
    expect(server.of("STOP")[0]?.body).toEqual({ run: "run1", reason: "enough" });
  });

  test("names what has not been answered yet by its key", async () => {
    server.session();
    const { session } = await opened();
    const { gate, release } = createGate();
    server.fault("SEND", { gate });
    const sent = session.send("hello");
    await until(() => server.count("SEND") === 1);
    await session.stop();
    release();
    await sent;
    expect(server.of("STOP")[0]?.body).toEqual({ key: server.of("SEND")[0]?.headers["idempotency-key"] });
  });

  test("of nothing is idle", async () => {
    const session = createClient().open("s1");
    expect(await session.stop()).toEqual({ run: null, status: "idle", stopped: false });
  });
});

test("the chunks of a run are kept as few as say the same, also of one that has just ended", async () => {
  const log = server.session();
  const run = log.ask("u1");
  const { session } = await opened();
  const meta = { providerMetadata: { a: { b: 1 } } };
  const delta = (id: string, text: string, more = {}) => ({ type: "text-delta", id, delta: text, ...more });
  const starts = ["t1", "t2"].map((id) => ({ type: "text-start", id }));
  const said = [
    delta("t1", "a"),
    delta("t1", "b"),
    delta("t2", "c"),
    delta("t1", "d"),
    delta("t1", "e", meta),
  ];
  const progress = { type: "data-progress", data: 1, transient: true };
  log.say(run, ...starts, ...said.slice(0, 2), progress);
  log.say(run, ...said.slice(2));
  log.end(run);
  await until(() => session.reply("run1")?.end !== undefined);
  expect(session.reply("run1")).toMatchObject({
    messageId: "a1",
    chunks: [{ type: "start" }, ...starts, delta("t1", "ab"), delta("t2", "c"), delta("t1", "d"), said[4]],
    end: { type: "run-ended", status: "completed" },
  });
  for (let i = 2; i <= 5; i++) log.end(log.ask(`u${i}`));
  await until(
    () => session.getSnapshot().runs.at(-1)?.id === "run5" && session.getSnapshot().activeRuns.length === 0,
  );
  expect(session.reply("run1")).toBeUndefined();
  expect(session.reply("run2")).toBeDefined();
});

describe("the acknowledgement", () => {
  const acks = () => server.of("ACK").map(({ body }) => body.cursor);

  test("says at most every 2 s what was applied, and soon after the end of a run", async () => {
    const log = server.session();
    const run = log.ask("u1");
    const { session } = await opened({ clock });
    for (let i = 0; i < 10; i++) log.say(run, { type: "text-start", id: `t${i}` });
    await until(() => session.getSnapshot().cursor === log.cursor());
    clock.advance(1_999);
    await settle();
    expect(acks()).toEqual([]);
    clock.advance(1);
    await until(() => acks().length === 1);
    expect(acks()).toEqual([log.cursor()]);
    expect(server.of("ACK")[0]?.body.reader).toBe(session.getSnapshot().reader);
    log.end(run);
    await until(() => session.getSnapshot().cursor === log.cursor());
    clock.advance(200);
    await until(() => acks().length === 2);
    expect(acks()[1]).toBe(log.cursor());
    clock.advance(40_000);
    await settle();
    expect(acks().length).toBe(2);
  });

  test("is made when the page is hidden, and when nobody looks any more", async () => {
    const page = openPage();
    const log = server.session();
    log.ask("u1");
    const { session, leave } = await opened({ clock });
    page.visible(false);
    await until(() => acks().length === 1);
    log.append({ type: "session-changed", title: "x", archived: false });
    await until(() => session.getSnapshot().cursor === log.cursor());
    leave();
    clock.advance(0);
    await until(() => acks().length === 2);
    expect(acks()[1]).toBe(log.cursor());
  });

  test("is not made for what was presented", async () => {
    const log = server.session();
    log.ask("u1");
    const { session } = await opened({ clock });
    session.drop();
    await until(() => clock.pending.includes(250));
    clock.advance(250);
    await until(() => session.getSnapshot().status === "live");
    clock.advance(10_000);
    await settle();
    expect(acks()).toEqual([]);
  });

  test("may fail", async () => {
    const log = server.session();
    log.ask("u1");
    const { session } = await opened({ clock });
    server.fault("ACK", { status: 500 }, { loseRequest: true });
    for (let i = 1; i <= 3; i++) {
      log.append({ type: "session-changed", title: `${i}`, archived: false });
      await until(() => session.getSnapshot().cursor === log.cursor());
      clock.advance(2_000);
      await until(() => acks().length === i);
    }
    expect(acks()[2]).toBe(log.cursor());
  });
});

describe("a listener", () => {
  test("that throws ends nothing, and is told of", async () => {
    const reported: unknown[] = [];
    vi.stubGlobal("reportError", (error: unknown) => void reported.push(error));
    const log = server.session();
    const { session } = await opened();
    session.onEvent(() => {
      throw new Error("mine");
    });
    log.ask("u1", "hello");
    await until(() => texts(session).length === 2);
    expect(reported[0]).toMatchObject({ message: "mine" });
  });

  test("hears every event after it was applied", async () => {
    const log = server.session();
    const { session } = await opened();
    const heard: string[] = [];
    session.onEvent(({ type }) => void heard.push(`${type} ${session.getSnapshot().messages.length}`));
    log.ask("u1", "hello");
    await until(() => heard.length === 3);
    expect(heard).toEqual(["message-created 1", "run-queued 2", "run-started 2"]);
  });
});

describe("the list", () => {
  test("is asked for, changed, and asked for again when the answer was lost", async () => {
    const client = createClient({ retry: { minDelayMs: 1, maxDelayMs: 1 } });
    server.fault("OTHER", { loseAnswer: true });
    expect(await client.create({ title: "Rain" })).toMatchObject({ title: "Rain" });
    const [first, second] = server.of("OTHER");
    expect(first?.body.id).toBe(second?.body.id);
    const { sessions } = await client.list({ archived: "any", limit: 3, before: "x&y", pending: true });
    expect(sessions.map(({ id }) => id)).toEqual([first?.body.id]);
    expect(server.seen.at(-1)?.url).toBe("/api/sessions?archived=any&before=x%26y&limit=3&pending=true");
    const id = sessions[0]?.id as string;
    expect(await client.rename(id, null)).toMatchObject({ title: null });
    expect(server.seen.at(-1)).toMatchObject({ method: "PATCH", body: { title: null } });
    expect(await client.archive(id)).toMatchObject({ archived: true });
    expect(await client.archive(id, false)).toMatchObject({ archived: false });
    server.fault("OTHER", { loseAnswer: true });
    await client.delete(id);
    expect(server.sessions.size).toBe(0);
    await expect(client.rename(id, "x")).rejects.toMatchObject({ code: "http", status: 404 });
  });

  test("of sessions that nobody looks at any more is kept within reason", async () => {
    const client = createClient();
    const look = async (id: string) => {
      server.session(id).ask("u1", "hello");
      const session = client.open(id);
      const leave = session.subscribe(() => {});
      await until(() => session.getSnapshot().status === "live");
      leave();
      await until(() => session.getSnapshot().status === "idle");
      return session;
    };
    const first = await look("s0");
    for (let i = 1; i < 16; i++) await look(`s${i}`);
    expect(first.getSnapshot().messages.length).toBe(2);
    await look("s16");
    expect(first.getSnapshot()).toMatchObject({ messages: [], cursor: null });
    expect(client.open("s0")).toBe(first);
  });
});
