/**
 * The AI SDK's `ChatTransport` (ai@5, 6 and 7) over the Strandline wire: PROTOCOL §6.
 *
 * An AI SDK chat aborts for many reasons, among them that its component was unmounted, and it cannot say which. So an
 * abort only ever detaches. What ends a run is `stop()`.
 */
import { HIDDEN_MS } from "./away.js";
import { type Clock, DEFAULT_RETRY, type RetryOptions, systemClock } from "./backoff.js";
import {
  type CallOptions,
  type ChatMessage,
  isOutputTooLate,
  isTooLate,
  messageToSend,
  type ReconnectOptions,
  type SendOptions,
  type StopResult,
  type StrandlineTransport,
  settledAlready,
} from "./chat.js";
import { STALL_MS } from "./connection.js";
import { abortError, StrandlineHttpError, StrandlineProtocolError, StrandlineResyncError } from "./errors.js";
import { createOutlet } from "./outlet.js";
import { type Post, postUntilAnswered } from "./post.js";
import {
  AI_SDK_PREFIX,
  CURSOR_HEADER,
  KEY_HEADER,
  STOP_MEMORY_MS,
  SUBMIT_HEADER,
  type SubmitPolicy,
  stopUrl,
  streamUrl,
} from "./protocol.js";
import {
  createId,
  createRequest,
  type HeaderFields,
  JSON_FIELDS,
  type RequestOptions,
  type Resolvable,
  resolve,
  whole,
} from "./request.js";
import { createRunStream, type RunStream, STEERED } from "./run-stream.js";
import { type OnStatus, reportWait, type StatusDetail, type StreamStatus } from "./status.js";

export type { RetryOptions } from "./backoff.js";
export type {
  ActiveRun,
  CallOptions,
  ChatMessage,
  ReconnectOptions,
  SendOptions,
  StopManyOptions,
  StopResult,
  StrandlineTransport,
} from "./chat.js";
export {
  StrandlineError,
  type StrandlineErrorCode,
  StrandlineGaveUpError,
  StrandlineGoneError,
  StrandlineHttpError,
  StrandlineProtocolError,
  StrandlineResyncError,
} from "./errors.js";
export type { SubmitPolicy } from "./protocol.js";
export type { StatusDetail, StreamStatus } from "./status.js";

export interface PrepareSendOptions {
  id: string;
  /** What would be sent: the last message, or none. */
  messages: readonly ChatMessage[];
  trigger: SendOptions["trigger"];
  messageId: string | undefined;
  /** The `body` of the transport and of the call, merged. */
  body: object;
  requestMetadata: unknown;
}

export interface StrandlineTransportOptions extends RequestOptions {
  /** Prefix of the AI SDK wire. Default `/api/chat`. */
  api?: string;
  /** Added to every message that is sent: the `body` that the agent sees. */
  body?: Resolvable<object>;
  /** What becomes of a message that is sent while a reply is being written. Default: what the session does. */
  submit?: Resolvable<SubmitPolicy | undefined>;
  retry?: Partial<RetryOptions>;
  /** Silence after which a connection counts as dead. The server is silent for 15 s at most. Default 45 000. */
  stallAfterMs?: number;
  /** A page that is hidden for longer lets go of its connection, and reads on when it is back. Default 60 000. */
  hiddenMs?: number;
  onStatus?(chatId: string, status: StreamStatus, detail: StatusDetail): void;
  /**
   * A reply ended with `StrandlineResyncError`, or another device was quicker to decide: call `chat.resumeStream()` to
   * read it anew.
   */
  onResync?(chatId: string): void;
  /** As in `DefaultChatTransport`: the returned body replaces the one that would be sent, headers are added. */
  prepareSendMessagesRequest?(
    request: PrepareSendOptions,
  ): { body?: object; headers?: HeaderFields } | Promise<{ body?: object; headers?: HeaderFields }>;
}

/** For tests: the time that the transport lives in. */
export interface InternalOptions {
  clock?: Clock;
}

/** The newest request of a chat: what a stop means. */
interface Turn {
  stream: RunStream;
  key?: string;
  /** Id of the user message, when it is a new one. */
  messageId?: string | undefined;
  post?: Post;
  isOpen: boolean;
  tell: OnStatus;
}

/** A stream that ended in one of these ways left its run as it was, so a stop still means that run. */
const UNFINISHED = new Set(["detached", "gave-up", "resync", "protocol"]);

export function strandlineTransport(
  options: StrandlineTransportOptions & InternalOptions = {},
): StrandlineTransport {
  const { api = AI_SDK_PREFIX, clock = systemClock, stallAfterMs = STALL_MS } = options;
  const retry = { ...DEFAULT_RETRY, ...options.retry };
  const request = createRequest(options);
  const turns = new Map<string, Turn>();
  const streams = new Set<RunStream>();
  /** Without an answer, with or without a stream that waits for it. */
  const posts = new Set<Post>();

  const transport: StrandlineTransport = {
    resumeStreamIsReplay: true,

    async sendMessages<CHUNK>(call: SendOptions) {
      const { chatId, trigger, messageId, abortSignal } = call;
      const key = createId(clock);
      const messages = messageToSend(call);
      const turn = begin(chatId, call, abortSignal, messages[0]?.role === "assistant");
      turn.key = key;
      if (trigger === "submit-message" && messageId === undefined) turn.messageId = messages[0]?.id;

      // Resolved once: what is repeated is the same request.
      const prepared = (async () => {
        const extra = { ...(await resolve(options.body)), ...call.body };
        const sent = { ...extra, id: chatId, messages, trigger, messageId };
        const request = { ...sent, body: extra, requestMetadata: call.metadata };
        const own = await options.prepareSendMessagesRequest?.(request);
        const submit = await resolve(options.submit);
        const policy = submit === undefined ? {} : { [SUBMIT_HEADER]: submit };
        return { body: JSON.stringify(own?.body ?? sent), headers: own?.headers, policy };
      })();
      turn.post = postUntilAnswered({
        clock,
        retry,
        stallAfterMs,
        onAttempt: () => turn.tell("connecting", {}),
        onWait: reportWait(turn.tell, () => undefined),
        async send() {
          const { body, headers, policy } = await prepared;
          const fields = { ...JSON_FIELDS, ...policy, [KEY_HEADER]: key };
          return request(api, { method: "POST", body }, call.headers, headers, fields);
        },
      });
      const { post } = turn;
      prepared.catch((error) => post.cancel(error));
      posts.add(post);
      const answered = () => void posts.delete(post);
      post.answer.then(answered, answered);
      try {
        await turn.stream.accept(post.answer);
      } catch (error) {
        if (isTooLate(error)) readAnew(chatId);
        if (!isOutputTooLate(error)) throw error;
        const outlet = createOutlet<unknown>(() => {});
        outlet.push(settledAlready(messages[0]?.id));
        outlet.end();
        return outlet.stream as ReadableStream<CHUNK>;
      }
      return turn.stream.chunks as ReadableStream<unknown> as ReadableStream<CHUNK>;
    },

    async reconnectToStream<CHUNK>(call: ReconnectOptions) {
      const { stream } = begin(call.chatId, call, call.abortSignal);
      return (await stream.attach())
        ? (stream.chunks as ReadableStream<unknown> as ReadableStream<CHUNK>)
        : null;
    },

    stop: (async (
      chatId: string,
      { reason, ...named }: Partial<Record<"reason" | "agent" | "all", unknown>> = {},
    ) => {
      const isMany = named.agent !== undefined || named.all === true;
      const turn = turns.get(chatId);
      const run = turn?.stream.run;
      // A repetition that came after the stop is forgotten would start what was stopped.
      if (run === undefined) turn?.post?.limit(STOP_MEMORY_MS * 0.75);
      const mine = run === undefined ? { key: turn?.key, messageId: turn?.messageId } : { run };
      const target = isMany ? named : mine;
      const { answer } = postUntilAnswered({
        clock,
        retry,
        stallAfterMs,
        async send() {
          const init = { method: "POST", body: JSON.stringify({ ...target, reason }), keepalive: true };
          return whole(request(stopUrl(api, chatId), init, JSON_FIELDS));
        },
      });
      try {
        const result = (await (await answer).json()) as StopResult & { runs: StopResult[] };
        // A stream that is waiting to reconnect would show the stop no sooner than that.
        turn?.stream.poke();
        return isMany ? result.runs : result;
      } catch (error) {
        if (!(error instanceof StrandlineHttpError) || error.status !== 404) throw error;
        return isMany ? [] : { run: null, status: "idle", stopped: false };
      }
    }) as StrandlineTransport["stop"],

    drop: (chatId) => turns.get(chatId)?.stream.drop() ?? false,

    activeRun(chatId) {
      const turn = turns.get(chatId);
      return turn?.isOpen ? { run: turn.stream.run, messageId: turn.stream.messageId } : null;
    },

    close() {
      for (const stream of [...streams]) stream.detach();
      for (const post of [...posts]) post.cancel(abortError());
    },
  };
  return transport;

  function begin(
    chatId: string,
    call: CallOptions,
    abortSignal: AbortSignal | undefined,
    isContinuation = false,
  ): Turn {
    if (chatId === "." || chatId === "..") throw new StrandlineProtocolError(`"${chatId}" cannot be an id.`);
    if (abortSignal?.aborted) throw abortError();
    const tell: OnStatus = (status, detail) => {
      // A chat has one status: that of what it asked for last, and nothing after its end.
      if (turn.isOpen && turns.get(chatId) === turn) report(chatId, status, detail);
    };
    // Without a cursor "what is active" is asked for, and that may have changed when an answer was lost.
    const resumeKey = createId(clock);
    const stream = createRunStream({
      clock,
      retry,
      stallAfterMs,
      hiddenMs: options.hiddenMs ?? HIDDEN_MS,
      isContinuation,
      onStatus(status, detail) {
        tell(status, detail);
        if (status === "ended") end(detail.reason ?? "");
      },
      request(cursor, run, signal) {
        const position = cursor === undefined ? { [KEY_HEADER]: resumeKey } : { [CURSOR_HEADER]: cursor };
        return request(streamUrl(api, chatId, run), { signal, cache: "no-store" }, call.headers, position);
      },
    });
    const turn: Turn = { stream, isOpen: true, tell };
    const before = turns.get(chatId);
    const end = (reason: string) => {
      turn.isOpen = false;
      streams.delete(stream);
      abortSignal?.removeEventListener("abort", stream.detach);
      if (UNFINISHED.has(reason) || turns.get(chatId) !== turn) return;
      turns.delete(chatId);
      // Nothing of its own came of this one: what is being written is what a stop means, and whose status counts.
      if (reason === STEERED && before?.isOpen) turns.set(chatId, before);
    };
    turns.set(chatId, turn);
    streams.add(stream);
    abortSignal?.addEventListener("abort", stream.detach);
    void stream.ended.then((error) => {
      if (error instanceof StrandlineResyncError) readAnew(chatId);
    });
    return turn;
  }

  function readAnew(chatId: string): void {
    // Later than the chat's own reaction to the error, so that it can be told to resume.
    if (options.onResync !== undefined) clock.setTimeout(() => options.onResync?.(chatId), 0);
  }

  function report(chatId: string, status: StreamStatus, detail: StatusDetail): void {
    try {
      options.onStatus?.(chatId, status, detail);
    } catch (error) {
      // A listener that throws must not end a reply. It is the application's error, so it goes where those go.
      globalThis.reportError?.(error);
    }
  }
}
