/** How long to wait before trying again, and when to stop trying. */
import { abortError, StrandlineGaveUpError } from "./errors.js";
import { isAwake, isOnline, watchWake } from "./wake.js";

/** Time and chance, so that a test can be their master. */
export interface Clock {
  /** Milliseconds; need not start anywhere. */
  now(): number;
  setTimeout(callback: () => void, ms: number): unknown;
  clearTimeout(timer: unknown): void;
  /** At least 0, below 1. */
  random(): number;
}

export const systemClock: Clock = {
  // Not performance.now(): that one stands still while some systems sleep, and a stalled stream would look fresh.
  now: () => Date.now(),
  setTimeout: (callback, ms) => setTimeout(callback, ms),
  clearTimeout: (timer) => clearTimeout(timer as number),
  random: () => Math.random(),
};

export interface RetryOptions {
  /** Upper bound of the first wait. Default 250. */
  minDelayMs: number;
  /** Upper bound of every wait, except one that the server asked for. Default 10 000. */
  maxDelayMs: number;
  /** Time without progress after which an error is raised. Time offline or hidden does not count. Default 120 000. */
  giveUpAfterMs: number;
}

export const DEFAULT_RETRY: RetryOptions = {
  minDelayMs: 250,
  maxDelayMs: 10_000,
  giveUpAfterMs: 120_000,
};

/** A failed attempt, and the wait that the server asked for with `Retry-After`. */
export interface Failure {
  cause: unknown;
  retryAfterMs?: number | undefined;
}

export interface Wait {
  delayMs: number;
  attempt: number;
  online: boolean;
  cause: unknown;
}

export interface Backoff {
  /**
   * Resolves when it is time for the next attempt. Rejects with `StrandlineGaveUpError`, or when `signal` aborts, or
   * with the cause of a failure that asks for a longer wait than there is patience.
   */
  pause(failure: Failure): Promise<void>;
  /** Something arrived: the next failure is a first one again. */
  progress(): void;
  /** Ends a wait now, unless the server asked for it. */
  poke(): void;
  /** Gives up this much later than now at the latest. */
  limit(ms: number): void;
}

/**
 * A machine that slept runs none of our timers, and then claims that hours went by. No single step lasts longer than
 * this while it is awake, so no more is counted for one.
 */
const LONGEST_STEP_MS = 60_000;

/**
 * Full jitter: each wait is a random part of a bound that doubles, so that the readers of a server that restarts do
 * not come back together. Its listener is removed when `signal` aborts, which the owner must make happen.
 */
export function createBackoff(
  clock: Clock,
  retry: RetryOptions,
  signal: AbortSignal,
  onWait: (wait: Wait) => void,
): Backoff {
  let attempt = 0;
  let deadline = Number.POSITIVE_INFINITY;
  let spent = 0;
  let counted = clock.now();
  let awake = isAwake();
  let wake: (() => void) | undefined;

  // Time is counted up to every change of the page's state, as what the state was until then.
  const count = () => {
    const now = clock.now();
    if (awake) spent += Math.max(0, Math.min(now - counted, LONGEST_STEP_MS));
    counted = now;
    awake = isAwake();
  };
  const unwatch = watchWake((change) => {
    count();
    if (change === "back") wake?.();
  });
  signal.addEventListener("abort", unwatch, { once: true });

  const left = () => Math.min(retry.giveUpAfterMs - spent, deadline - clock.now());
  const giveUp = (cause: unknown) => {
    if (left() <= 0) throw new StrandlineGaveUpError(cause);
  };

  return {
    async pause({ cause, retryAfterMs }) {
      count();
      if (attempt === 0) spent = 0;
      giveUp(cause);
      // Come back tomorrow: that is an answer, not a drop.
      if (retryAfterMs !== undefined && retryAfterMs > retry.giveUpAfterMs) throw cause;
      const bound = Math.min(retry.maxDelayMs, retry.minDelayMs * 2 ** attempt++);
      const wanted = (retryAfterMs ?? 0) + clock.random() * bound;
      const delayMs = Math.min(wanted, left());
      onWait({ delayMs, attempt, online: isOnline(), cause });
      await sleep(delayMs, retryAfterMs === undefined);
      count();
      giveUp(cause);
    },
    progress() {
      attempt = 0;
    },
    poke: () => wake?.(),
    limit(ms) {
      deadline = Math.min(deadline, clock.now() + ms);
    },
  };

  function sleep(ms: number, wakes: boolean): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(abortError());
      const end = (settle: () => void) => {
        clock.clearTimeout(timer);
        signal.removeEventListener("abort", aborted);
        wake = undefined;
        settle();
      };
      const aborted = () => end(() => reject(abortError()));
      const timer = clock.setTimeout(() => end(resolve), ms);
      signal.addEventListener("abort", aborted);
      if (wakes) wake = () => end(resolve);
    });
  }
}

/** How long until something that was not there, so many times in a row, is asked for again. */
export const absentMs = (times: number): number => Math.min(15_000, 1_000 * 1.5 ** times);

/** `Retry-After` in milliseconds: it is seconds or a date (RFC 9110 §10.2.3). Undefined when absent or nonsense. */
export function retryAfter(response: Response): number | undefined {
  const value = response.headers.get("Retry-After");
  if (value === null) return undefined;
  const ms = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now();
  return Number.isNaN(ms) ? undefined : Math.max(0, ms);
}

/** Whether the same request may succeed later. 501 and 505 to 511 are about the request itself. */
export const isTransient = (response: Response): boolean =>
  response.status === 500 ||
  (response.status > 501 && response.status < 505) ||
  isEdgeFailure(response.status) ||
  (response.status === 429 && response.headers.has("Retry-After"));

// What Cloudflare answers while the origin is away.
const isEdgeFailure = (status: number): boolean => status >= 520 && status <= 530;
