/**
 * One attempt to read: a request and the body of its answer, and the watch that cuts it when it falls silent. A
 * connection that was cut delivers nothing any more, whatever its socket still holds.
 */
import type { Clock } from "./backoff.js";
import { StrandlineProtocolError } from "./errors.js";
import { EVENT_STREAM, HEARTBEAT_MS } from "./protocol.js";

export interface Connection {
  readonly signal: AbortSignal;
  /** Set when there is a body to read; a cut then cancels it. */
  reader: ReadableStreamDefaultReader<Uint8Array> | undefined;
  /** When its last byte came; comments count. Infinity while it is us who do not read. */
  touched: number;
  /** Why it was cut. */
  over: string | undefined;
  /** The result of `work`, or undefined as soon as the connection is cut: not everything heeds a signal. */
  during<T>(work: Promise<T>): Promise<T | undefined>;
  /** Silent for longer than one heartbeat. After the page was away, such a connection is not worth waiting for. */
  isStale(): boolean;
  cut(reason: string): void;
}

const STALE_MS = HEARTBEAT_MS + 5_000;

export function createConnection(clock: Clock, stallAfterMs: number): Connection {
  const controller = new AbortController();
  let interrupt: () => void = () => {};
  let timer: unknown;
  const connection: Connection = {
    signal: controller.signal,
    reader: undefined,
    touched: clock.now(),
    over: undefined,
    // Not Promise.race: that would leave a reaction behind for every read of a long reply.
    during: (work) =>
      new Promise((resolve, reject) => {
        interrupt = () => resolve(undefined);
        if (connection.over !== undefined) interrupt();
        work.then(resolve, reject);
      }),
    isStale: () => clock.now() - connection.touched > STALE_MS,
    cut(reason) {
      if (connection.over !== undefined) return;
      connection.over = reason;
      clock.clearTimeout(timer);
      controller.abort();
      connection.reader?.cancel().catch(() => {}); // It may have failed already.
      interrupt();
    },
  };
  // When the time is up it looks how long it has really been silent, so that no byte has to touch a timer.
  const watch = (ms: number) => {
    timer = clock.setTimeout(() => {
      const silent = clock.now() - connection.touched;
      if (silent >= stallAfterMs) connection.cut("stalled");
      else watch(Math.min(stallAfterMs, stallAfterMs - silent));
    }, ms);
  };
  watch(stallAfterMs);
  return connection;
}

export const isEventStream = (response: Response): boolean =>
  response.ok && response.body !== null && !!response.headers.get("Content-Type")?.startsWith(EVENT_STREAM);

export const notAStream = (response: Response): StrandlineProtocolError => {
  discard(response);
  return new StrandlineProtocolError(`The answer (${response.status}) is not an event stream.`);
};

/** Tells the server, as far as HTTP can, that nobody reads this. */
export function discard(response: Response): void {
  response.body?.cancel().catch(() => {}); // It may have failed already.
}
