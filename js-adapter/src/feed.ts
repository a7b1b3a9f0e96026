/**
 * One event stream that is kept open for ever: reads frames, remembers the cursor, and after every end, whatever its
 * cause, opens the next connection where the last one was cut. Only the newest connection delivers. What a request
 * looks like and what the frames mean is not known here.
 */
import { createAway } from "./away.js";
import { type Backoff, type Clock, createBackoff, type RetryOptions } from "./backoff.js";
import { ask, type Connection, createConnection, type Drop, readFrames } from "./connection.js";
import type { StrandlineError } from "./errors.js";
import { HEARTBEAT_MS } from "./protocol.js";
import type { Chunk } from "./sse.js";
import { type OnStatus, reportWait } from "./status.js";
import { watchWake } from "./wake.js";

export interface FeedOptions {
  clock: Clock;
  /** It never gives up. */
  retry: Pick<RetryOptions, "minDelayMs" | "maxDelayMs">;
  /** Silence after which a connection counts as dead. */
  stallAfterMs: number;
  /** A page that is hidden for longer lets go of its connection, and reads on when it is back. */
  hiddenMs: number;
  /** Sends the GET. Rejects when there was no answer, or with a `StrandlineError` when asking again is no use. */
  request(cursor: string | undefined, signal: AbortSignal): Promise<Response>;
  /**
   * One frame, in order, once. Its cursor counts as reached when this returns; a frame without one has undefined. When
   * it throws, the connection is dropped and the frame comes again. It may call `stop` and `restart`.
   */
  onFrame(data: Chunk, cursor: string | undefined): void;
  /** `connecting`, `live`, `waiting` (also with reason `hidden`), `offline`. */
  onStatus: OnStatus;
  /** The server said no (4xx but 429): a `StrandlineHttpError`. The feed has stopped; it can be started again. */
  onRefused(error: StrandlineError): void;
}

export interface Feed {
  readonly isRunning: boolean;
  /** Connects. When it runs already this is a `poke`. */
  start(): void;
  /** Lets go of the connection. Nothing is delivered any more. */
  stop(): void;
  /** Goes on after this cursor, or without one: what runs reconnects, what is stopped will start there. */
  restart(cursor: string | undefined): void;
  /** Ends a wait, unless the server asked for it, also that of a page that is not looked at. */
  poke(): void;
  /** Cuts the connection as if its socket had died. False when none is open. */
  drop(): boolean;
}

/** A server that says "come back tomorrow" is asked again a little earlier. */
const LONGEST_WAIT_MS = 3_600_000;

/** These are no failures: the next attempt need not wait. */
const AT_ONCE = new Set(["stale", "hidden"]);

export function createFeed(options: FeedOptions): Feed {
  const { clock, stallAfterMs, hiddenMs, onFrame, onStatus, onRefused } = options;
  const retry = { ...options.retry, giveUpAfterMs: Number.POSITIVE_INFINITY };
  let life: AbortController | undefined;
  let current: Connection | undefined;
  let cursor: string | undefined;
  let wake: (() => void) | undefined;

  const feed: Feed = {
    get isRunning() {
      return life !== undefined;
    },
    start() {
      if (life !== undefined) return feed.poke();
      life = new AbortController();
      void follow(life.signal);
    },
    stop() {
      life?.abort();
      life = undefined;
      current?.cut("stopped");
    },
    restart(from) {
      cursor = from;
      current?.cut("restarted");
    },
    poke: () => wake?.(),
    drop() {
      if (current === undefined || current.over !== undefined) return false;
      current.cut("dropped");
      return true;
    },
  };
  return feed;

  async function follow(signal: AbortSignal): Promise<void> {
    const backoff = createBackoff(
      clock,
      retry,
      signal,
      reportWait(onStatus, () => undefined),
    );
    const away = createAway(clock, hiddenMs, signal, () => current?.cut("hidden"));
    const unwatch = watchWake((change) => {
      if (change === "back" && current?.isStale()) current.cut("stale");
    });
    wake = () => {
      away.poke();
      backoff.poke();
    };
    try {
      while (!signal.aborted) {
        const absence = away.back();
        if (absence !== undefined) {
          onStatus("waiting", { reason: "hidden" });
          await absence;
          continue;
        }
        const failure = await attempt(backoff);
        if (signal.aborted) return;
        if (!AT_ONCE.has(failure.dropped))
          await backoff.pause({
            cause: failure.cause ?? failure.dropped,
            retryAfterMs: failure.retryAfterMs,
          });
      }
    } catch (error) {
      // What is thrown is a refusal, or the pause that was broken off by `stop`.
      if (signal.aborted) return;
      feed.stop();
      onRefused(error as StrandlineError);
    } finally {
      unwatch();
    }
  }

  /** One connection, to its end. Throws when the server refused. */
  async function attempt(backoff: Backoff): Promise<Drop & { retryAfterMs?: number | undefined }> {
    onStatus("connecting", {});
    current?.cut("replaced");
    const connection = createConnection(clock, stallAfterMs);
    current = connection;
    const answer = await ask(connection, options.request(cursor, connection.signal));
    const { over: dropped = "failed" } = connection;
    if ("cause" in answer) {
      connection.cut("failed");
      const { cause, retryAfterMs } = answer;
      return { dropped, cause, retryAfterMs: retryAfterMs && Math.min(retryAfterMs, LONGEST_WAIT_MS) };
    }
    onStatus("live", {});
    try {
      return await readFrames<never>(clock, connection, answer, {
        onFrame({ chunk, cursor: id }) {
          if (chunk === null) return undefined;
          onFrame(chunk, id);
          // Whoever restarted the feed has said where it goes on.
          if (id === undefined || id === cursor || connection.over === "restarted") return undefined;
          cursor = id;
          backoff.progress();
          return undefined;
        },
        onBytes(ms) {
          if (ms > HEARTBEAT_MS) backoff.progress();
          return undefined;
        },
      });
    } catch (cause) {
      // No frames: a portal, or a broken server. It may be well at the next attempt.
      return { dropped: "protocol", cause };
    }
  }
}
