/**
 * When nobody looks. A page that is hidden for long gives its connection back: browsers allow few per server, servers
 * allow few per person, and a page with an open one is not kept in the back/forward cache.
 */
import type { Clock } from "./backoff.js";
import { isHidden, watchWake } from "./wake.js";

export interface Away {
  readonly isAway: boolean;
  /** Resolves when the page is back. Undefined while it is here. */
  back(): Promise<void> | undefined;
  /** The application knows better: the page counts as back. */
  poke(): void;
}

/** Default of `hiddenMs`. */
export const HIDDEN_MS = 60_000;

/** More than that a timer cannot wait, and fires at once. */
const LONGEST_TIMER = 2 ** 31 - 1;

/**
 * Calls `onAway` when the page has been hidden for `hiddenMs`, and when it is left. Nothing remains of it when `signal`
 * aborts, which the owner must make happen.
 */
export function createAway(clock: Clock, hiddenMs: number, signal: AbortSignal, onAway: () => void): Away {
  let isAway = false;
  let timer: unknown;
  const waiting: (() => void)[] = [];

  const stopTimer = () => {
    clock.clearTimeout(timer);
    timer = undefined;
  };
  const leave = () => {
    stopTimer();
    if (isAway) return;
    isAway = true;
    onAway();
  };
  const comeBack = () => {
    stopTimer();
    isAway = false;
    for (const resolve of waiting.splice(0)) resolve();
  };
  const startTimer = () => {
    if (!isAway && timer === undefined && hiddenMs <= LONGEST_TIMER)
      timer = clock.setTimeout(leave, hiddenMs);
  };

  const unwatch = watchWake((change) => {
    if (change === "gone") leave();
    else if (isHidden()) startTimer();
    else if (change === "back") comeBack();
  });
  if (isHidden()) startTimer();
  signal.addEventListener("abort", () => {
    unwatch();
    comeBack();
  });

  return {
    get isAway() {
      return isAway;
    },
    back: () => (isAway ? new Promise((resolve) => waiting.push(resolve)) : undefined),
    poke() {
      comeBack();
      if (isHidden()) startTimer();
    },
  };
}
