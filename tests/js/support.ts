/** Time that a test owns, and ways to wait for what the other side of a socket does. */

import {
  type InternalOptions,
  type StrandlineTransport,
  type StrandlineTransportOptions,
  strandlineTransport,
} from "strandline/ai-sdk";
import { afterEach, beforeEach, expect, vi } from "vitest";
import { FakeServer, type WireChunk } from "./fake-server.js";

type Clock = NonNullable<InternalOptions["clock"]>;

/** Stands still until it is told to go on. Chance always takes the upper bound, nearly. */
export class FakeClock implements Clock {
  time = 1_000_000;
  chance = 0.999_999;
  private timers = new Map<number, { at: number; callback: () => void }>();
  private last = 0;

  now = () => this.time;
  random = () => this.chance;
  setTimeout = (callback: () => void, ms: number): unknown => {
    this.timers.set(++this.last, { at: this.time + ms, callback });
    return this.last;
  };
  clearTimeout = (timer: unknown): void => void this.timers.delete(timer as number);

  /** How long the pending timers have to go, shortest first. */
  get pending(): number[] {
    return [...this.timers.values()].map(({ at }) => Math.round(at - this.time)).sort((a, b) => a - b);
  }

  advance(ms: number): void {
    const end = this.time + ms;
    for (;;) {
      const due = [...this.timers].filter(([, { at }]) => at <= end).sort(([, a], [, b]) => a.at - b.at)[0];
      if (due === undefined) break;
      this.timers.delete(due[0]);
      this.time = Math.max(this.time, due[1].at);
      due[1].callback();
    }
    this.time = end;
  }
}

/** The clock of the machine, with the shortest waits there are. Counts timers that are still there. */
export class EagerClock implements Clock {
  readonly timers = new Set<unknown>();
  now = () => Date.now();
  random = () => 0;
  setTimeout = (callback: () => void, ms: number): unknown => {
    const timer = setTimeout(() => {
      this.timers.delete(timer);
      callback();
    }, ms);
    this.timers.add(timer);
    return timer;
  };
  clearTimeout = (timer: unknown): void => {
    clearTimeout(timer as NodeJS.Timeout);
    this.timers.delete(timer);
  };
}

/** Waits, without sleeping, until something is so. */
export async function until(isSo: () => boolean, what = isSo.toString()): Promise<void> {
  const end = Date.now() + 4_000;
  while (!isSo()) {
    if (Date.now() > end) throw new Error(`waited in vain for: ${what}`);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

/** Lets what is under way on the sockets happen; for things that must not happen. */
export async function settle(turns = 30): Promise<void> {
  for (let i = 0; i < turns; i++) await new Promise((resolve) => setImmediate(resolve));
}

export function createGate(): { gate: Promise<void>; release: () => void } {
  let release = () => {};
  const gate = new Promise<void>((resolve) => {
    release = resolve;
  });
  return { gate, release };
}

export interface Reading {
  chunks: WireChunk[];
  error: unknown;
  done: boolean;
  end: Promise<Reading>;
}

/** Reads a stream to its end, whatever that is. */
export function read(stream: ReadableStream<unknown>): Reading {
  const reading: Reading = { chunks: [], error: undefined, done: false, end: Promise.resolve() as never };
  reading.end = (async () => {
    try {
      for await (const chunk of stream as unknown as AsyncIterable<WireChunk>) reading.chunks.push(chunk);
    } catch (error) {
      reading.error = error;
    }
    reading.done = true;
    return reading;
  })();
  return reading;
}

export interface World {
  server: FakeServer;
  clock: FakeClock;
  eager: EagerClock;
  statuses: string[];
  transport(options?: StrandlineTransportOptions & InternalOptions): StrandlineTransport;
}

/** A server and transports to it, new for each test; afterwards nothing may be left of them. */
export function createWorld(): World {
  const world = { transport } as World;
  const transports: StrandlineTransport[] = [];
  function transport(options: StrandlineTransportOptions & InternalOptions = {}): StrandlineTransport {
    const made = strandlineTransport({
      api: world.server.api,
      clock: world.eager,
      onStatus: (_, status, { reason }) => void world.statuses.push(reason ? `${status}:${reason}` : status),
      ...options,
    });
    transports.push(made);
    return made;
  }
  beforeEach(async () => {
    world.server = await FakeServer.start();
    world.clock = new FakeClock();
    world.eager = new EagerClock();
    world.statuses = [];
  });
  afterEach(async () => {
    for (const made of transports.splice(0)) made.close();
    expect(world.eager.timers.size, "timers left behind").toBe(0);
    expect(world.clock.pending, "timers left behind").toEqual([]);
    await world.server.close();
    vi.unstubAllGlobals();
  });
  return world;
}

export const user = (id: string, text = "hi") => ({ id, role: "user", parts: [{ type: "text", text }] });

/** A new message, as a chat sends it. */
export const submit = (chatId = "c1", id = "u1") => ({
  trigger: "submit-message" as const,
  chatId,
  messageId: undefined,
  messages: [user("u0", "before"), user(id)],
  abortSignal: undefined,
});
