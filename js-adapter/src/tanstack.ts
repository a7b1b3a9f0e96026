/**
 * The connection of a TanStack AI chat over the Strandline wire: PROTOCOL §11. Everything that happens in the thread, on
 * whatever device, comes by one subscription that never ends by itself.
 *
 * A chat aborts for many reasons, among them that its component was unmounted, and it cannot say which. So an abort
 * only ever detaches. What ends a run is `stop()`.
 */
import { type ChatMessage, type Hydrated, wireMessage } from "./ag-ui.js";
import { HIDDEN_MS } from "./away.js";
import { type Clock, DEFAULT_RETRY, type RetryOptions, systemClock } from "./backoff.js";
import type { StopResult } from "./chat.js";
import { type ChunkQueue, createChunkQueue } from "./chunk-queue.js";
import { STALL_MS } from "./connection.js";
import { abortError, StrandlineHttpError } from "./errors.js";
import { type Post, postUntilAnswered } from "./post.js";
import {
  CURSOR_HEADER,
  DEVICE_HEADER,
  PREFER_HEADER,
  READER_HEADER,
  RESPOND_ASYNC,
  STOP_MEMORY_MS,
  SUBMIT_HEADER,
  type SubmitPolicy,
  TANSTACK_PREFIX,
  urlOf,
} from "./protocol.js";
import {
  createId,
  createRequest,
  JSON_FIELDS,
  type RequestOptions,
  type Resolvable,
  resolve,
  whole,
} from "./request.js";
import type { StatusDetail, StreamStatus } from "./status.js";
import { createThread } from "./thread.js";

export type { Asked, ChatMessage, Hydrated } from "./ag-ui.js";
export type { RetryOptions } from "./backoff.js";
export type { Branch, Branches } from "./branch.js";
export type { StopResult } from "./chat.js";
export type { Author, Authors } from "./content.js";
export {
  StrandlineError,
  type StrandlineErrorCode,
  StrandlineGaveUpError,
  StrandlineHttpError,
  StrandlineProtocolError,
} from "./errors.js";
export type { SubmitPolicy } from "./protocol.js";
export type { StatusDetail, StreamStatus } from "./status.js";

export interface StrandlineConnectionOptions extends Omit<RequestOptions, "ai"> {
  /** Prefix of the TanStack wire. Default `/api/tanstack`. */
  url?: string;
  /** Give the chat the same one. */
  threadId: string;
  /** An id of this device, shown with its readers. */
  device?: string;
  /** What becomes of a message that is sent while a reply is being written. Default: what the session does. */
  submit?: Resolvable<SubmitPolicy | undefined>;
  /** Name of this reader, shown to others. Default: a new one. */
  reader?: string;
  /** `giveUpAfterMs` is about sends and stops: the subscription never gives up. */
  retry?: Partial<RetryOptions>;
  /** Silence after which a connection counts as dead. The server is silent for 15 s at most. Default 45 000. */
  stallAfterMs?: number;
  /** A page that is hidden for longer lets go of its connection, and reads on when it is back. Default 60 000. */
  hiddenMs?: number;
  onStatus?(status: StreamStatus, detail: StatusDetail): void;
}

/** For tests: the time that the connection lives in. */
export interface InternalOptions {
  clock?: Clock;
}

/** What a send has to say beside its messages (`RunAgentInputContext`). */
export interface RunContext {
  runId: string;
  parentRunId?: string;
  resume?: readonly unknown[];
  clientTools?: readonly unknown[];
  forwardedProps?: Record<string, unknown>;
  headers?: Record<string, string>;
}

export interface HydrateOptions {
  limit?: number;
  before?: string;
}

/**
 * Satisfies `SubscribeConnectionAdapter` of @tanstack/ai-client: `CHUNK` is its `StreamChunk`, `RESULT` its
 * `ChatHydrationResult`, of which `Hydrated` has more.
 */
export interface StrandlineConnection {
  /** Everything from now on; the newest subscription is the one that is told. Throws what the server refuses. */
  subscribe<CHUNK = unknown>(abortSignal?: AbortSignal): AsyncIterable<CHUNK>;
  /** Resolves when the server has the message; the reply comes by the subscription. */
  send(
    messages: readonly object[],
    data?: Record<string, unknown>,
    abortSignal?: AbortSignal,
    context?: RunContext,
  ): Promise<void>;
  /** A run up to its end, when nobody subscribed: else it comes by the subscription, and this ends at once. */
  joinRun<CHUNK = unknown>(runId: string, abortSignal?: AbortSignal): AsyncIterable<CHUNK>;
  hydrate<RESULT = unknown>(threadId: string, options?: HydrateOptions): Promise<RESULT>;
  /**
   * Ends this run, else the one that this chat has sent last, else whatever is active; on every device. Resolves when
   * the end is in the log, which the subscription then tells.
   */
  stop(runId?: string, options?: { reason?: string }): Promise<StopResult>;
  /** Cuts the connection as if its socket had died. False when none is open. */
  drop(): boolean;
  /** Tries again now, when it waits to. */
  poke(): void;
  /** Ends the subscription and what waits for an answer. Runs go on. It can be used again. */
  close(): void;
}

export function strandlineConnection(
  options: StrandlineConnectionOptions & InternalOptions,
): StrandlineConnection {
  const { url = TANSTACK_PREFIX, threadId, clock = systemClock, stallAfterMs = STALL_MS, device } = options;
  const retry = { ...DEFAULT_RETRY, ...options.retry };
  const request = createRequest(options);
  const names: Record<string, string> = { [READER_HEADER]: options.reader ?? createId(clock) };
  if (device !== undefined) names[DEVICE_HEADER] = device;
  const posts = new Map<string, Post>();

  const thread = createThread({
    clock,
    retry,
    stallAfterMs,
    hiddenMs: options.hiddenMs ?? HIDDEN_MS,
    onStatus(status, detail) {
      try {
        options.onStatus?.(status, detail);
      } catch (error) {
        // A listener that throws must not end the subscription. It is the application's error.
        globalThis.reportError?.(error);
      }
    },
    load: (limit) => hydrate({ limit }),
    follow(cursor, signal) {
      const position = cursor === undefined ? undefined : { [CURSOR_HEADER]: cursor };
      return request(urlOf(url, "/events", { threadId }), { signal, cache: "no-store" }, names, position);
    },
  });

  return {
    subscribe: <CHUNK>(abortSignal?: AbortSignal) => told<CHUNK>(abortSignal),

    joinRun: <CHUNK>(runId: string, abortSignal?: AbortSignal) => told<CHUNK>(abortSignal, runId),

    async send(messages, data, abortSignal, context) {
      const { runId = createId(clock), clientTools, headers, ...run } = context ?? {};
      if (abortSignal?.aborted) throw abortError();
      const shown = messages as readonly ChatMessage[];
      const body = JSON.stringify({
        forwardedProps: data,
        ...run,
        threadId,
        runId,
        // The server has the history, and reads the last one.
        messages: shown.slice(-1).map(wireMessage),
        tools: clientTools,
        context: [],
        state: {},
      });
      thread.sending(runId, shown, context?.resume !== undefined);
      const submit = resolve(options.submit);
      const post = repeated(runId, async () => {
        const named = await submit;
        const policy = named === undefined ? {} : { [SUBMIT_HEADER]: named };
        const fields = { ...JSON_FIELDS, ...policy, [PREFER_HEADER]: RESPOND_ASYNC };
        return whole(request(url, { method: "POST", body }, names, headers, fields));
      });
      const answered = (async () => {
        try {
          const sent = (await (await post.answer).json()) as { messageId: string; steered?: string };
          if (sent.steered !== undefined) thread.told(runId);
          else thread.accepted(runId, sent.messageId);
        } catch (error) {
          thread.refused(runId);
          throw error;
        }
      })();
      await unless(abortSignal, answered, () => thread.abandon(runId));
    },

    async hydrate<RESULT>(_: string, { limit, before }: HydrateOptions = {}) {
      if (before !== undefined) {
        const post = repeated(`before ${before}`, () => hydrate({ limit, before }));
        const found = (await (await post.answer).json()) as Hydrated;
        thread.prepend(found);
        return found as RESULT;
      }
      const found = await thread.hydrate(limit);
      // What is being written comes by the subscription.
      return (thread.isFollowed ? { ...found, activeRun: null } : found) as RESULT;
    },

    async stop(named, { reason } = {}) {
      const runId = named ?? thread.ownRun();
      // A repetition that came after the stop is forgotten would start what was stopped.
      if (runId !== undefined) posts.get(runId)?.limit(STOP_MEMORY_MS * 0.75);
      const body = JSON.stringify({ threadId, runId, reason });
      const init = { method: "POST", body, keepalive: true };
      const post = repeated(`stop ${createId(clock)}`, () =>
        whole(request(urlOf(url, "/stop"), init, names, JSON_FIELDS)),
      );
      try {
        const result = (await (await post.answer).json()) as StopResult;
        thread.poke();
        return result;
      } catch (error) {
        if (!(error instanceof StrandlineHttpError) || error.status !== 404) throw error;
        return { run: null, status: "idle", stopped: false };
      }
    },

    drop: thread.drop,
    poke: thread.poke,
    close() {
      thread.close();
      for (const post of posts.values()) post.cancel(abortError());
    },
  };

  async function* told<CHUNK>(signal?: AbortSignal, runId?: string): AsyncGenerator<CHUNK> {
    if (signal?.aborted || (runId !== undefined && thread.isFollowed)) return;
    const queue: ChunkQueue = createChunkQueue();
    const leave = () => thread.leave(queue);
    signal?.addEventListener("abort", leave);
    thread.tell(queue, runId);
    try {
      yield* queue as AsyncIterable<unknown> as AsyncIterable<CHUNK>;
    } finally {
      signal?.removeEventListener("abort", leave);
      leave();
    }
  }

  function hydrate(query: HydrateOptions | { limit: number | undefined }): Promise<Response> {
    const asked = urlOf(url, "", { threadId, ...query });
    return whole(request(asked, { cache: "no-store" }, names, { Accept: "application/json" }));
  }

  function repeated(name: string, send: () => Promise<Response>): Post {
    const post = postUntilAnswered({ clock, retry, stallAfterMs, send });
    posts.set(name, post);
    const answered = () => void posts.delete(name);
    post.answer.then(answered, answered);
    return post;
  }
}

/** The result of `work`, or an AbortError as soon as the signal aborts. The work goes on. */
function unless<T>(signal: AbortSignal | undefined, work: Promise<T>, onAbort: () => void): Promise<T> {
  return new Promise((resolve, reject) => {
    work.then(resolve, reject);
    signal?.addEventListener("abort", () => {
      onAbort();
      reject(abortError());
    });
  });
}
