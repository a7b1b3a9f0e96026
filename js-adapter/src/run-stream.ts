/**
 * One stream, however many connections it takes: reads frames, remembers the cursor, and after a drop opens the next
 * connection where the last one was cut. At most one connection is live; one that was cut delivers nothing any more.
 * What a request looks like is not known here (`ai-sdk.ts`), and nothing here ever sends a POST.
 */
import { createAway } from "./away.js";
import { type Clock, createBackoff, type RetryOptions } from "./backoff.js";
import {
  ask,
  type Connection,
  createConnection,
  type Drop,
  discard,
  isEventStream,
  notAStream,
  readFrames,
} from "./connection.js";
import { abortError, StrandlineGoneError, StrandlineResyncError } from "./errors.js";
import { createOutlet } from "./outlet.js";
import { HEARTBEAT_MS, MESSAGE_HEADER, REPLAY_FULL, REPLAY_HEADER, RESYNC, RUN_HEADER } from "./protocol.js";
import type { Chunk, Frame } from "./sse.js";
import { type OnStatus, reasonOf, reportWait } from "./status.js";
import { watchWake } from "./wake.js";

export interface StreamOptions {
  clock: Clock;
  retry: RetryOptions;
  stallAfterMs: number;
  /** A page that is hidden for longer lets go of its connection, and reads on when it is back. */
  hiddenMs: number;
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
type Verdict = End | Drop;

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

  const away = createAway(clock, options.hiddenMs, life.signal, () => current?.cut("hidden"));
  const unwatch = watchWake((change) => {
    if (change === "back" && current?.isStale()) current.cut("stale");
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
    poke() {
      away.poke();
      backoff.poke();
    },
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
      if (verdict.dropped !== "stale" && verdict.dropped !== "hidden")
        await backoff.pause({ cause: verdict.cause ?? verdict.dropped });
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
      const absence = away.back();
      if (absence !== undefined) {
        onStatus("waiting", { run, reason: "hidden" });
        await absence;
      }
      if (life.signal.aborted) throw abortError();
      onStatus("connecting", { run });
      const connection = open();
      const answer = await ask(connection, options.request(cursor, run, connection.signal));
      if (!("cause" in answer)) return answer.status === 204 ? undefined : { response: answer, connection };
      connection.cut("failed");
      if (!away.isAway) await backoff.pause(answer);
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
    // The answer to a message came when nobody was looking any more.
    if (away.isAway) connection.cut("hidden");
    onStatus("live", { run });
    return readFrames(clock, connection, response, {
      onFrame: createIntake(),
      onBytes(ms) {
        // An answer that carries nothing but comments is progress when it lasts: the run is queued, or thinking.
        if (ms > HEARTBEAT_MS) backoff.progress();
        return outlet.ready();
      },
    });
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
        return { reason: STEERED };
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

/** Why a stream ends whose message was told to an agent that is running (PROTOCOL §14.4). */
export const STEERED = "steered";

const resync = (): End => ({ reason: RESYNC, error: new StrandlineResyncError() });
