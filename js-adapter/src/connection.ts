/**
 * One attempt to read: a request and the body of its answer, and the watch that cuts it when it falls silent. A
 * connection that was cut delivers nothing any more, whatever its socket still holds.
 */
import { type Clock, type Failure, isTransient, retryAfter } from "./backoff.js";
import { httpError, StrandlineError, StrandlineProtocolError } from "./errors.js";
import { EVENT_STREAM, HEARTBEAT_MS } from "./protocol.js";
import { createFrameDecoder, type Frame } from "./sse.js";

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

/** Default of `stallAfterMs`: three heartbeats. */
export const STALL_MS = 45_000;

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

/**
 * The answer to a GET: a stream, or 204. Or why there is none yet, when another attempt may find one. Throws a
 * `StrandlineError` when asking again is no use.
 */
export async function ask(connection: Connection, asked: Promise<Response>): Promise<Response | Failure> {
  try {
    const response = await connection.during(asked);
    if (response === undefined) return { cause: connection.over };
    if (response.status === 204 || isEventStream(response)) return response;
    // A portal that answers in the server's place may be gone at the next attempt.
    const cause = response.ok ? notAStream(response) : await httpError(response);
    // A GET costs nothing to repeat, so a bare 429 is waited for as well.
    if (!response.ok && !isTransient(response) && response.status !== 429) throw cause;
    return { cause, retryAfterMs: retryAfter(response) };
  } catch (error) {
    if (error instanceof StrandlineError) throw error;
    return { cause: connection.over ?? error };
  }
}

/** Why a connection came to its end. */
export interface Drop {
  dropped: string;
  cause?: unknown;
}

export interface Reading<T> {
  /** Something other than undefined ends the reading, and is its result. */
  onFrame(frame: Frame): T | undefined;
  /** Bytes came and were taken, this long after the headers. A promise: nothing more is read before it resolves. */
  onBytes(ms: number): Promise<void> | undefined;
}

/** Reads the body of an answer frame by frame, and leaves the connection cut. Throws a `StrandlineError`. */
export async function readFrames<T>(
  clock: Clock,
  connection: Connection,
  response: Response,
  { onFrame, onBytes }: Reading<T>,
): Promise<T | Drop> {
  const opened = clock.now();
  const reader = (response.body as ReadableStream<Uint8Array>).getReader();
  connection.reader = reader;
  let result: T | undefined;
  const decode = createFrameDecoder((frame) => {
    if (connection.over === undefined) result ??= onFrame(frame);
  });
  try {
    for (;;) {
      const bytes = await connection.during(reader.read());
      if (connection.over !== undefined) return { dropped: connection.over };
      if (bytes?.value === undefined) return { dropped: "closed" };
      connection.touched = clock.now();
      decode(bytes.value);
      if (result !== undefined) return result;
      const full = onBytes(connection.touched - opened);
      if (full !== undefined) {
        connection.touched = Number.POSITIVE_INFINITY; // It is we who are silent.
        await connection.during(full);
        connection.touched = clock.now();
      }
    }
  } catch (cause) {
    if (cause instanceof StrandlineError) throw cause;
    return { dropped: connection.over ?? "failed", cause };
  } finally {
    connection.cut("done");
  }
}

export const notAStream = (response: Response): StrandlineProtocolError => {
  discard(response);
  return new StrandlineProtocolError(`The answer (${response.status}) is not an event stream.`);
};

/** Tells the server, as far as HTTP can, that nobody reads this. */
export function discard(response: Response): void {
  response.body?.cancel().catch(() => {}); // It may have failed already.
}
