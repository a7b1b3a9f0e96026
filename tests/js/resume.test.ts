/** A reply is read exactly once, however its connections are treated. */
import {
  StrandlineGoneError,
  StrandlineHttpError,
  StrandlineProtocolError,
  StrandlineResyncError,
} from "strandline";
import { describe, expect, test } from "vitest";
import { cursorOf, frame, reply, type WireChunk } from "./fake-server.js";
import { createGate, createWorld, type Reading, read, settle, submit, until } from "./support.js";

const world = createWorld();

/** The size of the reply on the wire. */
function sizeOf(chunks: WireChunk[], from = 0): number {
  const frames = chunks.map((chunk, i) => frame(chunk, i < from ? undefined : `run1/${i + 1}`)).join("");
  return Buffer.byteLength(`: strandline\n${frames}data: [DONE]\n\n`);
}

const resumed = (chatId = "c1") => world.transport().reconnectToStream({ chatId });

/** The stream of a chat with an active run; there must be one. */
async function join(chatId = "c1", transport = world.transport()) {
  const stream = await transport.reconnectToStream({ chatId });
  if (stream === null) throw new Error("nothing is active");
  return read(stream);
}

describe("a cut reply", () => {
  test.each([{ cleanly: false }, { cleanly: true }])(
    "is the same after a cut at every byte: %o",
    async (how) => {
      const size = sizeOf(reply("a1"));
      const transport = world.transport();
      for (let byte = 0; byte <= size; byte++) {
        world.server.fault("POST", { cutAfter: byte, ...how });
        const { chunks, error } = await read(await transport.sendMessages(submit(`c${byte}`))).end;
        expect({ byte, chunks, error }).toEqual({
          byte,
          chunks: reply(world.server.run.messageId),
          error: undefined,
        });
      }
      expect(world.server.runs.length).toBe(size + 1);
    },
    60_000,
  );

  test("is the same after a cut at every byte of its snapshot, and shows none of a snapshot that is not whole", async () => {
    const whole = reply("a1");
    const [early, late] = [whole.slice(0, 5), whole.slice(5)];
    const snapshot = sizeOf(early, 4) - "data: [DONE]\n\n".length;
    const transport = world.transport();
    for (let byte = 0; byte <= snapshot; byte++) {
      world.server.runs.length = 0;
      const run = world.server.begin("c1", ...early);
      const { gate, release } = createGate();
      world.server.fault("GET", { cutAfter: byte }, { gate });
      const before = world.server.count("GET");
      const reading = await join("c1", transport);
      await until(() => world.server.count("GET") === before + 2);
      expect({ byte, shown: reading.chunks.length }).toEqual({
        byte,
        shown: byte < snapshot ? 0 : early.length,
      });
      release();
      run.append(...late);
      const { chunks, error } = await reading.end;
      expect({ byte, chunks, error }).toEqual({ byte, chunks: whole, error: undefined });
    }
  }, 60_000);

  test.each([1, 2, 3, 4, 5, 6, 7, 8])(
    "is the same after many random cuts while it is written (seed %i)",
    async (seed) => {
      let state = seed * 2_654_435_761;
      const random = (below: number) => {
        state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
        return state % below;
      };
      const deltas = Array.from({ length: 200 }, (_, i) => ({
        type: "text-delta",
        id: "t1",
        delta: `${i} ü🌊 `,
      }));
      const whole = [...reply("a1").slice(0, 3), ...deltas, ...reply("a1").slice(5)];
      world.server.script = () => [];
      const cuts = () =>
        Array.from({ length: 60 }, () => ({ cutAfter: random(600), cleanly: random(2) === 0 }));
      world.server.fault("POST", ...cuts().slice(0, 1));
      world.server.fault("GET", ...cuts());
      const reading = read(await world.transport().sendMessages(submit()));
      for (let i = 0; i < whole.length; ) {
        const batch = whole.slice(i, i + 1 + random(8));
        world.server.run.append(...batch);
        i += batch.length;
        await settle(random(6));
      }
      const { chunks, error } = await reading.end;
      expect(error).toBeUndefined();
      expect(chunks).toEqual(whole);
      expect(world.server.count("GET")).toBeGreaterThan(5);
      expect(world.server.count("POST")).toBe(1);
    },
  );

  test("is asked for by run and cursor", async () => {
    const whole = reply("a1");
    world.server.fault("POST", { cutAfter: sizeOf(whole.slice(0, 4)) - "data: [DONE]\n\n".length });
    await read(await world.transport({ ai: 6, headers: { "X-A": "1" } }).sendMessages(submit("chat ü"))).end;
    const [get] = world.server.of("GET");
    expect(get?.url).toBe("/api/chat/chat%20%C3%BC/stream?run=run1");
    expect(get?.headers).toMatchObject({
      "last-event-id": cursorOf(world.server.run, 4),
      "strandline-client": "shim/0.1.0; ai=6",
      "x-a": "1",
    });
  });

  test("is read by one connection at a time", async () => {
    world.server.script = (run) => reply(run.messageId).slice(0, 4);
    const transport = world.transport();
    const reading = read(await transport.sendMessages(submit()));
    for (let i = 1; i <= 5; i++) {
      await until(() => reading.chunks.length === 4 && world.server.open.size === 1);
      expect(transport.drop("c1")).toBe(true);
      await until(() => world.server.count("GET") === i);
      await until(() => world.server.open.size === 1);
    }
    world.server.run.append(...reply("a1").slice(4));
    expect((await reading.end).chunks).toEqual(reply("a1"));
    expect(transport.drop("c1")).toBe(false);
  });

  test("hears nothing from a connection that was cut, even if its socket cannot be closed", async () => {
    // A `fetch` that heeds neither the signal nor a cancelled body.
    const bodies: ReadableStreamDefaultController<Uint8Array>[] = [];
    const stubborn: typeof fetch = async () => {
      const body = { getReader: () => reader } as unknown as ReadableStream<Uint8Array>;
      const source = new ReadableStream<Uint8Array>({ start: (controller) => void bodies.push(controller) });
      const inner = source.getReader();
      const reader = { read: () => inner.read(), cancel: async () => {} };
      const headers = new Headers({ "Content-Type": "text/event-stream", "Strandline-Run": "run1" });
      return { ok: true, status: 200, headers, body } as Response;
    };
    const say = (body: number, chunk: WireChunk, cursor: string) =>
      bodies[body]?.enqueue(new TextEncoder().encode(frame(chunk, cursor)));
    const transport = world.transport({ fetch: stubborn });
    const reading = read(await transport.sendMessages(submit()));
    say(0, { type: "start", messageId: "a1" }, "1");
    await until(() => reading.chunks.length === 1);
    transport.drop("c1");
    say(0, { type: "text-start", id: "zombie" }, "2");
    await until(() => bodies.length === 2);
    say(0, { type: "text-start", id: "zombie" }, "3");
    await settle();
    say(1, { type: "text-start", id: "t1" }, "2");
    say(1, { type: "finish" }, "3");
    expect((await reading.end).chunks.map(({ id }) => id)).toEqual([undefined, "t1", undefined]);
  });
});

describe("a stream without cursor", () => {
  test("is null when nothing is active", async () => {
    expect(await resumed()).toBeNull();
    expect(world.statuses).toEqual(["connecting", "ended:idle"]);
  });

  test("is given at once, with what is there so far, then live", async () => {
    const run = world.server.begin("c1", ...reply("a1").slice(0, 4));
    const reading = await join();
    await until(() => reading.chunks.length === 4);
    run.append(...reply("a1").slice(4));
    expect((await reading.end).chunks).toEqual(reply("a1"));
    expect(world.server.of("GET")[0]?.headers["last-event-id"]).toBeUndefined();
  });

  test("survives a server that is not there yet", async () => {
    world.server.begin("c1", ...reply("a1"));
    world.server.run.status = "running";
    world.server.fault(
      "GET",
      { status: 503, retryAfter: 0 },
      { status: 502 },
      { loseRequest: true },
      { status: 500 },
    );
    const reading = await join();
    await until(() => reading.chunks.length === 8);
    expect((await reading.end).error).toBeUndefined();
    expect(world.server.count("GET")).toBe(5);
  });

  test("shows an unlogged error at once, and nothing of the snapshot before it", async () => {
    world.server.begin("c1", ...reply("a1").slice(0, 2));
    const half = frame({ type: "start", messageId: "wrong" });
    const error = frame({ type: "error", errorText: "busy", code: "store-unavailable" });
    world.server.fault("GET", { body: half + error + frame({ type: "start-step" }, "x/1") });
    const reading = await join();
    await until(() => reading.chunks.length === 2);
    expect(reading.chunks[0]?.messageId).toBe("a1");
    world.server.run.append({ type: "finish" });
    expect((await reading.end).error).toBeUndefined();
  });

  test("of a run that has ended meanwhile is over, not an error", async () => {
    world.server.begin("c1", ...reply("a1").slice(0, 2));
    world.server.fault("GET", { cutAfter: 30 }, {});
    const stream = resumed();
    await until(() => world.server.count("GET") === 1);
    world.server.runs.length = 0;
    const { chunks, error } = await read((await stream) as ReadableStream).end;
    expect([chunks, error]).toEqual([[], undefined]);
  });

  test.each([401, 403, 404])("is refused with %i", async (status) => {
    world.server.fault("GET", { status, code: "no" });
    await expect(resumed()).rejects.toMatchObject({ name: "StrandlineHttpError", status, problem: "no" });
    expect(world.server.count("GET")).toBe(1);
  });
});

describe("what cannot be continued", () => {
  const half = sizeOf(reply("a1").slice(0, 4)) - "data: [DONE]\n\n".length;
  const cutInTheMiddle = async (resyncs?: string[]) => {
    world.server.fault("POST", { cutAfter: half });
    const transport = world.transport(resyncs && { onResync: (chatId) => void resyncs.push(chatId) });
    return read(await transport.sendMessages(submit())).end;
  };

  test("raises an error of its own kind, and tells the application afterwards", async () => {
    const resyncs: string[] = [];
    world.server.fault("GET", { body: frame({ type: "error", errorText: "x", code: "resync" }) });
    const { chunks, error } = await cutInTheMiddle(resyncs);
    expect(chunks).toEqual(reply("a1").slice(0, 4));
    expect(error).toBeInstanceOf(StrandlineResyncError);
    expect(error).not.toBeInstanceOf(TypeError);
    expect(resyncs).toEqual([]);
    await until(() => resyncs.length === 1);
    expect(resyncs).toEqual(["c1"]);
    expect(world.server.count("GET")).toBe(1);
  });

  test("is just read anew when nothing was shown", async () => {
    world.server.fault("POST", { body: frame({ type: "error", errorText: "x", code: "resync" }) });
    const { chunks, error } = await read(await world.transport().sendMessages(submit())).end;
    expect([chunks, error]).toEqual([reply("a1"), undefined]);
    expect(world.server.of("GET")[0]?.headers["last-event-id"]).toBeUndefined();
  });

  test("includes an answer from the start to a request with a cursor", async () => {
    world.server.fault("GET", { headers: { "Strandline-Replay": "full" } });
    const { chunks, error } = await cutInTheMiddle();
    expect(chunks.length).toBe(4);
    expect(error).toBeInstanceOf(StrandlineResyncError);
  });

  test.each(["after its first words", "before them", "after a resume"])(
    "includes a run that the server does not know any more, %s",
    async (when) => {
      const cutAfter = when === "before them" ? 30 : half;
      world.server.fault("POST", { cutAfter });
      const transport = world.transport();
      let reading: Reading;
      if (when === "after a resume") {
        world.server.begin("c1", ...reply("a1").slice(0, 4));
        reading = await join("c1", transport);
        await until(() => reading.chunks.length === 4);
        world.server.runs.length = 0;
        transport.drop("c1");
      } else {
        const stream = await transport.sendMessages(submit());
        world.server.runs.length = 0;
        reading = read(stream);
      }
      const { chunks, error } = await reading.end;
      expect(chunks.length).toBe(when === "before them" ? 0 : 4);
      expect(error).toBeInstanceOf(StrandlineGoneError);
      expect(world.statuses.at(-1)).toBe("ended:gone");
    },
  );

  test.each([401, 403, 404])("includes a %i", async (status) => {
    world.server.fault("GET", { status, code: "no" });
    expect((await cutInTheMiddle()).error).toBeInstanceOf(StrandlineHttpError);
    expect(world.server.count("GET")).toBe(1);
  });

  test("includes a continuation of which nothing has come: the whole message would be added to itself", async () => {
    const messages = [{ id: "a0", role: "assistant" }];
    world.server.fault("POST", { cutAfter: 30 }, { cutAfter: half });
    const transport = world.transport();
    const call = { ...submit(), messageId: "a0", messages };
    expect((await read(await transport.sendMessages(call)).end).error).toBeInstanceOf(StrandlineResyncError);
    expect(world.server.count("GET")).toBe(0);
    const { chunks, error } = await read(await transport.sendMessages(call)).end;
    expect([chunks, error]).toEqual([reply("a2"), undefined]);
  });

  test("includes a frame that is not JSON", async () => {
    world.server.fault("POST", { body: "data: {oops\nid: 1\n\n" });
    expect((await cutInTheMiddle()).error).toBeInstanceOf(StrandlineProtocolError);
    expect(world.server.open.size).toBeLessThanOrEqual(1);
  });

  test.each(["store-unavailable", "shutting-down"])(
    "does not include `%s`, which is a drop",
    async (code) => {
      const some = [frame({ type: "start", messageId: "a1" }, "run1/1")];
      world.server.fault("POST", {
        body: [...some, frame({ type: "error", errorText: "x", code })].join(""),
      });
      const { chunks, error } = await cutInTheMiddle();
      expect([chunks, error]).toEqual([reply("a1"), undefined]);
      expect(world.statuses).toContain(`waiting:${code}`);
    },
  );

  test("does not include an answer by somebody else on the way", async () => {
    world.server.fault("GET", { headers: { "Content-Type": "text/html" } }, { status: 429 }, { status: 522 });
    const { chunks, error } = await cutInTheMiddle();
    expect([chunks, error]).toEqual([reply("a1"), undefined]);
    expect(world.server.count("GET")).toBe(4);
  });
});

describe("the end of a stream", () => {
  test("is a logged error, which is shown", async () => {
    const failure = { type: "error", errorText: "The model is on fire.", code: "agent" };
    world.server.script = () => [{ type: "start", messageId: "a1" }, failure];
    const { chunks, error } = await read(await world.transport().sendMessages(submit())).end;
    expect([chunks[1], error]).toEqual([failure, undefined]);
    expect(world.server.count("GET")).toBe(0);
    expect(world.statuses).toEqual(["connecting", "live", "ended:error"]);
  });

  test("is an abort, which is shown and then raised, after every word before it", async () => {
    world.server.script = (run) => [...reply(run.messageId).slice(0, 5), { type: "abort", reason: "enough" }];
    const { chunks, error } = await read(await world.transport().sendMessages(submit())).end;
    expect(chunks.map(({ type }) => type).slice(-2)).toEqual(["text-delta", "abort"]);
    expect(error).toMatchObject({ name: "AbortError", message: "enough" });
  });

  test("comes with the terminal chunk, and does not wait for the socket", async () => {
    world.server.script = () => [];
    const reading = read(await world.transport().sendMessages(submit()));
    const { run } = world.server;
    run.append(...reply("a1").slice(0, -1));
    run.log.push({ type: "finish" });
    for (const reader of run.readers) reader();
    await reading.end;
    expect(world.statuses.at(-1)).toBe("ended:finish");
    await until(() => world.server.open.size === 0);
  });

  test("is not `[DONE]` alone: that is a drop", async () => {
    world.server.fault("POST", {
      body: `${frame({ type: "start", messageId: "a1" }, "run1/1")}data: [DONE]\n\n`,
    });
    expect((await read(await world.transport().sendMessages(submit())).end).chunks).toEqual(reply("a1"));
  });

  test("is `[DONE]` where nothing is logged, as a steered request is answered", async () => {
    world.server.fault("POST", {
      body: `${frame({ type: "data-steered", data: 1, transient: true })}data: [DONE]\n\n`,
    });
    const { chunks, error } = await read(await world.transport().sendMessages(submit())).end;
    expect([chunks.length, error, world.server.count("GET")]).toEqual([1, undefined, 0]);
  });
});

describe("letting go", () => {
  test.each(["signal", "cancel", "close"])("by %s ends the stream at once and never the run", async (how) => {
    world.server.script = (run) => reply(run.messageId).slice(0, 4);
    const control = new AbortController();
    const transport = world.transport();
    const call = { ...submit(), abortSignal: control.signal };
    const stream = await transport.sendMessages(call);
    if (how === "cancel") {
      await stream.cancel();
    } else {
      const reading = read(stream);
      await until(() => reading.chunks.length === 4);
      if (how === "signal") control.abort();
      else transport.close();
      expect((await reading.end).error).toMatchObject({ name: "AbortError" });
    }
    await until(() => world.server.open.size === 0);
    await settle();
    expect(world.server.run.isActive).toBe(true);
    expect([world.server.count("STOP"), world.server.count("GET")]).toEqual([0, 0]);
    expect(world.statuses.at(-1)).toBe("ended:detached");
    expect(transport.activeRun("c1")).toBeNull();
  });

  test("while a resume is under way settles at once", async () => {
    const { gate, release } = createGate();
    world.server.fault("GET", { gate });
    const control = new AbortController();
    const resuming = world.transport().reconnectToStream({ chatId: "c1", abortSignal: control.signal });
    await until(() => world.server.count("GET") === 1);
    control.abort();
    await expect(resuming).rejects.toMatchObject({ name: "AbortError" });
    release();
  });

  test("before anything was sent sends nothing", async () => {
    const abortSignal = AbortSignal.abort();
    await expect(world.transport().sendMessages({ ...submit(), abortSignal })).rejects.toThrow();
    await expect(world.transport().reconnectToStream({ chatId: "c1", abortSignal })).rejects.toThrow();
    expect(world.server.seen).toEqual([]);
  });
});

test("a reader that does not read holds the server back and misses nothing", async () => {
  const deltas = Array.from({ length: 5_000 }, (_, i) => ({ type: "text-delta", id: "t1", delta: `${i}` }));
  world.server.script = () => [...deltas, { type: "finish" }];
  const stream = await world.transport().sendMessages(submit());
  await settle(200);
  expect((await read(stream).end).chunks).toEqual([...deltas, { type: "finish" }]);
});
