/** The acknowledgement of what was applied (PROTOCOL §8.11): never ahead of it, a few words at a time. */
import type { Clock } from "./backoff.js";

export interface Receipt {
  /** Everything up to this cursor was applied. `isEnd`: a reply is complete, which somebody may be waiting to hear. */
  applied(cursor: string, isEnd: boolean): void;
  /** The server has heard of it: it was presented when connecting. */
  presented(cursor: string): void;
  /** Says now what has not been said. */
  flush(): void;
  /** Begins anew. */
  clear(): void;
}

const WITHIN_MS = 2_000;
const END_WITHIN_MS = 200;

/** `send` may fail: what was lost is made up for by the next. */
export function createReceipt(clock: Clock, send: (cursor: string) => void): Receipt {
  let applied: string | undefined;
  let said: string | undefined;
  let timer: unknown;

  const stopTimer = () => {
    clock.clearTimeout(timer);
    timer = undefined;
  };
  const flush = () => {
    stopTimer();
    if (applied === undefined || applied === said) return;
    said = applied;
    send(applied);
  };
  return {
    applied(cursor, isEnd) {
      applied = cursor;
      if (timer !== undefined && !isEnd) return;
      stopTimer();
      timer = clock.setTimeout(flush, isEnd ? END_WITHIN_MS : WITHIN_MS);
    },
    presented(cursor) {
      said = cursor;
    },
    flush,
    clear() {
      stopTimer();
      applied = said = undefined;
    },
  };
}
