/** When it tries again, when it gives up, and what the page has to do with it. */
import { reportVisibility, StrandlineGaveUpError } from "strandline";
import type { StrandlineTransportOptions } from "strandline/ai-sdk";
import { describe, expect, test } from "vitest";
import { frame, reply } from "./fake-server.js";
import { openPage } from "./page.js";
import { createGate, createWorld, read, settle, submit, until } from "./support.js";

const world = createWorld();
const last = () => world.statuses.at(-1) ?? "";
const down = { status: 502 };

/** A chat in the middle of a reply, on a clock that stands still. */
async function talking(options: StrandlineTransportOptions = {}) {
  world.server.script = (run) => reply(run.messageId).slice(0, 4);
  const transport = world.transport({ clock: world.clock, ...options });
  const reading = read(await transport.sendMessages(submit()));
  await until(() => reading.chunks.length === 4);
  return { transport, reading };
}

const finish = () => world.server.run.append(...reply("a1").slice(4));

/** A `fetch` into whose answers a test can put the server's comments. */
function withHeartbeat() {
  let beat = () => {};
  const beating: typeof fetch = async (...args) => {
    const response = await fetch(...args);
    if (response.body === null || !response.ok) return response;
    const beats = new TransformStream<Uint8Array, Uint8Array>({
      start(controller) {
        beat = () => controller.enqueue(new TextEncoder().encode(": hb\n"));
      },
    });
    return new Response(response.body.pipeThrough(beats), response);
  };
  return { fetch: beating, beat: () => beat() };
}

describe("a silent connection", () => {
  test("is cut after `stallAfterMs`, and the reply goes on", async () => {
    const { reading } = await talking();
    world.clock.advance(44_999);
    await settle();
    expect(world.server.count("GET")).toBe(0);
    world.clock.advance(1);
    await until(() => last() === "waiting:stalled");
    world.clock.advance(250);
    await until(() => world.server.count("GET") === 1);
    finish();
    expect((await reading.end).chunks).toEqual(reply("a1"));
  });

  test("is not one whose server sends comments", async () => {
    const { beat, fetch } = withHeartbeat();
    const { reading } = await talking({ fetch });
    for (let i = 0; i < 20; i++) {
      world.clock.advance(15_000);
      beat();
      await settle(5);
    }
    expect(world.server.count("GET")).toBe(0);
    finish();
    expect((await reading.end).chunks).toEqual(reply("a1"));
  });

  test("is not one that waits for its reader", async () => {
    const deltas = Array.from({ length: 3_000 }, (_, i) => ({ type: "text-delta", id: "t1", delta: `${i}` }));
    world.server.script = () => [...deltas, { type: "finish" }];
    const stream = await world.transport({ clock: world.clock }).sendMessages(submit());
    await settle(200);
    world.clock.advance(300_000);
    await settle();
    expect((await read(stream).end).chunks.length).toBe(3_001);
    expect(world.server.count("GET")).toBe(0);
  });

  test("includes a resume that gets no headers", async () => {
    const { reading, transport } = await talking();
    world.server.fault("GET", { gate: new Promise(() => {}) });
    transport.drop("c1");
    await until(() => last() === "waiting:dropped");
    world.clock.advance(250);
    await until(() => world.server.count("GET") === 1);
    world.clock.advance(45_000);
    await until(() => last() === "waiting:stalled");
    world.clock.advance(500);
    await until(() => world.server.count("GET") === 2);
    finish();
    expect((await reading.end).chunks).toEqual(reply("a1"));
  });
});

describe("the wait between attempts", () => {
  /** The waits of a stream whose server is away. */
  async function waits(count: number, options: StrandlineTransportOptions = {}): Promise<number[]> {
    const delays: number[] = [];
    world.server.fault("GET", ...Array.from({ length: count }, () => down));
    const { transport, reading } = await talking({
      ...options,
      onStatus: (_, status, { delayMs }) => {
        world.statuses.push(status);
        if (status === "waiting") delays.push(Math.round(delayMs ?? -1));
      },
    });
    transport.drop("c1");
    for (let i = 1; i <= count; i++) {
      await until(() => delays.length === i && last() === "waiting");
      world.clock.advance(Math.min(...world.clock.pending));
    }
    finish();
    await until(() => delays.length === count || reading.done);
    transport.close();
    return delays.slice(0, count);
  }

  test("doubles up to its bound", async () => {
    expect(await waits(8)).toEqual([250, 500, 1_000, 2_000, 4_000, 8_000, 10_000, 10_000]);
  });

  test("is a random part of that", async () => {
    world.clock.chance = 0.5;
    expect(await waits(3, { retry: { minDelayMs: 1_000 } })).toEqual([500, 1_000, 2_000]);
  });

  test("begins anew when something has arrived", async () => {
    const { transport, reading } = await talking();
    for (let i = 0; i < 3; i++) {
      transport.drop("c1");
      await until(() => last().startsWith("waiting"));
      expect(Math.min(...world.clock.pending)).toBe(250);
      world.clock.advance(250);
      await until(() => last() === "live");
      world.server.run.append({ type: "text-delta", id: "t1", delta: `${i}` });
      await until(() => reading.chunks.length === 5 + i);
    }
  });

  test("begins anew when an answer has lasted, though it brought only comments", async () => {
    const { beat, fetch } = withHeartbeat();
    const { transport } = await talking({ fetch });
    world.server.fault("GET", down);
    transport.drop("c1");
    for (const expected of [250, 500]) {
      await until(() => last().startsWith("waiting"));
      expect(Math.min(...world.clock.pending)).toBe(expected);
      world.statuses.push("looking");
      world.clock.advance(expected);
    }
    await until(() => last() === "live");
    for (let i = 0; i < 2; i++) {
      world.clock.advance(15_000);
      beat();
      await settle();
    }
    transport.drop("c1");
    await until(() => last() === "waiting:dropped");
    expect(Math.min(...world.clock.pending)).toBe(250);
  });

  test("does not begin anew for an answer that brings nothing", async () => {
    const { transport } = await talking();
    transport.drop("c1");
    world.server.fault("GET", { cutAfter: 13, cleanly: true }, { cutAfter: 13 });
    for (const expected of [250, 500, 1_000]) {
      await until(() => last().startsWith("waiting"));
      expect(Math.min(...world.clock.pending)).toBe(expected);
      world.statuses.length = 0;
      world.clock.advance(expected);
    }
  });
});

describe("patience", () => {
  /** Fails for as long as it is told to; gives back how long that was. */
  async function failFor(ms: number): Promise<void> {
    const end = world.clock.now() + ms;
    for (;;) {
      await until(() => /^(waiting|offline|ended)/.test(last()));
      if (last().startsWith("ended")) return;
      const next = Math.min(...world.clock.pending);
      if (world.clock.now() + next > end) return world.clock.advance(end - world.clock.now());
      world.statuses.push("looking");
      world.clock.advance(next);
    }
  }

  async function cutOff() {
    world.server.fault("GET", ...Array.from({ length: 500 }, () => down));
    const { transport, reading } = await talking();
    transport.drop("c1");
    await until(() => last() === "waiting:dropped");
    return { transport, reading };
  }

  test("ends after `giveUpAfterMs` without progress, with an error that does not look like a lost connection", async () => {
    const { reading } = await cutOff();
    const start = world.clock.now();
    await failFor(500_000);
    const { error, chunks } = await reading.end;
    expect(world.clock.now() - start).toBe(120_000);
    expect(chunks.length).toBe(4);
    expect(error).toBeInstanceOf(StrandlineGaveUpError);
    expect(error).not.toBeInstanceOf(TypeError);
    expect(String(error)).not.toMatch(/fetch|network/i);
    expect(last()).toBe("ended:gave-up");
  });

  test("is not used up while the page is offline or hidden", async () => {
    const page = openPage();
    const { reading } = await cutOff();
    await failFor(100_000);
    page.online(false);
    await failFor(600_000);
    page.online(true);
    page.visible(false);
    await failFor(600_000);
    page.visible(true);
    expect(reading.done).toBe(false);
    await failFor(600_000);
    expect((await reading.end).error).toBeInstanceOf(StrandlineGaveUpError);
  });

  test("is not used up by a machine that slept", async () => {
    const { reading } = await cutOff();
    world.clock.time += 8 * 3_600_000;
    world.clock.advance(0);
    await until(() => last() === "waiting:http");
    expect(reading.done).toBe(false);
  });
});

describe("the page", () => {
  test.each(["online", "pageshow", "visible"])("ends a wait when it says %s", async (event) => {
    const page = openPage();
    world.server.fault("GET", down, down);
    const { transport, reading } = await talking();
    transport.drop("c1");
    await until(() => last() === "waiting:dropped");
    world.clock.advance(250);
    await until(() => last() === "waiting:http");
    world.clock.advance(500);
    await until(() => world.server.count("GET") === 2 && last() === "waiting:http");
    if (event === "online") page.online(true);
    if (event === "pageshow") page.restored();
    if (event === "visible") page.visible(true);
    await until(() => last() === "live");
    finish();
    expect((await reading.end).chunks).toEqual(reply("a1"));
  });

  test("does not shorten a wait that the server asked for", async () => {
    const page = openPage();
    world.server.fault("GET", { status: 503, retryAfter: 5 });
    const { transport } = await talking();
    transport.drop("c1");
    await until(() => last() === "waiting:dropped");
    page.online(true);
    await until(() => last() === "waiting:http");
    page.online(true);
    page.restored();
    await settle();
    expect(world.server.count("GET")).toBe(1);
  });

  test("makes it look again at once, on coming back, when a connection was silent for too long", async () => {
    const page = openPage();
    const { reading } = await talking();
    world.clock.advance(19_000);
    page.visible(true);
    await settle();
    expect(world.server.count("GET")).toBe(0);
    page.visible(false);
    world.clock.advance(2_000);
    await settle();
    expect(world.server.count("GET")).toBe(0);
    page.visible(true);
    await until(() => last() === "live" && world.server.count("GET") === 1);
    expect(world.statuses).not.toContain("waiting:stale");
    finish();
    expect((await reading.end).chunks).toEqual(reply("a1"));
  });

  test("is reported as offline when the browser is sure of it", async () => {
    const page = openPage();
    const { transport } = await talking();
    page.online(false);
    transport.drop("c1");
    await until(() => last() === "offline:dropped");
    page.online(false);
    page.visible(false);
    await settle();
    expect(world.server.count("GET")).toBe(0);
  });

  test("that is hidden for long lets go of its connection, and has the whole reply when it is back", async () => {
    const page = openPage();
    const { reading } = await talking({ hiddenMs: 60_000, stallAfterMs: 1e9 });
    page.visible(false);
    world.clock.advance(59_999);
    await settle();
    expect(world.server.open.size).toBe(1);
    world.clock.advance(1);
    await until(() => last() === "waiting:hidden" && world.server.open.size === 0);
    finish();
    world.clock.advance(3_600_000);
    await settle();
    expect(world.server.count("GET")).toBe(0);
    page.visible(true);
    expect((await reading.end).chunks).toEqual(reply("a1"));
    expect(world.server.count("GET")).toBe(1);
  });

  test("that was hidden from the start is no other", async () => {
    const page = openPage();
    page.visible(false);
    const { reading } = await talking({ hiddenMs: 1_000 });
    world.clock.advance(1_000);
    await until(() => world.server.open.size === 0);
    finish();
    page.visible(true);
    expect((await reading.end).chunks).toEqual(reply("a1"));
  });

  test("that is left for the back/forward cache has no connection, and reads on when it comes back", async () => {
    const page = openPage();
    const { reading } = await talking();
    page.left();
    await until(() => world.server.open.size === 0);
    finish();
    await settle();
    page.restored();
    expect((await reading.end).chunks).toEqual(reply("a1"));
  });

  test("that is hidden when the answer comes reads it when it is back", async () => {
    const page = openPage();
    world.server.script = (run) => reply(run.messageId);
    const { gate, release } = createGate();
    world.server.fault("POST", { gate });
    const transport = world.transport({ clock: world.clock, hiddenMs: 1_000 });
    const sent = transport.sendMessages(submit());
    page.visible(false);
    world.clock.advance(1_000);
    release();
    const reading = read(await sent);
    await until(() => last() === "waiting:hidden");
    page.visible(true);
    expect((await reading.end).chunks).toEqual(reply("a1"));
    expect(world.server.runs.length).toBe(1);
  });

  test("is listened to only while a stream is open", async () => {
    const page = openPage();
    const { transport, reading } = await talking();
    const second = read((await transport.reconnectToStream({ chatId: "c1" })) as ReadableStream);
    expect(page.listening).toBe(7);
    finish();
    await Promise.all([reading.end, second.end]);
    expect(page.listening).toBe(0);
  });
});

test("an application whose status listener throws has its reply all the same", async () => {
  const transport = world.transport({
    onStatus() {
      throw new Error("oops");
    },
  });
  expect((await read(await transport.sendMessages(submit())).end).chunks).toEqual(reply("a1"));
});

test("a frame is understood as what it is", async () => {
  const odd = frame({ type: "start", messageId: "a1" }, "1").replaceAll("\n", "\r\n");
  const poison = `data: {"type":"data-x","data":{"__proto__":{"bad":1},"\\u005f_proto__":2,"é":"\\u00e9"}}\nid: 2\n\n`;
  world.server.fault("POST", {
    body: `${odd}retry: never\nwhat: ever\n\n${poison}${frame({ type: "finish" }, "3")}`,
  });
  const { chunks, error } = await read(await world.transport().sendMessages(submit())).end;
  expect(error).toBeUndefined();
  expect(JSON.stringify(chunks[1])).toBe('{"type":"data-x","data":{"é":"é"}}');
});

// The last one: what was told stays said.
describe("an application that has no document", () => {
  test("tells whether somebody looks", async () => {
    const { reading } = await talking({ hiddenMs: 1_000 });
    reportVisibility(false);
    world.clock.advance(1_000);
    await until(() => world.server.open.size === 0);
    finish();
    reportVisibility(true);
    expect((await reading.end).chunks).toEqual(reply("a1"));
  });
});
