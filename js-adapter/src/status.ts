/** What an application is told about a stream while it looks after itself. */
import type { Wait } from "./backoff.js";
import { StrandlineError } from "./errors.js";

/** `offline` is `waiting` while the browser knows that there is no way out. `ended` comes once, and last. */
export type StreamStatus = "connecting" | "live" | "waiting" | "offline" | "ended";

export interface StatusDetail {
  /** The run that is read, once the server has named it. */
  run?: string | undefined;
  /** How many attempts have failed since something last arrived. */
  attempt?: number;
  /** How long it waits before the next attempt. */
  delayMs?: number;
  /**
   * Why it waits: `closed`, `failed`, `stalled`, `dropped`, the code of an unlogged error frame, or `http`. How it
   * ended: `finish`, `abort` or `error` as the run did, `idle` when nothing was active, `detached`, or the code of a
   * `StrandlineError`.
   */
  reason?: string;
  error?: unknown;
}

export type OnStatus = (status: StreamStatus, detail: StatusDetail) => void;

export const reportWait =
  (onStatus: OnStatus, run: () => string | undefined) =>
  ({ online, attempt, delayMs, cause }: Wait): void =>
    onStatus(online ? "waiting" : "offline", {
      run: run(),
      attempt,
      delayMs,
      reason: reasonOf(cause),
      error: cause,
    });

export function reasonOf(cause: unknown): string {
  if (cause instanceof StrandlineError) return cause.code;
  if (typeof cause === "string") return cause;
  return (cause as Error | undefined)?.name === "AbortError" ? "detached" : "failed";
}
