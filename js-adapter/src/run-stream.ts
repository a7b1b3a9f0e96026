/**
 * One stream, however many connections it takes: reads frames, remembers the cursor, and after a drop opens the next
 * connection where the last one was cut. At most one connection is live; one that was cut delivers nothing any more.
 * What a request looks like is not known here (`ai-sdk.ts`), and nothing here ever sends a POST.
 */
import {
  type Clock,
  createBackoff,
  type Failure,
  isTransient,
  type RetryOptions,
  retryAfter,
} from "./backoff.js";
import { type Connection, createConnection, discard, isEventStream, notAStream } from "./connection.js";
import {
  abortError,
  httpError,
  StrandlineError,
  StrandlineGoneError,
  StrandlineResyncError,
} from "./errors.js";
import { createOutlet } from "./outlet.js";
import { HEARTBEAT_MS, MESSAGE_HEADER, REPLAY_FULL, REPLAY_HEADER, RESYNC, RUN_HEADER } from "./protocol.js";
import { type Chunk, createFrameDecoder, type Frame } from "./sse.js";
import { type OnStatus, reasonOf, reportWait } from "./status.js";
import { watchWake } from "./wake.js";

export interface StreamOptions {
  clock: Clock;
  retry: RetryOptions;
  stallAfterMs: number;
  onStatus: OnStatus;
  /** What is posted goes on writing a message that the chat has, so a replay of the whole would double its parts. */
  isContinuation?: boolean;
  /** Sends the GET. Rejects when there was no answer, or with a StrandlineError when asking again is no use. */
  request(cursor: string | undefined, run: string | undefined, signal: AbortSignal): Promise<Response>;
}

export interface RunStream {
  readonly chunks: ReadableStream<Chunk>;
  readonly run: string | undefined;
  readonly messageId: string | undefined;
  /** Reads on from the answer to a POST. Rejects when that is refused, and at once when the stream is detached. */
  accept(answer: Promise<Response>): Promise<void>;
  /** Asks for whatever is active. False when nothing is. Rejects as `accept` does. */
  attach(): Promise<boolean>;
  /** Lets go: ends the stream at once and leaves the run alone. */
  detach(): void;
  /** Cuts the connection as if its socket had died. False when none is open. */
  drop(): boolean;
  /** Ends a wait for the next attempt. */
  poke(): void;
  /** Resolves with the error that the stream ended with, if any, when its reader has seen the end. */
  readonly ended: Promise<unknown>;
}

interface Opened {
  response: Response;
  connection: Connection;
}

/** How a stream ends. */
interface End {
  reason: string;
  error?: unknown;
}

/** How the reading of one response ends: with the stream, or with a drop. */
type Verdict = End | { dropped: string; cause?: unknown };

export function createRunStream(options: StreamOptions): RunStream {
  const { clock, stallAfterMs, onStatus } = options;
  /** Aborts when the stream ends, in whatever way. Nothing is left after it: no connection, no timer, no listener. */
  const life = new AbortController();
  const outlet = createOutlet<Chunk>(detach);
  const backoff = createBackoff(
    clock,
    options.retry,
    life.signal,
    reportWait(onStatus, () => run),
  );

  let run: string | undefined;
  let messageId: string | undefined;
  let cursor: string | undefined;
  let current: Connection | undefined;
  let posted = false;
  let delivered = false;
  let finalError: unknown;

  const unwatch = watchWake((woke) => {
    if (woke && current?.isStale()) current.cut("stale");
  });
  const detached = new Promise<never>((_, reject) => {
    life.signal.addEventListener("abort", () => {
      unwatch();
      reject(abortError());
    });
  });
  detached.catch(() => {}); // Most streams end with nobody waiting for this.

  return {
    chunks: outlet.stream,
    ended: outlet.ended.then(() => finalError),
    get run() {
      return run;
    },
    get messageId() {
      return messageId;
    },
    async accept(answer) {
      posted = true;
      // A POST is never aborted before its headers have come (DESIGN §14.2), so its answer may find nobody at home.
      answer.then(
        (response) => life.signal.aborted && discard(response),
        () => {},
      );
      await begin(async () => {
        const response = await Promise.race([answer, detached]);
        if (life.signal.aborted) throw abortError();
        if (!isEventStream(response)) throw notAStream(response);
        return { response, connection: open() };
      });
    },
    attach: () => begin(connect),
    detach,
    drop() {
      if (current === undefined || current.over !== undefined) return false;
      current.cut("dropped");
      return true;
    },
    poke: () => backoff.poke(),
  };

  function detach(): void {
    outlet.fail(abortError());
    close("detached");
  }

  function close(reason: string, error?: unknown): void {
    if (life.signal.aborted) return;
    finalError = error;
    life.abort();
    current?.cut(reason);
    onStatus("ended", error === undefined ? { run, reason } : { run, reason, error });
  }

  async function begin(opening: () => Promise<Opened | undefined>): Promise<boolean> {
    try {
      const first = await opening();
      if (first === undefined) close("idle");
      else void follow(first);
      return first !== undefined;
    } catch (error) {
      close(reasonOf(error), error);
      throw error;
    }
  }

  async function follow(first: Opened): Promise<void> {
    let end: End;
    try {
      end = await readToTheEnd(first);
    } catch (error) {
      end = { reason: reasonOf(error), error };
    }
    close(end.reason, end.error);
    outlet.end(end.error);
  }

  async function readToTheEnd(first: Opened): Promise<End> {
    let opened: Opened | undefined = first;
    while (opened !== undefined) {
      const verdict = await read(opened);
      if ("reason" in verdict) return verdict;
      // The page is back and the old connection is as good as dead: nothing is gained by waiting.
      if (verdict.dropped !== "stale") await backoff.pause({ cause: verdict.cause ?? verdict.dropped });
      if (cursor === undefined && options.isContinuation) return resync();
      opened = await connect();
    }
    // 204. A resumed reply of which nothing was shown has ended meanwhile, and is in the history.
    if (posted || delivered) throw new StrandlineGoneError();
    return { reason: "idle" };
  }

  /** Opens the next connection, with as many attempts as it takes. Undefined when the server has nothing to stream. */
  async function connect(): Promise<Opened | undefined> {
    for (;;) {
      if (life.signal.aborted) throw abortError();
      onStatus("connecting", { run });
      const connection = open();
      let failure: Failure;
      try {
        const response = await connection.during(options.request(cursor, run, connection.signal));
        if (response?.status === 204) return undefined;
        if (response !== undefined && isEventStream(response)) return { response, connection };
        if (response !== undefined && !response.ok && !isPassing(response)) throw await httpError(response);
        failure = await describe(response, connection);
      } catch (error) {
        if (error instanceof StrandlineError) throw error;
        failure = { cause: connection.over ?? error };
      }
      connection.cut("failed");
      await backoff.pause(failure);
    }
  }

  /** Starts a connection, which ends the one before it (DESIGN §14.13). */
  function open(): Connection {
    current?.cut("replaced");
    current = createConnection(clock, stallAfterMs);
    return current;
  }

  async function read({ response, connection }: Opened): Promise<Verdict> {
    run = response.headers.get(RUN_HEADER) ?? run;
    messageId = response.headers.get(MESSAGE_HEADER) ?? messageId;
    if (cursor !== undefined && response.headers.get(REPLAY_HEADER) === REPLAY_FULL) return resync();
    onStatus("live", { run });
    const opened = clock.now();
    const reader = (response.body as ReadableStream<Uint8Array>).getReader();
    connection.reader = reader;
    let verdict: Verdict | undefined;
    const take = createIntake();
    const decode = createFrameDecoder((frame) => {
      verdict ??= take(frame);
    });
    try {
      while (verdict === undefined) {
        const bytes = await connection.during(reader.read());
        if (connection.over !== undefined) return { dropped: connection.over };
        if (bytes?.value === undefined) return { dropped: "closed" };
        connection.touched = clock.now();
        // An answer that carries nothing but comments is progress when it lasts: the run is queued, or thinking.
        if (connection.touched - opened > HEARTBEAT_MS) backoff.progress();
        decode(bytes.value);
        const caughtUp = outlet.ready();
        if (caughtUp !== undefined) {
          connection.touched = Number.POSITIVE_INFINITY; // It is we who are silent.
          await connection.during(caughtUp);
          connection.touched = clock.now();
        }
      }
      return verdict;
    } catch (cause) {
      if (cause instanceof StrandlineError) throw cause;
      return { dropped: connection.over ?? "failed", cause };
    } finally {
      connection.cut("done");
    }
  }

  /** What the frames of one response do to the stream. */
  function createIntake(): (frame: Frame) => Verdict | undefined {
    // Without a cursor the answer starts with a snapshot, of which only the last frame has an id. Half of one could
    // not be continued, so nothing of it is shown before it is whole (PROTOCOL §3.6).
    let held: Chunk[] | undefined = cursor === undefined ? [] : undefined;
    return ({ chunk, cursor: id }) => {
      if (chunk === null) {
        // `[DONE]` where nothing was ever logged, as a steered request is answered. Else it would follow a terminal.
        if (!held?.length) return { dropped: "closed" };
        outlet.push(held);
        return { reason: "finish" };
      }
      if (chunk.type === "error" && id === undefined) {
        return chunk.code === RESYNC && delivered ? resync() : { dropped: String(chunk.code ?? "error") };
      }
      const isTerminal = chunk.type === "finish" || chunk.type === "abort" || chunk.type === "error";
      const due = held ?? [];
      due.push(chunk);
      if (held !== undefined && id === undefined && !isTerminal) return undefined;
      held = undefined;
      if (id !== undefined) {
        cursor = id;
        backoff.progress();
      }
      delivered = true;
      outlet.push(due);
      if (!isTerminal) return undefined;
      // Chats ignore the chunk and heed the error: `isAbort`, status `ready`, on every device (ai@5-7, `chat.ts`).
      if (chunk.type === "abort")
        return { reason: "abort", error: abortError(String(chunk.reason ?? "Stopped.")) };
      return { reason: chunk.type };
    };
  }
}

const resync = (): End => ({ reason: RESYNC, error: new StrandlineResyncError() });

// A GET costs nothing to repeat, so a bare 429 is waited for as well.
const isPassing = (response: Response): boolean => isTransient(response) || response.status === 429;

async function describe(response: Response | undefined, connection: Connection): Promise<Failure> {
  if (response === undefined) return { cause: connection.over };
  // A portal that answers in the server's place may be gone at the next attempt.
  const cause = response.ok ? notAStream(response) : await httpError(response);
  return { cause, retryAfterMs: retryAfter(response) };
}
