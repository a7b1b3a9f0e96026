/** Chance that can be repeated, and waiting that ends. */
import { randomUUID } from "node:crypto";

/** Returns the first value that is neither undefined, null nor false. Rejects after `ms`, saying what it waited for. */
export async function eventually<T>(
  what: string,
  look: () => T | undefined | null | false | Promise<T | undefined | null | false>,
  ms = 10_000,
  every = 5,
): Promise<T> {
  const end = Date.now() + ms;
  let last: unknown;
  for (;;) {
    try {
      const found = await look();
      if (found !== undefined && found !== null && found !== false) return found;
      last = undefined;
    } catch (error) {
      last = error;
    }
    if (Date.now() > end) {
      throw new Error(`waited ${ms} ms in vain until ${what}`, last === undefined ? {} : { cause: last });
    }
    await pause(every);
  }
}

/** Lets `ms` of the test's own schedule pass; not a way to wait for somebody else. */
export const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Rejects when the promise takes longer. */
export async function within<T>(ms: number, what: string, promise: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  try {
    return await Promise.race([
      promise,
      new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(new Error(`${what} took longer than ${ms} ms`)), ms);
      }),
    ]);
  } finally {
    clearTimeout(timer);
  }
}

export type Random = () => number;

/** mulberry32 */
function random(seed: number): Random {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

const BASE = Number(process.env.E2E_SEED ?? 20_251_004);

/** Runs a trial with its own chance; a failure says which one it was. `E2E_SEED` moves all of them. */
export async function trial<T>(
  name: string,
  number: number,
  body: (chance: Random) => Promise<T>,
): Promise<T> {
  let seed = BASE + number * 7919;
  for (const letter of name) seed = (Math.imul(seed, 31) + letter.charCodeAt(0)) >>> 0;
  try {
    return await body(random(seed));
  } catch (error) {
    if (error instanceof Error) {
      error.message = `[${name} #${number}, E2E_SEED=${BASE}] ${error.message}`;
      error.stack = `[${name} #${number}, E2E_SEED=${BASE}] ${error.stack}`;
    }
    throw error;
  }
}

/** All of them, `width` at a time; after a failure no more are begun, and the first failure is thrown. */
export async function pool<T>(
  items: Iterable<T>,
  width: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const queue = [...items];
  let failure: { error: unknown } | undefined;
  const worker = async () => {
    for (let item = queue.shift(); item !== undefined && failure === undefined; item = queue.shift()) {
      try {
        await work(item);
      } catch (error) {
        failure ??= { error };
      }
    }
  };
  await Promise.all(Array.from({ length: width }, worker));
  if (failure !== undefined) throw failure.error;
}

export const range = (count: number): number[] => Array.from({ length: count }, (_, i) => i);

/** `1 2 3 … n `, as the demo agent counts. */
export const counted = (to: number): string =>
  range(to)
    .map((i) => `${i + 1} `)
    .join("");

/** A name for a session that nobody else has. */
export const fresh = (name: string): string =>
  `${name.replace(/[^a-z0-9]+/gi, "-")}-${randomUUID().slice(0, 13)}`;
