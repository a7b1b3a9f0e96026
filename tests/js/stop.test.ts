/** Stop is a request of its own, and what it ends shows on every stream. */
import { describe, expect, test } from "vitest";
import { reply } from "./fake-server.js";
import { createGate, createWorld, read, submit, until } from "./support.js";

const world = createWorld();

/** A chat in the middle of a reply. */
async function talking() {
  world.server.script = (run) => reply(run.messageId).slice(0, 4);
  const transport = world.transport();
  const reading = read(await transport.sendMessages(submit()));
  await until(() => reading.chunks.length === 4);
  return { transport, reading };
}

describe("stop", () => {
  test("names the run that is shown, and leaves the end to the server", async () => {
    const { transport, reading } = await talking();
    expect(transport.activeRun("c1")).toEqual({ run: "run1", messageId: "a1" });
    const result = await transport.stop("c1", { reason: "enough" });
    expect(result).toMatchObject({ run: "run1", status: "stopped", stopped: true, reason: "enough" });
    const { chunks, error } = await reading.end;
    expect(chunks).toEqual([...reply("a1").slice(0, 4), { type: "abort", reason: "enough" }]);
    expect(error).toMatchObject({ name: "AbortError" });
    const [stop] = world.server.of("STOP");
    expect(stop?.url).toBe("/api/chat/c1/stop");
    expect(stop?.body).toEqual({ run: "run1", reason: "enough" });
    expect(stop?.headers["strandline-client"]).toMatch(/^shim\//);
    expect(transport.activeRun("c1")).toBeNull();
  });

  test("ends the stream of another device as well", async () => {
    const { transport, reading } = await talking();
    const other = world.transport();
    const joined = read((await other.reconnectToStream({ chatId: "c1" })) as ReadableStream);
    await until(() => joined.chunks.length === 4);
    await other.stop("c1");
    expect((await reading.end).error).toMatchObject({ name: "AbortError" });
    expect((await joined.end).error).toMatchObject({ name: "AbortError" });
    expect(transport.activeRun("c1")).toBeNull();
  });

  test("still means the run after the stream was let go", async () => {
    const { transport, reading } = await talking();
    transport.close();
    await reading.end;
    expect(await transport.stop("c1")).toMatchObject({ run: "run1", stopped: true });
    expect(world.server.of("STOP")[0]?.body).toEqual({ run: "run1" });
  });

  test("outlives the page that asks for it", async () => {
    const kept: (boolean | undefined)[] = [];
    const transport = world.transport({
      fetch: (url, init) => {
        kept.push(init?.keepalive);
        return fetch(url, init);
      },
    });
    await read(await transport.sendMessages(submit())).end;
    await transport.stop("c1");
    expect(kept).toEqual([undefined, true]);
  });

  test("means whatever is active when nothing is shown", async () => {
    world.server.begin("c1", { type: "start", messageId: "a1" });
    expect(await world.transport().stop("c1")).toMatchObject({ run: "run1", stopped: true });
    expect(world.server.of("STOP")[0]?.body).toEqual({});
  });

  test("does not mean a reply that has ended, because a newer one may be active", async () => {
    const transport = world.transport();
    await read(await transport.sendMessages(submit())).end;
    world.server.begin("c1", { type: "start", messageId: "a2" });
    expect(await transport.stop("c1")).toMatchObject({ run: "run2", stopped: true });
  });

  test.each([{ loseAnswer: true }, { status: 502 }, { status: 503, retryAfter: 0 }, { status: 500 }])(
    "is repeated until it is answered: %o",
    async (fault) => {
      const { transport, reading } = await talking();
      world.server.fault("STOP", fault, fault);
      expect(await transport.stop("c1")).toMatchObject({ run: "run1", status: "stopped" });
      expect((await reading.end).error).toMatchObject({ name: "AbortError" });
      expect(world.server.count("STOP")).toBe(3);
    },
  );

  test("of a chat that the server does not know is idle; other refusals are raised", async () => {
    const transport = world.transport();
    expect(await transport.stop("nobody")).toEqual({ run: null, status: "idle", stopped: false });
    world.server.fault("STOP", { status: 403, code: "forbidden" });
    await expect(transport.stop("nobody")).rejects.toMatchObject({
      name: "StrandlineHttpError",
      status: 403,
    });
  });

  test("makes a stream that waits for its next attempt look now", async () => {
    const { transport } = await talking();
    transport.close();
    const patient = world.transport({ clock: world.clock });
    const reading = read((await patient.reconnectToStream({ chatId: "c1" })) as ReadableStream);
    await until(() => reading.chunks.length === 4);
    world.server.fault("GET", { status: 502 });
    patient.drop("c1");
    await until(() => world.statuses.at(-1) === "waiting:dropped");
    world.clock.advance(250);
    await until(() => world.statuses.at(-1) === "waiting:http");
    await patient.stop("c1");
    expect((await reading.end).error).toMatchObject({ name: "AbortError" });
  });
});

test("the status of a chat is that of what it asked for last", async () => {
  const { transport, reading } = await talking();
  world.server.script = (run) => reply(run.messageId);
  const { chunks } = await read(await transport.sendMessages(submit("c1", "u2"))).end;
  expect(chunks).toEqual(reply("a2"));
  const seen = world.statuses.length;
  world.server.runs[0]?.append({ type: "abort", reason: "interrupted" });
  expect((await reading.end).error).toMatchObject({ name: "AbortError" });
  expect(world.statuses.slice(seen)).toEqual([]);
});

describe("stop before the message has been answered", () => {
  test("names the message by its key, and the run is born stopped", async () => {
    const { gate, release } = createGate();
    world.server.fault("POST", { gate });
    const transport = world.transport();
    const sending = transport.sendMessages(submit());
    await until(() => world.server.count("POST") === 1);
    expect(transport.activeRun("c1")).toEqual({ run: undefined, messageId: undefined });
    expect(await transport.stop("c1")).toEqual({ run: null, status: "remembered", stopped: false });
    const key = world.server.of("POST")[0]?.headers["idempotency-key"];
    expect(world.server.of("STOP")[0]?.body).toEqual({ key, messageId: "u1" });
    release();
    const { chunks, error } = await read(await sending).end;
    expect(chunks.map(({ type }) => type)).toEqual(["abort"]);
    expect(error).toMatchObject({ name: "AbortError" });
  });

  test("names an edit or a regeneration by its key only: the message is not new", async () => {
    const { gate, release } = createGate();
    world.server.fault("POST", { gate });
    const transport = world.transport();
    const sending = transport.sendMessages({ ...submit(), trigger: "regenerate-message" });
    await until(() => world.server.count("POST") === 1);
    await transport.stop("c1");
    expect(Object.keys(world.server.of("STOP")[0]?.body ?? {})).toEqual(["key"]);
    release();
    await read(await sending).end;
  });

  test("repeats the message only as long as the server remembers the stop", async () => {
    world.server.fault("POST", ...Array.from({ length: 99 }, () => ({ status: 503 })));
    const transport = world.transport({ clock: world.clock });
    const failed = transport.sendMessages(submit()).catch((error: unknown) => error);
    await until(() => world.statuses.at(-1) === "waiting:http");
    await transport.stop("c1");
    const stopped = world.clock.now();
    while (!world.statuses.at(-1)?.startsWith("ended")) {
      await until(() => world.clock.pending.length > 0);
      world.clock.advance(Math.min(...world.clock.pending));
      await until(() => /^(waiting|ended)/.test(world.statuses.at(-1) ?? ""));
    }
    expect(world.clock.now() - stopped).toBeLessThan(60_000);
    expect(await failed).toMatchObject({ code: "gave-up" });
  });
});
