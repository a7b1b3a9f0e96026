/** A message is sent once, in effect: repeated until it is answered, and never after that. */
import { StrandlineGaveUpError, StrandlineHttpError, StrandlineProtocolError, VERSION } from "strandline";
import { describe, expect, test, vi } from "vitest";
import { reply } from "./fake-server.js";
import { createGate, createWorld, read, settle, submit, until, user } from "./support.js";

const world = createWorld();

describe("the request", () => {
  test("carries the last message only, and says who it is from", async () => {
    const transport = world.transport({
      ai: 7,
      headers: () => ({ "X-App": "a" }),
      body: async () => ({ model: "m" }),
    });
    const call = {
      ...submit(),
      headers: { "X-Call": "b" },
      body: { temperature: 0 },
      metadata: { unsent: true },
    };
    await read(await transport.sendMessages(call)).end;
    const [post] = world.server.of("POST");
    expect(post?.body).toEqual({
      model: "m",
      temperature: 0,
      id: "c1",
      messages: [user("u1")],
      trigger: "submit-message",
    });
    expect(post?.headers).toMatchObject({
      "content-type": "application/json",
      "strandline-client": `shim/${VERSION}; ai=7`,
      "x-app": "a",
      "x-call": "b",
    });
    expect(post?.headers["idempotency-key"]).toMatch(/^[\x21-\x7e]{16,200}$/);
  });

  test("has a new key for every call, and names no version of the AI SDK that it was not told", async () => {
    const transport = world.transport();
    await read(await transport.sendMessages(submit())).end;
    await read(await transport.sendMessages(submit())).end;
    const [one, two] = world.server.of("POST").map(({ headers }) => headers);
    expect(one?.["idempotency-key"]).not.toBe(two?.["idempotency-key"]);
    expect(one?.["strandline-client"]).toBe(`shim/${VERSION}`);
  });

  const assistant = (id: string) => ({ id, role: "assistant", parts: [] });
  test.each([
    ["a regeneration: what is left", "regenerate-message", "a1", [user("u1")], ["u1"]],
    ["a regeneration of the first message: none", "regenerate-message", "a0", [], []],
    ["an edit: the edited message", "submit-message", "u1", [user("u0"), user("u1")], ["u1"]],
    ["a continuation: the assistant message", "submit-message", "a1", [user("u1"), assistant("a1")], ["a1"]],
    ["a continuation further up: that one", "submit-message", "a1", [assistant("a1"), user("u2")], ["a1"]],
  ] as const)("carries, for %s", async (_, trigger, messageId, messages, ids) => {
    const call = { ...submit(), trigger, messageId, messages: [...messages] };
    await read(await world.transport().sendMessages(call)).end;
    const body = world.server.of("POST")[0]?.body ?? {};
    expect(body).toMatchObject({ trigger, messageId });
    expect((body.messages as { id: string }[]).map(({ id }) => id)).toEqual(ids);
  });

  test("can be prepared by the application, as with the stock transport", async () => {
    const transport = world.transport({
      body: { model: "m" },
      prepareSendMessagesRequest: ({ id, messages, trigger, messageId, body, requestMetadata }) => ({
        body: { ...body, id, messages, trigger, messageId, about: requestMetadata },
        headers: { "X-Prepared": "yes" },
      }),
    });
    await read(await transport.sendMessages({ ...submit(), metadata: "notes" })).end;
    const [post] = world.server.of("POST");
    expect(post?.body).toMatchObject({ id: "c1", model: "m", about: "notes", messages: [{ id: "u1" }] });
    expect(post?.headers["x-prepared"]).toBe("yes");
  });

  test("has a key of its own on a page without `crypto.randomUUID`, too", async () => {
    vi.stubGlobal("crypto", {});
    const transport = world.transport({ clock: { ...world.eager, random: Math.random } });
    await read(await transport.sendMessages(submit())).end;
    expect(world.server.of("POST")[0]?.headers["idempotency-key"]).toMatch(/^[\x21-\x7e]{16,200}$/);
  });

  test("is refused before it is sent when it cannot be made, or the id could be a path", async () => {
    const oops = new Error("no body today");
    const transport = world.transport({ body: () => Promise.reject(oops) });
    await expect(transport.sendMessages(submit())).rejects.toBe(oops);
    await expect(transport.sendMessages(submit(".."))).rejects.toBeInstanceOf(StrandlineProtocolError);
    expect(world.server.seen).toEqual([]);
  });

  test("asks for the headers before every attempt, so that a token can be renewed", async () => {
    let token = 0;
    world.server.fault("POST", { status: 503 }, { cutAfter: 60 });
    const transport = world.transport({ headers: async () => ({ Authorization: `Bearer ${++token}` }) });
    await read(await transport.sendMessages(submit())).end;
    expect(world.server.seen.map(({ headers }) => headers.authorization)).toEqual([
      "Bearer 1",
      "Bearer 2",
      "Bearer 3",
    ]);
  });
});

describe("a message without answer", () => {
  test.each([
    ["the answer was lost", { loseAnswer: true }],
    ["the request was lost", { loseRequest: true }],
    ["a gateway answered 502", { status: 502 }],
    ["the server is starting", { status: 503, retryAfter: 0 }],
    ["a gateway gave up", { status: 504 }],
    ["the server crashed", { status: 500 }],
    ["there were too many", { status: 429, retryAfter: 0 }],
  ])("is repeated, the same one, and runs once: %s", async (_, fault) => {
    world.server.fault("POST", fault, fault, fault);
    const { chunks, error } = await read(await world.transport().sendMessages(submit())).end;
    expect([chunks, error]).toEqual([reply("a1"), undefined]);
    expect(world.server.runs.length).toBe(1);
    const posts = world.server.of("POST");
    expect(posts.length).toBe(4);
    expect(new Set(posts.map(({ headers }) => headers["idempotency-key"])).size).toBe(1);
    expect(new Set(posts.map(({ body }) => JSON.stringify(body))).size).toBe(1);
  });

  test.each([400, 401, 403, 404, 409, 413, 422, 429, 501])("is not repeated after %i", async (status) => {
    world.server.fault("POST", { status, code: "message-exists" });
    const error = await world
      .transport()
      .sendMessages(submit())
      .catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(StrandlineHttpError);
    expect(error).toMatchObject({
      code: "http",
      status,
      problem: "message-exists",
      detail: "The message-exists story.",
    });
    await settle();
    expect(world.server.seen.length).toBe(1);
    expect(world.statuses.at(-1)).toBe("ended:http");
  });

  test("is not repeated for ever when the server crashes over it", async () => {
    world.server.fault("POST", ...Array.from({ length: 9 }, () => ({ status: 500 })));
    await expect(world.transport().sendMessages(submit())).rejects.toMatchObject({ status: 500 });
    expect(world.server.count("POST")).toBe(4);
  });

  test("is sent again when nothing comes back, and whichever is answered first counts", async () => {
    const { gate, release } = createGate();
    world.server.fault("POST", { gate });
    world.server.script = (run) => reply(run.messageId).slice(0, 4);
    const sending = world.transport({ clock: world.clock }).sendMessages(submit());
    await until(() => world.server.count("POST") === 1);
    world.clock.advance(45_000);
    await until(() => world.clock.pending.length > 0);
    world.clock.advance(250);
    const reading = read(await sending);
    await until(() => reading.chunks.length === 4);
    release();
    await until(() => world.server.run.readers.size === 2);
    await until(() => world.server.open.size === 1);
    world.server.run.append(...reply("a1").slice(4));
    expect((await reading.end).chunks).toEqual(reply("a1"));
    expect([world.server.runs.length, world.server.count("POST")]).toEqual([1, 2]);
  });

  test("is given up on in the end, with the last reason", async () => {
    world.server.fault("POST", ...Array.from({ length: 99 }, () => ({ status: 503 })));
    const sending = world.transport({ clock: world.clock }).sendMessages(submit());
    const failed = sending.catch((error: unknown) => error);
    for (let i = 1; world.statuses.at(-1) !== "ended:gave-up"; i++) {
      await until(() => world.server.count("POST") === i && world.statuses.at(-1) === "waiting:http");
      world.clock.advance(Math.min(...world.clock.pending));
      await settle();
    }
    const error = await failed;
    expect(error).toBeInstanceOf(StrandlineGaveUpError);
    expect((error as Error).cause).toMatchObject({ status: 503 });
    expect(world.server.count("POST")).toBeGreaterThan(10);
  });

  test("waits as long as the server asks, whatever the page does", async () => {
    world.server.fault("POST", { status: 503, retryAfter: 7 });
    const sending = world.transport({ clock: world.clock }).sendMessages(submit());
    await until(() => world.statuses.at(-1) === "waiting:http");
    world.clock.advance(6_999);
    await settle();
    expect(world.server.count("POST")).toBe(1);
    world.clock.advance(251);
    await read(await sending).end;
    expect(world.server.count("POST")).toBe(2);
  });

  test("is refused at once when the server asks for more patience than there is", async () => {
    world.server.fault("POST", { status: 429, retryAfter: 3_600, code: "quota" });
    await expect(world.transport().sendMessages(submit())).rejects.toMatchObject({
      status: 429,
      problem: "quota",
    });
  });
});

describe("an answered message", () => {
  test("is never sent again, whatever becomes of the answer", async () => {
    world.server.fault("POST", { cutAfter: 0 });
    world.server.fault("GET", { status: 502 }, { loseAnswer: true, cutAfter: 3 }, { cutAfter: 40 });
    const { chunks } = await read(await world.transport().sendMessages(submit())).end;
    expect(chunks).toEqual(reply("a1"));
    expect(world.server.count("POST")).toBe(1);
    expect(world.server.of("GET").map(({ url }) => url.split("?")[1])).toEqual(Array(4).fill("run=run1"));
  });

  test("is a protocol error when it is not an event stream", async () => {
    world.server.fault("POST", { headers: { "Content-Type": "text/html" } });
    await expect(world.transport().sendMessages(submit())).rejects.toBeInstanceOf(StrandlineProtocolError);
    await settle();
    expect(world.server.seen.length).toBe(1);
  });
});

describe("an abort while the message is under way", () => {
  test("settles at once; the message arrives, and its answer is let go", async () => {
    const { gate, release } = createGate();
    world.server.fault("POST", { gate });
    world.server.script = (run) => reply(run.messageId).slice(0, 3);
    const control = new AbortController();
    const sending = world.transport().sendMessages({ ...submit(), abortSignal: control.signal });
    await until(() => world.server.count("POST") === 1);
    control.abort();
    await expect(sending).rejects.toMatchObject({ name: "AbortError" });
    expect(world.server.open.size).toBe(1);
    release();
    await until(() => world.server.open.size === 0);
    expect(world.server.run.isActive).toBe(true);
    await settle();
    expect(world.server.seen.length).toBe(1);
  });

  test("does not lose the message either when its answer is lost", async () => {
    const { gate, release } = createGate();
    world.server.fault("POST", { gate, loseRequest: true });
    const control = new AbortController();
    const sending = world.transport().sendMessages({ ...submit(), abortSignal: control.signal });
    await until(() => world.server.count("POST") === 1);
    control.abort();
    await expect(sending).rejects.toMatchObject({ name: "AbortError" });
    release();
    await until(() => world.server.runs.length === 1);
    expect(world.server.count("POST")).toBe(2);
    expect(world.statuses).toEqual(["connecting", "ended:detached"]);
  });

  test("by closing the transport ends the repetitions", async () => {
    world.server.fault("POST", ...Array.from({ length: 99 }, () => ({ status: 503 })));
    const transport = world.transport({ clock: world.clock });
    const sending = transport.sendMessages(submit());
    await until(() => world.statuses.at(-1) === "waiting:http");
    transport.close();
    await expect(sending).rejects.toMatchObject({ name: "AbortError" });
    expect(world.clock.pending).toEqual([]);
  });
});
