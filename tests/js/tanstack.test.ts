/** The TanStack connection where a real chat and a real server do not reach: time, requests, and what waits. */
import type { SubscribeConnectionAdapter } from "@tanstack/ai-client";
import { reportVisibility } from "strandline";
import {
  type InternalOptions,
  type StrandlineConnectionOptions,
  strandlineConnection,
} from "strandline/tanstack";
import { afterEach, describe, expect, test } from "vitest";
import { createChunkQueue } from "../../js-adapter/src/chunk-queue.js";
import { FakeClock, settle, until } from "./support.js";

// The adapter fits the client without a cast. (Checked by the compiler; never called.)
void ((): SubscribeConnectionAdapter => strandlineConnection({ threadId: "t" }));

interface Asked {
  method: string;
  path: string;
  headers: Headers;
  body: Record<string, unknown>;
}

type Chunk = Record<string, unknown> & { type: string };

/** A thread at the server, as far as this connection sees one. */
class FakeThread {
  readonly asked: Asked[] = [];
  messages: object[] = [];
  cursor: string | null = "c.1.0";
  leaf: string | null = null;
  activeRun: { runId: string } | null = null;
  /** Answers of the next requests, before the ordinary ones. */
  readonly instead: (Response | Promise<Response> | Error)[] = [];
  private readonly open = new Set<ReadableStreamDefaultController<Uint8Array>>();

  readonly fetch = async (input: RequestInfo | URL, init: RequestInit = {}): Promise<Response> => {
    const { pathname, search } = new URL(String(input), "http://x");
    const body = init.body == null ? {} : JSON.parse(String(init.body));
    const headers = new Headers(init.headers);
    this.asked.push({ method: init.method ?? "GET", path: pathname + search, headers, body });
    const instead = this.instead.shift();
    if (instead instanceof Error) throw instead;
    if (instead !== undefined) return instead;
    if (pathname.endsWith("/events")) return this.stream(init.signal ?? undefined);
    if (init.method !== "POST") return Response.json({ ...this.loaded(), interrupts: null });
    if (pathname.endsWith("/stop")) return Response.json({ run: "r1", status: "stopped", stopped: true });
    return Response.json({ runId: body.runId, messageId: "m1" }, { status: 202 });
  };

  loaded() {
    const { messages, cursor, leaf, activeRun } = this;
    const rest = { page: { truncated: false }, branches: {}, authors: {}, more: false, seq: 0 };
    return { messages, cursor, leaf, activeRun, ...rest };
  }

  private stream(signal: AbortSignal | undefined): Response {
    let controller!: ReadableStreamDefaultController<Uint8Array>;
    const body = new ReadableStream<Uint8Array>({
      start: (started) => {
        controller = started;
        this.open.add(started);
      },
      cancel: () => void this.open.delete(controller),
    });
    signal?.addEventListener("abort", () => this.open.delete(controller));
    return new Response(body, { headers: { "Content-Type": "text/event-stream" } });
  }

  get readers(): number {
    return this.open.size;
  }

  say(chunk: Chunk, cursor?: string): void {
    const id = cursor === undefined ? "" : `id: ${cursor}\n`;
    const bytes = new TextEncoder().encode(`${id}data: ${JSON.stringify(chunk)}\n\n`);
    for (const each of this.open) each.enqueue(bytes);
  }

  of(method: string, part = ""): Asked[] {
    return this.asked.filter((each) => each.method === method && each.path.includes(part));
  }
}

function begin(options: Partial<StrandlineConnectionOptions & InternalOptions> = {}) {
  const thread = new FakeThread();
  const clock = new FakeClock();
  const statuses: string[] = [];
  const connection = strandlineConnection({
    url: "http://x/api/tanstack",
    threadId: "t",
    fetch: thread.fetch as typeof fetch,
    clock,
    onStatus: (status, { reason }) => void statuses.push(reason ? `${status}:${reason}` : status),
    ...options,
  });
  const told: Chunk[] = [];
  const left = new AbortController();
  let error: unknown;
  const subscribe = async () => {
    try {
      for await (const chunk of connection.subscribe<Chunk>(left.signal)) told.push(chunk);
    } catch (thrown) {
      error = thrown;
    }
  };
  /** Subscribed, loaded, and following. */
  const live = async () => {
    const ended = subscribe();
    for (const _ of [1, 2]) {
      clock.advance(0);
      await settle();
    }
    await until(() => thread.readers === 1);
    return { ended };
  };
  const types = () => told.map(({ type }) => type);
  return { thread, clock, statuses, connection, told, types, left, subscribe, live, error: () => error };
}

const started = (runId: string, parent: string | null, message: string): Chunk => ({
  type: "RUN_STARTED",
  runId,
  metadata: { strandline: { parent, message } },
});
const word = (delta: string): Chunk => ({ type: "TEXT_MESSAGE_CONTENT", messageId: "m1", delta });

afterEach(() => reportVisibility(true));

describe("what waits for the chat", () => {
  test("adjacent deltas become one; what lies between stays in order", async () => {
    const queue = createChunkQueue();
    for (const chunk of [
      word("a"),
      word("b"),
      { ...word("c"), messageId: "m2" },
      { type: "TOOL_CALL_ARGS", toolCallId: "k", delta: "{" },
      { type: "TOOL_CALL_ARGS", toolCallId: "k", delta: "}" },
      { ...word("d"), metadata: { x: 1 } },
      word("e"),
      { type: "RUN_FINISHED" },
    ])
      queue.push(chunk);
    queue.end();
    const found = [];
    for await (const chunk of queue) found.push(`${chunk.type} ${chunk.delta ?? ""}`);
    expect(found).toEqual([
      "TEXT_MESSAGE_CONTENT ab",
      "TEXT_MESSAGE_CONTENT c",
      "TOOL_CALL_ARGS {}",
      "TEXT_MESSAGE_CONTENT d",
      "TEXT_MESSAGE_CONTENT e",
      "RUN_FINISHED ",
    ]);
  });

  test("a snapshot replaces it, but for the ends of runs", async () => {
    const queue = createChunkQueue();
    for (const type of ["RUN_STARTED", "TEXT_MESSAGE_START", "RUN_FINISHED", "MESSAGES_SNAPSHOT"])
      queue.push({ type });
    queue.push(word("a"));
    queue.end(new Error("over"));
    const found: string[] = [];
    const reading = (async () => {
      for await (const chunk of queue) found.push(chunk.type);
    })();
    await expect(reading).rejects.toThrow("over");
    expect(found).toEqual(["RUN_STARTED", "RUN_FINISHED", "MESSAGES_SNAPSHOT", "TEXT_MESSAGE_CONTENT"]);
  });
});

describe("requests", () => {
  test("a message is sent alone, with what came along, and who reads", async () => {
    const { connection, thread } = begin({
      headers: () => ({ Authorization: "Bearer 1" }),
      device: "phone",
      reader: "page",
    });
    const source = { type: "url", value: "https://x/y.png", mimeType: "image/png" };
    const parts = [
      { type: "text", content: "look" },
      { type: "image", source },
    ];
    await connection.send(
      [
        { id: "u0", role: "user", parts: [] },
        { id: "u1", role: "user", parts },
      ],
      { model: "a" },
      undefined,
      {
        runId: "r1",
        forwardedProps: { model: "b" },
        clientTools: [{ name: "t" }],
        headers: { "x-byok-a": "k" },
      },
    );
    const [{ body, headers }] = thread.of("POST") as [Asked];
    expect(body).toMatchObject({
      threadId: "t",
      runId: "r1",
      forwardedProps: { model: "b" },
      tools: [{ name: "t" }],
      messages: [
        {
          id: "u1",
          role: "user",
          content: [
            { type: "text", text: "look" },
            { type: "image", source },
          ],
        },
      ],
    });
    for (const [name, value] of [
      ["authorization", "Bearer 1"],
      ["x-byok-a", "k"],
      ["prefer", "respond-async"],
      ["strandline-device", "phone"],
      ["strandline-reader", "page"],
      ["content-type", "application/json"],
    ] as const)
      expect(headers.get(name)).toBe(value);
    expect(headers.get("strandline-client")).toMatch(/^shim\//);
  });

  test("one text is sent as a string; what is no user message without its parts", async () => {
    const { connection, thread } = begin();
    await connection.send([{ id: "u1", role: "user", parts: [{ type: "text", content: "hi" }] }]);
    await connection.send([{ id: "a1", role: "assistant", parts: [{ type: "tool-call" }] }]);
    expect(thread.of("POST").map(({ body }) => body.messages)).toEqual([
      [{ id: "u1", role: "user", content: "hi" }],
      [{ id: "a1", role: "assistant", content: "" }],
    ]);
  });

  test("a send that is aborted rejects at once, and its POST is repeated all the same", async () => {
    const { connection, thread, clock } = begin();
    thread.instead.push(new TypeError("no network"));
    const abort = new AbortController();
    const sent = connection.send([], {}, abort.signal, { runId: "r1" });
    const failed = expect(sent).rejects.toMatchObject({ name: "AbortError" });
    await settle();
    abort.abort();
    await failed;
    clock.advance(250);
    await until(() => thread.of("POST").length === 2);
    expect(new Set(thread.of("POST").map(({ body }) => body.runId))).toEqual(new Set(["r1"]));
  });

  test("stop names the run that was sent last until it has ended, then none", async () => {
    const { connection, thread, live, told } = begin();
    await live();
    await connection.send(
      [{ id: "u1", role: "user", parts: [{ type: "text", content: "hi" }] }],
      {},
      undefined,
      {
        runId: "r1",
      },
    );
    await connection.stop(undefined, { reason: "tired" });
    thread.say(started("r1", null, "m1"), "c.2.1");
    thread.say({ type: "RUN_FINISHED", runId: "r1" }, "c.3.1");
    await until(() => told.some(({ type }) => type === "RUN_FINISHED"));
    await connection.stop();
    await connection.stop("r7");
    expect(thread.of("POST", "/stop").map(({ body }) => body)).toEqual([
      { threadId: "t", runId: "r1", reason: "tired" },
      { threadId: "t" },
      { threadId: "t", runId: "r7" },
    ]);
    expect(thread.of("POST", "/stop")[0]?.headers.get("content-type")).toBe("application/json");
  });

  test("a stop of what the server does not know is no error", async () => {
    const { connection, thread } = begin();
    thread.instead.push(Response.json({ code: "not-found" }, { status: 404 }));
    expect(await connection.stop()).toEqual({ run: null, status: "idle", stopped: false });
  });
});

describe("the subscription", () => {
  test("has one connection, and follows from where the conversation was loaded", async () => {
    const { thread, live, told } = begin();
    thread.messages = [{ id: "u1", role: "user", parts: [] }];
    await live();
    expect(told).toEqual([{ type: "MESSAGES_SNAPSHOT", messages: thread.messages }]);
    expect(thread.of("GET", "/events")[0]?.headers.get("last-event-id")).toBe("c.1.0");
  });

  test("frames without an id are one with the next that has one: half of them was never there", async () => {
    const { thread, live, types, connection, clock, told } = begin();
    await live();
    thread.say(started("r1", null, "m1"));
    thread.say(word("half"));
    await settle();
    expect(connection.drop()).toBe(true);
    await settle();
    clock.advance(250);
    await until(() => thread.of("GET", "/events").length === 2);
    await settle();
    expect(types()).toEqual(["RAW"]);
    thread.say(started("r1", null, "m1"));
    thread.say(word("whole"), "c.4.2");
    await until(() => types().length === 3);
    expect(types()).toEqual(["RAW", "RUN_STARTED", "TEXT_MESSAGE_CONTENT"]);
    expect(told.at(-1)?.delta).toBe("whole");
  });

  test("is not told errors that are not in the log", async () => {
    const { thread, live, types } = begin();
    await live();
    thread.say({ type: "RUN_ERROR", code: "shutting-down", message: "later" });
    thread.say(started("r1", null, "m1"), "c.2.1");
    await until(() => types().length === 2);
    expect(types()).toEqual(["RAW", "RUN_STARTED"]);
  });

  test("lets go when the page is hidden for long, and reads on from its cursor", async () => {
    const { thread, live, clock, statuses, told } = begin({ stallAfterMs: 600_000 });
    await live();
    thread.say(started("r1", null, "m1"), "c.2.1");
    await until(() => told.length === 2);
    reportVisibility(false);
    clock.advance(60_000);
    await until(() => statuses.at(-1) === "waiting:hidden");
    expect(thread.readers).toBe(0);
    reportVisibility(true);
    await until(() => thread.readers === 1);
    expect(thread.of("GET", "/events").at(-1)?.headers.get("last-event-id")).toBe("c.2.1");
    thread.say(word("on"), "c.3.1");
    await until(() => told.length === 3);
  });

  test("a server that cannot be followed is asked ever later, and never given up", async () => {
    const { thread, live, clock } = begin();
    await live();
    const waits: number[] = [];
    for (let attempt = 0; attempt < 9; attempt++) {
      const loads = thread.of("GET", "?threadId").length;
      thread.say({ type: "RUN_ERROR", code: "resync", message: "again" });
      await until(() => thread.readers === 0);
      let waited = 0;
      while (thread.of("GET", "?threadId").length === loads && waited < 60_000) {
        const next = clock.pending.find((ms) => ms >= 0) ?? 0;
        clock.advance(next);
        waited += next;
        await settle(5);
      }
      waits.push(waited);
      clock.advance(0);
      await until(() => thread.readers === 1);
    }
    expect(waits[0]).toBe(0);
    expect(waits.slice(1)).toEqual([...waits.slice(1)].sort((a, b) => a - b));
    expect(waits.at(-1)).toBe(10_000);
  });

  test("a thread that does not exist is asked for again, ever later, and at once when something was sent", async () => {
    const { thread, clock, subscribe, statuses, connection } = begin();
    thread.cursor = null;
    void subscribe();
    const waits: number[] = [];
    for (let loads = 1; loads < 10; loads++) {
      clock.advance(clock.pending[0] ?? 0);
      await until(() => thread.of("GET").length === loads);
      await settle(5);
      clock.advance(0);
      await settle(5);
      waits.push(clock.pending[0] ?? 0);
    }
    expect(statuses.at(-1)).toBe("waiting:absent");
    expect(waits).toEqual([1000, 1500, 2250, 3375, 5063, 7594, 11391, 15000, 15000]);
    thread.cursor = "c.1.0";
    await connection.send([], {}, undefined, { runId: "r1" });
    clock.advance(0);
    await until(() => thread.of("GET").length === 10);
    clock.advance(0);
    await until(() => thread.readers === 1);
  });

  test("what the server refuses ends it", async () => {
    const { thread, clock, subscribe, error } = begin();
    thread.instead.push(Response.json({ code: "unauthorized", detail: "Who?" }, { status: 401 }));
    const ended = subscribe();
    clock.advance(0);
    await ended;
    expect(error()).toMatchObject({ code: "http", status: 401, problem: "unauthorized" });
  });

  test("a listener that throws ends nothing, and close() leaves nothing behind", async () => {
    const { connection, thread, live, clock } = begin({
      onStatus: () => {
        throw new Error("mine");
      },
    });
    const { ended } = await live();
    connection.close();
    await ended;
    expect(thread.readers).toBe(0);
    expect(clock.pending).toEqual([]);
  });

  test("the newest subscription is told, and the one before ends", async () => {
    const { connection, thread, live, clock, told } = begin();
    const { ended } = await live();
    const again: Chunk[] = [];
    void (async () => {
      for await (const chunk of connection.subscribe<Chunk>()) again.push(chunk);
    })();
    await ended;
    for (const _ of [1, 2]) {
      clock.advance(0);
      await settle();
    }
    await until(() => thread.readers === 1);
    thread.say(started("r1", null, "m1"), "c.2.1");
    await until(() => again.some(({ type }) => type === "RUN_STARTED"));
    expect(told.some(({ type }) => type === "RUN_STARTED")).toBe(false);
    connection.close();
  });
});

describe("a join", () => {
  test("goes on from the answer that named the run", async () => {
    const { connection, thread, clock } = begin();
    thread.activeRun = { runId: "r1" };
    const asked = [connection.hydrate<{ activeRun: unknown }>("t"), connection.hydrate("t")];
    expect(await asked[0]).toMatchObject({ activeRun: { runId: "r1" } });
    clock.advance(0);
    const found: string[] = [];
    const joined = (async () => {
      for await (const chunk of connection.joinRun<Chunk>("r1")) found.push(chunk.type);
    })();
    await until(() => thread.readers === 1);
    thread.say(started("r1", "whatever", "m1"), "c.2.1");
    thread.say({ type: "RUN_FINISHED", runId: "r1" }, "c.3.1");
    await joined;
    expect(found).toEqual(["RAW", "RUN_STARTED", "RUN_FINISHED"]);
    expect(thread.of("GET").map(({ path }) => path.split("?")[0])).toEqual([
      "/api/tanstack",
      "/api/tanstack/events",
    ]);
    await until(() => thread.readers === 0);
  });

  test("of a run that has ended meanwhile is told the conversation and an end", async () => {
    const { connection, thread, clock } = begin();
    thread.messages = [{ id: "u1", role: "user", parts: [] }];
    const found: string[] = [];
    const joined = (async () => {
      for await (const chunk of connection.joinRun<Chunk>("r1")) found.push(chunk.type);
    })();
    for (const _ of [1, 2]) {
      clock.advance(0);
      await settle();
    }
    await joined;
    expect(found).toEqual(["MESSAGES_SNAPSHOT", "RUN_FINISHED"]);
    expect(thread.readers).toBe(0);
  });

  test("ends at once when everything comes by the subscription", async () => {
    const { connection, live, thread } = begin();
    await live();
    for await (const chunk of connection.joinRun("r1")) expect(chunk).toBeUndefined();
    expect(thread.readers).toBe(1);
    connection.close();
  });
});

describe("the end of a run that this chat waits for", () => {
  const send = async (made: Pick<ReturnType<typeof begin>, "connection">, n = 1) => {
    const parts = [{ type: "text", content: "hi" }];
    await made.connection.send([{ id: `u${n}`, role: "user", parts }], {}, undefined, { runId: `r${n}` });
  };

  test("is made up when the conversation that is loaded shows that it is over", async () => {
    const made = begin();
    await made.live();
    await send(made);
    made.thread.messages = [{ id: "u1" }, { id: "m1" }].map((each) => ({ ...each, role: "user", parts: [] }));
    made.thread.leaf = "m1";
    made.thread.say({ type: "RUN_ERROR", code: "resync", message: "again" });
    await settle();
    for (const _ of [1, 2]) {
      made.clock.advance(0);
      await settle();
    }
    await until(() => made.types().includes("RUN_FINISHED"));
    expect(made.types().filter((type) => type === "RUN_FINISHED").length).toBe(1);
    made.connection.close();
  });

  test("is made up when the answer comes later than that", async () => {
    const made = begin();
    await made.live();
    let answer = (_: Response) => {};
    made.thread.instead.push(
      new Promise((resolve) => {
        answer = resolve;
      }),
    );
    const sent = send(made);
    await settle();
    made.thread.messages = [{ id: "u1" }, { id: "m1" }].map((each) => ({ ...each, role: "user", parts: [] }));
    made.thread.leaf = "m1";
    made.thread.say({ type: "RUN_ERROR", code: "resync", message: "again" });
    await settle();
    for (const _ of [1, 2]) {
      made.clock.advance(0);
      await settle();
    }
    expect(made.types().filter((type) => type.startsWith("RUN_"))).toEqual([]);
    answer(Response.json({ runId: "r1", messageId: "m1" }, { status: 202 }));
    await sent;
    await until(() => made.types().includes("RUN_FINISHED"));
    made.connection.close();
  });

  test("that it has turned away from is no error", async () => {
    const made = begin();
    await made.live();
    const abort = new AbortController();
    await made.connection.send([], {}, abort.signal, { runId: "r1" });
    made.thread.say(started("r1", null, "m1"), "c.2.1");
    await until(() => made.types().includes("RUN_STARTED"));
    abort.abort();
    made.thread.say(word("late"), "c.3.1");
    made.thread.say({ type: "RUN_ERROR", runId: "r1", message: "no" }, "c.4.1");
    await until(() => made.types().includes("RUN_FINISHED"));
    expect(made.types().filter((type) => type.includes("CONTENT") || type.includes("ERROR"))).toEqual([]);
    made.connection.close();
  });

  test("is looked for when it does not begin", async () => {
    const made = begin();
    await made.live();
    await send(made);
    const loads = made.thread.of("GET", "?threadId").length;
    made.clock.advance(2_000);
    await settle();
    made.clock.advance(0);
    await until(() => made.thread.of("GET", "?threadId").length === loads + 1);
    await settle();
    made.clock.advance(0);
    await until(() => made.types().includes("RUN_FINISHED"));
    made.connection.close();
  });

  test("a reply that was written when it was sent is shown anew when it has ended", async () => {
    const made = begin();
    await made.live();
    made.thread.say(started("r0", null, "m0"), "c.2.1");
    await until(() => made.types().includes("RUN_STARTED"));
    await send(made);
    const loads = made.thread.of("GET", "?threadId").length;
    made.thread.say({ type: "RUN_FINISHED", runId: "r0" }, "c.3.1");
    await until(() => made.types().length === 3);
    made.clock.advance(0);
    await until(() => made.thread.of("GET", "?threadId").length === loads + 1);
    made.connection.close();
  });

  test("what was sent stays shown until the server has it, and then only where the server has it", async () => {
    const made = begin();
    await made.live();
    const again = async () => {
      made.thread.say({ type: "RUN_ERROR", code: "resync", message: "again" });
      await until(() => made.thread.readers === 0);
      for (const _ of [1, 2]) {
        made.clock.advance(made.clock.pending[0] ?? 0);
        await settle();
      }
      await until(() => made.thread.readers === 1);
      return made.told.findLast(({ type }) => type === "MESSAGES_SNAPSHOT")?.messages as { id: string }[];
    };
    let answer = (_: Response) => {};
    made.thread.instead.push(
      new Promise((resolve) => {
        answer = resolve;
      }),
    );
    const sent = send(made);
    await settle();
    expect((await again()).map(({ id }) => id)).toEqual(["u1"]);
    answer(Response.json({ runId: "r1", messageId: "m1" }, { status: 202 }));
    await sent;
    expect(await again()).toEqual([]);
    made.connection.close();
  });

  test("is in a conversation that was told before, and that the chat takes afterwards", async () => {
    const { connection, thread, clock } = begin();
    thread.messages = [{ id: "u0", role: "user", parts: [] }];
    const chunks = connection.subscribe<Chunk>()[Symbol.asyncIterator]();
    // A chat takes one chunk at a time, and now it has something else to do.
    const first = chunks.next();
    for (const _ of [1, 2]) {
      clock.advance(0);
      await settle();
    }
    await until(() => thread.readers === 1);
    await first;
    thread.messages = [...thread.messages, { id: "m0", role: "assistant", parts: [] }];
    thread.say({ type: "RUN_ERROR", code: "resync", message: "again" });
    await until(() => thread.readers === 0);
    for (const _ of [1, 2]) {
      clock.advance(clock.pending[0] ?? 0);
      await settle();
    }
    await until(() => thread.readers === 1);
    await send({ connection });
    const { value } = await chunks.next();
    expect(value).toMatchObject({
      type: "MESSAGES_SNAPSHOT",
      messages: [{ id: "u0" }, { id: "m0" }, { id: "u1" }],
    });
    connection.close();
  });

  test("is not made up of a run that was asked for while the conversation was on its way", async () => {
    const made = begin();
    await made.live();
    await send(made);
    const held = [0, 1].map(() => {
      let answer = (_: object, __?: ResponseInit) => {};
      const response = new Promise<Response>((resolve) => {
        answer = (body, init) => resolve(Response.json(body, init));
      });
      made.thread.instead.push(response);
      return answer;
    });
    made.thread.say({ type: "RUN_ERROR", code: "resync", message: "again" });
    await until(() => made.thread.readers === 0);
    made.clock.advance(made.clock.pending[0] ?? 0);
    await settle();
    const sent = send(made, 2);
    await settle();
    held[0]?.({ ...made.thread.loaded(), interrupts: null });
    await settle();
    made.clock.advance(made.clock.pending[0] ?? 0);
    await until(() => made.thread.readers === 1);
    expect(made.told.filter(({ type, runId }) => type === "RUN_FINISHED" && runId === "r2")).toEqual([]);
    held[1]?.({ runId: "r2", messageId: "m2" }, { status: 202 });
    await sent;
    made.connection.close();
  });

  test("is not the end of another run", async () => {
    const made = begin();
    await made.live();
    made.thread.say(started("r0", null, "m0"), "c.2.1");
    await until(() => made.types().includes("RUN_STARTED"));
    await send(made);
    made.thread.say({ type: "RUN_ERROR", runId: "r0", message: "no" }, "c.3.1");
    await until(() => made.types().length === 3);
    expect(made.told.at(-1)).toMatchObject({
      type: "RUN_FINISHED",
      runId: "r0",
      metadata: { tanstack: { finishReason: "tool_calls" } },
    });
    made.connection.close();
  });

  test("is not the end of another run that was told before, and that the chat takes afterwards", async () => {
    const { connection, thread, clock } = begin();
    const chunks = connection.subscribe<Chunk>()[Symbol.asyncIterator]();
    const first = chunks.next();
    for (const _ of [1, 2]) {
      clock.advance(0);
      await settle();
    }
    await until(() => thread.readers === 1);
    await first;
    thread.say(started("r0", null, "m0"), "c.2.1");
    thread.say({ type: "RUN_FINISHED", runId: "r0", outcome: { type: "success" } }, "c.3.1");
    await settle();
    expect((await chunks.next()).value).toMatchObject({ type: "RUN_STARTED" });
    await send({ connection });
    expect((await chunks.next()).value).toMatchObject({
      type: "RUN_FINISHED",
      runId: "r0",
      metadata: { tanstack: { finishReason: "tool_calls" } },
    });
    connection.close();
  });
});
