/** What a chat reads over the session client: the run's chunks from the first one, whenever it begins to read. */
import { createSessions, type Sessions, type SessionsOptions, StrandlineResyncError } from "strandline";
import { type SessionTransportOptions, sessionTransport } from "strandline/ai-sdk/sessions";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { ONLOOKING } from "../../js-adapter/src/chat.js";
import { FakeServer, reply } from "./fake-server.js";
import { FakeSessions, SAID } from "./fake-sessions.js";
import { createGate, EagerClock, read, settle, submit, until } from "./support.js";

let server: FakeSessions;
let other: FakeServer;
let clock: EagerClock;
let sessions: Sessions | undefined;

beforeEach(async () => {
  server = await FakeSessions.start();
  other = await FakeServer.start();
  clock = new EagerClock();
});
afterEach(async () => {
  await until(() => server.open.size === 0, "no connection is left behind");
  sessions?.close();
  await settle(3);
  expect(clock.timers.size, "timers left behind").toBe(0);
  await server.close();
  await other.close();
});

function create(options: SessionsOptions & Partial<SessionTransportOptions> = {}) {
  sessions = createSessions({
    url: server.url,
    retry: { minDelayMs: 1, maxDelayMs: 1 },
    ...({ clock } as object),
    ...options,
  });
  const { onResync, body } = options;
  const more = { ...(onResync && { onResync }), ...(body && { body }) };
  return sessionTransport({ sessions, api: other.api, ...more });
}

/** `fetch` whose feeds give out nothing before they have been told all of this. */
const inOnePiece =
  (until: string): typeof fetch =>
  async (input, init) => {
    const response = await fetch(input, init);
    if (!String(input).includes("/events") || !response.ok || response.body === null) return response;
    let held = "";
    const hold = new TransformStream<string, string>({
      transform(text, controller) {
        held += text;
        if (!held.includes(until)) return;
        controller.enqueue(held);
        held = "";
      },
    });
    const body = response.body.pipeThrough(new TextDecoderStream() as never).pipeThrough(hold);
    return new Response(body.pipeThrough(new TextEncoderStream()), response);
  };

const START = { type: "start", messageId: "a1" };
const FINISH = { type: "finish", finishReason: "stop" };
const WHOLE = [START, ...SAID, FINISH];
/** What is told to those who come later: adjacent deltas are one. */
const JOINED = [
  START,
  ...SAID.slice(0, 2),
  { type: "text-delta", id: "t1", delta: "Grüße, mein 🌊!" },
  ...SAID.slice(4),
  FINISH,
];

describe("a reply to what was sent", () => {
  test("is the run's chunks, from the first to the last", async () => {
    server.script = (session, run) => session.say(run, ...SAID.slice(0, 3));
    const transport = create({ body: { model: "m" } });
    const reading = read(await transport.sendMessages({ ...submit("s1"), body: { mood: "calm" } }));
    await until(() => reading.chunks.length === 4);
    expect(transport.activeRun("s1")).toEqual({ run: "run1", messageId: "a1" });
    const log = server.session();
    log.say(log.runs[0] as never, ...SAID.slice(3));
    log.end(log.runs[0] as never);
    expect((await reading.end).chunks).toEqual(WHOLE);
    expect(reading.error).toBeUndefined();
    expect(transport.activeRun("s1")).toBeNull();
    expect(server.of("SEND")[0]?.body).toMatchObject({
      message: { id: "u1", role: "user" },
      trigger: "submit-message",
      body: { model: "m", mood: "calm" },
    });
  });

  test("is whole when all of it comes in one piece with the snapshot", async () => {
    const transport = create({ fetch: inOnePiece("run-ended") });
    const sent = transport.sendMessages(submit("s1"));
    await until(() => server.sessions.get("s1")?.readers.size === 1);
    const log = server.session();
    log.say(log.runs[0] as never, ...SAID);
    log.end(log.runs[0] as never);
    expect((await read(await sent).end).chunks).toEqual(JOINED);
  });

  test("is read off the other wire when it was over before the session was known", async () => {
    server.script = (session, run) => session.end(run);
    other.begin("s1", ...reply("a1"));
    expect((await read(await create().sendMessages(submit("s1"))).end).chunks).toEqual(reply("a1"));
    expect(other.of("GET")[0]?.url).toBe("/api/chat/s1/stream?run=run1");
  });

  test.each([
    [{ status: "stopped", reason: "enough" }, { type: "abort", reason: "enough" }, "AbortError"],
    [
      { status: "failed", reason: "agent-error", error: "No." },
      { type: "error", errorText: "No.", code: "agent-error" },
    ],
    [{ status: "suspended" }, { type: "finish", finishReason: "tool-calls" }],
    [{ finish_reason: "length" }, { type: "finish", finishReason: "length" }],
  ])("that ended as %j", async (end, last, name?: string) => {
    server.script = (session, run) =>
      void until(() => session.readers.size > 0).then(() => session.end(run, end));
    const reading = await read(await create().sendMessages(submit("s1"))).end;
    expect(reading.chunks.at(-1)).toEqual(last);
    expect((reading.error as Error | undefined)?.name).toBe(name);
  });

  test("is refused when the message is", async () => {
    server.fault("SEND", { status: 409, code: "message-exists" });
    await expect(create().sendMessages(submit("s1"))).rejects.toMatchObject({ problem: "message-exists" });
  });
});

describe("a chat that lets go", () => {
  test("before the answer: the message is sent all the same, once", async () => {
    const { gate, release } = createGate();
    server.fault("SEND", { gate });
    const abort = new AbortController();
    const sent = create().sendMessages({ ...submit("s1"), abortSignal: abort.signal });
    await until(() => server.count("SEND") === 1);
    abort.abort();
    await expect(sent).rejects.toMatchObject({ name: "AbortError" });
    release();
    await until(() => server.session().runs.length === 1);
  });

  test("before anything was asked for sends nothing", async () => {
    const abort = new AbortController();
    const { gate, release } = createGate();
    const sent = create({ body: () => gate.then(() => ({})) }).sendMessages({
      ...submit("s1"),
      abortSignal: abort.signal,
    });
    abort.abort();
    release();
    await expect(sent).rejects.toMatchObject({ name: "AbortError" });
    await settle();
    expect(server.count("SEND")).toBe(0);
  });

  test("in the middle of a reply leaves no connection, and can read it whole again", async () => {
    const log = server.session();
    const run = log.ask("u1");
    log.say(run, ...SAID);
    const abort = new AbortController();
    const transport = create();
    const stream = await transport.reconnectToStream({ chatId: "s1", abortSignal: abort.signal });
    const reading = read(stream as ReadableStream);
    await until(() => reading.chunks.length === 6);
    abort.abort();
    expect(((await reading.end).error as Error).name).toBe("AbortError");
    await until(() => server.open.size === 0);
    const again = read((await transport.reconnectToStream({ chatId: "s1" })) as ReadableStream);
    log.end(run);
    expect((await again.end).chunks).toEqual(JOINED);
    expect(reading.chunks).toEqual(JOINED.slice(0, -1));
    expect(server.count("STOP")).toBe(0);
  });

  test("while it waits for a server that is away waits no longer", async () => {
    server.session();
    server.fault("EVENTS", ...Array.from({ length: 500 }, () => ({ status: 503 })));
    const abort = new AbortController();
    const resumed = create().reconnectToStream({ chatId: "s1", abortSignal: abort.signal });
    await until(() => server.count("EVENTS") > 3);
    abort.abort();
    await expect(resumed).rejects.toMatchObject({ name: "AbortError" });
  });
});

describe("resuming", () => {
  test("to look on gives the calls of tools as text, but once to the chat that has asked for the reply", async () => {
    const call = {
      type: "tool-input-available",
      toolCallId: "k",
      toolName: "locate",
      input: { precise: true },
    };
    const text = [
      { type: "tool-input-start", toolCallId: "k", toolName: "locate" },
      { type: "tool-input-delta", toolCallId: "k", inputTextDelta: '{"precise":true}' },
    ];
    const transport = create();
    const look = async (metadata?: unknown, by = transport) =>
      read((await by.reconnectToStream({ chatId: "s1", metadata })) as ReadableStream);
    const sent = await transport.sendMessages(submit("s1"));
    await sent.cancel();
    const log = server.session();
    log.say(log.runs[0] as never, call);
    const [other, mine] = [await look(ONLOOKING, create()), await look(ONLOOKING)];
    await until(() => other.chunks.length === 3 && mine.chunks.length === 2);
    const [again, plainly] = [await look(ONLOOKING), await look()];
    await until(() => again.chunks.length === 3 && plainly.chunks.length === 2);
    log.end(log.runs[0] as never);
    for (const { end } of [other, mine, again, plainly]) await end;
    expect([other, mine, again, plainly].map(({ chunks }) => chunks.slice(1, -1))).toEqual([
      text,
      [call],
      text,
      [call],
    ]);
  });

  test("is null when nothing is active, and when there is no such session", async () => {
    const transport = create();
    expect(await transport.reconnectToStream({ chatId: "s1" })).toBeNull();
    const log = server.session();
    log.end(log.ask("u1"));
    expect(await transport.reconnectToStream({ chatId: "s1" })).toBeNull();
  });

  test("of a reply that was over before the page had heard of it reads what the server owes", async () => {
    const log = server.session();
    log.end(log.ask("u1"));
    const transport = create();
    other.fault("GET", { loseRequest: true });
    other.begin("s1", ...reply("a1").slice(0, 4));
    const reading = read((await transport.reconnectToStream({ chatId: "s1" })) as ReadableStream);
    await until(() => reading.chunks.length === 4);
    expect(transport.activeRun("s1")).toMatchObject({ messageId: "a1" });
    other.run.append(...reply("a1").slice(4));
    expect((await reading.end).chunks).toEqual(reply("a1"));
    const asked = other.of("GET");
    expect(asked.map(({ url }) => url)).toEqual(["/api/chat/s1/stream", "/api/chat/s1/stream"]);
    expect(asked[0]?.headers["idempotency-key"]).toEqual(expect.any(String));
    expect(asked[1]?.headers["idempotency-key"]).toBe(asked[0]?.headers["idempotency-key"]);
  });

  test("ends when the session is deleted while nobody was connected", async () => {
    server.session().ask("u1");
    const transport = create();
    const reading = read((await transport.reconnectToStream({ chatId: "s1" })) as ReadableStream);
    await until(() => reading.chunks.length === 1);
    server.sessions.delete("s1");
    transport.drop("s1");
    expect(((await reading.end).error as Error).name).toBe("AbortError");
  });

  test("is refused when the session is", async () => {
    server.session();
    server.fault("EVENTS", { status: 401, code: "unauthorized" });
    await expect(create().reconnectToStream({ chatId: "s1" })).rejects.toMatchObject({ status: 401 });
  });

  test("ends with a resync when how it goes on is not known, and says so", async () => {
    const resyncs: string[] = [];
    const log = server.session();
    const run = log.ask("u1");
    const transport = create({ onResync: (chatId) => void resyncs.push(chatId) });
    for (const trouble of ["message-reset", "resync", "epoch"]) {
      const reading = read((await transport.reconnectToStream({ chatId: "s1" })) as ReadableStream);
      await until(() => reading.chunks.length === 1);
      if (trouble === "epoch") {
        log.epoch = 2;
        transport.drop("s1");
      } else log.append({ type: trouble, run: run.id, message: "a1", message_id: "a1" });
      expect((await reading.end).error).toBeInstanceOf(StrandlineResyncError);
      await until(() => resyncs.length > 0);
      expect(resyncs.splice(0)).toEqual(["s1"]);
    }
  });
});

test("a stop names the run that the chat reads, and else whatever is active", async () => {
  const transport = create();
  const reading = read(await transport.sendMessages(submit("s1")));
  expect(await transport.stop("s1", { reason: "enough" })).toMatchObject({ run: "run1", stopped: true });
  await reading.end;
  await transport.stop("s1");
  expect(server.of("STOP").map(({ body }) => body)).toEqual([{ run: "run1", reason: "enough" }, {}]);
});

test("closing lets go of every stream", async () => {
  server.session("s1").ask("u1");
  server.session("s2").ask("u1");
  const transport = create();
  const readings = await Promise.all(
    ["s1", "s2"].map(async (chatId) =>
      read((await transport.reconnectToStream({ chatId })) as ReadableStream),
    ),
  );
  transport.close();
  for (const reading of readings) expect(((await reading.end).error as Error).name).toBe("AbortError");
  await until(() => server.open.size === 0);
});
