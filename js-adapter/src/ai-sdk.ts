/**
 * The AI SDK's `ChatTransport` (ai@5, 6 and 7) over the Strandline wire: PROTOCOL §6.
 *
 * An AI SDK chat aborts for many reasons, among them that its component was unmounted, and it cannot say which. So an
 * abort only ever detaches. What ends a run is `stop()`.
 */
import { type Clock, type RetryOptions, systemClock } from "./backoff.js";
import { abortError, StrandlineHttpError, StrandlineProtocolError, StrandlineResyncError } from "./errors.js";
import { type Post, postUntilAnswered } from "./post.js";
import {
  AI_SDK_PREFIX,
  CLIENT_HEADER,
  CURSOR_HEADER,
  KEY_HEADER,
  STOP_MEMORY_MS,
  stopUrl,
  streamUrl,
  VERSION,
} from "./protocol.js";
import { createRunStream, type RunStream } from "./run-stream.js";
import { type OnStatus, reportWait, type StatusDetail, type StreamStatus } from "./status.js";

export type { RetryOptions } from "./backoff.js";
export {
  StrandlineError,
  type StrandlineErrorCode,
  StrandlineGaveUpError,
  StrandlineGoneError,
  StrandlineHttpError,
  StrandlineProtocolError,
  StrandlineResyncError,
} from "./errors.js";
export type { StatusDetail, StreamStatus } from "./status.js";

type Resolvable<T> = T | (() => T | Promise<T>);
type HeaderFields = Record<string, string> | Headers;

/** What is needed to know of a `UIMessage`, of any major version. */
export interface ChatMessage {
  id: string;
  role: string;
}

/** `ChatRequestOptions` of the AI SDK. */
export interface CallOptions {
  headers?: HeaderFields | undefined;
  body?: object | undefined;
  metadata?: unknown;
}

export interface SendOptions extends CallOptions {
  trigger: "submit-message" | "regenerate-message";
  chatId: string;
  messageId: string | undefined;
  messages: readonly ChatMessage[];
  abortSignal: AbortSignal | undefined;
}

export interface ReconnectOptions extends CallOptions {
  chatId: string;
  abortSignal?: AbortSignal | undefined;
}

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

export interface StrandlineTransportOptions {
  /** Prefix of the AI SDK wire. Default `/api/chat`. */
  api?: string;
  fetch?: typeof globalThis.fetch;
  /** Sent with every request. A function is asked before each attempt, so that a token can be renewed. */
  headers?: Resolvable<HeaderFields>;
  credentials?: RequestCredentials;
  /** Added to every message that is sent: the `body` that the agent sees. */
  body?: Resolvable<object>;
  /** Major version of `ai` in this application, so that only chunks are sent that it knows. */
  ai?: 5 | 6 | 7;
  retry?: Partial<RetryOptions>;
  /** Silence after which a connection counts as dead. The server is silent for 15 s at most. Default 45 000. */
  stallAfterMs?: number;
  onStatus?(chatId: string, status: StreamStatus, detail: StatusDetail): void;
  /** A reply ended with `StrandlineResyncError`: call `chat.resumeStream()` to read it anew. */
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

/** Answer to a stop (PROTOCOL §6.4). */
export interface StopResult {
  run: string | null;
  /** Status of the run; `idle` when nothing was active, `remembered` when the message has yet to arrive. */
  status: string;
  reason?: string | null;
  /** Where the run ends. Nothing is appended after it. */
  cursor?: string | null;
  /** Whether it was this stop that ended it. */
  stopped: boolean;
}

export interface ActiveRun {
  /** Undefined until the server has answered. */
  run: string | undefined;
  /** Id of the assistant message. */
  messageId: string | undefined;
}

/** Satisfies `ChatTransport<UIMessage>` of ai 5, 6 and 7: `CHUNK` is that version's `UIMessageChunk`. */
export interface StrandlineTransport {
  /** A resumed stream begins with `start` and replaces what the chat had of the message. */
  readonly resumeStreamIsReplay: true;
  sendMessages<CHUNK = unknown>(options: SendOptions): Promise<ReadableStream<CHUNK>>;
  /** Null when nothing is active. */
  reconnectToStream<CHUNK = unknown>(options: ReconnectOptions): Promise<ReadableStream<CHUNK> | null>;
  /**
   * Ends the run that this chat shows, on every device, or whatever is active when it shows none. Resolves when the
   * end is in the log. The stream of the chat ends by itself, with everything that was said before.
   */
  stop(chatId: string, options?: { reason?: string }): Promise<StopResult>;
  /** Cuts the chat's connection as if its socket had died, and resumes. False when none is open. */
  drop(chatId: string): boolean;
  /** The run that the chat is reading, or null. */
  activeRun(chatId: string): ActiveRun | null;
  /** Detaches every stream of this transport. Runs go on. The transport can be used again. */
  close(): void;
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

const DEFAULT_RETRY: RetryOptions = { minDelayMs: 250, maxDelayMs: 10_000, giveUpAfterMs: 120_000 };

/** A stream that ended in one of these ways left its run as it was, so a stop still means that run. */
const UNFINISHED = new Set(["detached", "gave-up", "resync", "protocol"]);

export function strandlineTransport(
  options: StrandlineTransportOptions & InternalOptions = {},
): StrandlineTransport {
  const { api = AI_SDK_PREFIX, clock = systemClock, stallAfterMs = 45_000, ai } = options;
  const retry = { ...DEFAULT_RETRY, ...options.retry };
  const client = `shim/${VERSION}${ai === undefined ? "" : `; ai=${ai}`}`;
  const turns = new Map<string, Turn>();
  const streams = new Set<RunStream>();
  /** Without an answer, with or without a stream that waits for it. */
  const posts = new Set<Post>();

  const transport: StrandlineTransport = {
    resumeStreamIsReplay: true,

    async sendMessages<CHUNK>(call: SendOptions) {
      const { chatId, trigger, messageId, abortSignal } = call;
      const key = createKey(clock);
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
        return { body: JSON.stringify(own?.body ?? sent), headers: own?.headers };
      })();
      turn.post = postUntilAnswered({
        clock,
        retry,
        stallAfterMs,
        onAttempt: () => turn.tell("connecting", {}),
        onWait: reportWait(turn.tell, () => undefined),
        async send() {
          const { body, headers } = await prepared;
          const fields = { "Content-Type": "application/json", [KEY_HEADER]: key };
          return request(api, { method: "POST", body }, call.headers, headers, fields);
        },
      });
      const { post } = turn;
      prepared.catch((error) => post.cancel(error));
      posts.add(post);
      const answered = () => void posts.delete(post);
      post.answer.then(answered, answered);
      await turn.stream.accept(post.answer);
      return turn.stream.chunks as ReadableStream<unknown> as ReadableStream<CHUNK>;
    },

    async reconnectToStream<CHUNK>(call: ReconnectOptions) {
      const { stream } = begin(call.chatId, call, call.abortSignal);
      return (await stream.attach())
        ? (stream.chunks as ReadableStream<unknown> as ReadableStream<CHUNK>)
        : null;
    },

    async stop(chatId, { reason } = {}) {
      const turn = turns.get(chatId);
      const run = turn?.stream.run;
      // A repetition that came after the stop is forgotten would start what was stopped.
      if (run === undefined) turn?.post?.limit(STOP_MEMORY_MS * 0.75);
      const target = run === undefined ? { key: turn?.key, messageId: turn?.messageId } : { run };
      const { answer } = postUntilAnswered({
        clock,
        retry,
        stallAfterMs,
        async send() {
          const init = { method: "POST", body: JSON.stringify({ ...target, reason }), keepalive: true };
          const response = await request(stopUrl(api, chatId), init, { "Content-Type": "application/json" });
          // Read here, so that an answer that is cut is asked for again.
          return response.ok ? new Response(await response.text(), response) : response;
        },
      });
      try {
        const result = (await (await answer).json()) as StopResult;
        // A stream that is waiting to reconnect would show the stop no sooner than that.
        turn?.stream.poke();
        return result;
      } catch (error) {
        if (!(error instanceof StrandlineHttpError) || error.status !== 404) throw error;
        return { run: null, status: "idle", stopped: false };
      }
    },

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
    const resumeKey = createKey(clock);
    const stream = createRunStream({
      clock,
      retry,
      stallAfterMs,
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
    const end = (reason: string) => {
      turn.isOpen = false;
      streams.delete(stream);
      abortSignal?.removeEventListener("abort", stream.detach);
      if (!UNFINISHED.has(reason) && turns.get(chatId) === turn) turns.delete(chatId);
    };
    turns.set(chatId, turn);
    streams.add(stream);
    abortSignal?.addEventListener("abort", stream.detach);
    void stream.ended.then((error) => {
      if (options.onResync === undefined || !(error instanceof StrandlineResyncError)) return;
      // Later than the chat's own reaction to the error, so that it can be told to resume.
      clock.setTimeout(() => options.onResync?.(chatId), 0);
    });
    return turn;
  }

  async function request(
    url: string,
    init: RequestInit,
    ...fields: (HeaderFields | undefined)[]
  ): Promise<Response> {
    const headers = new Headers(await resolve(options.headers));
    for (const more of fields) {
      for (const [name, value] of new Headers(more)) headers.set(name, value);
    }
    headers.set(CLIENT_HEADER, client);
    const credentials = options.credentials && { credentials: options.credentials };
    return (options.fetch ?? globalThis.fetch)(url, { ...init, ...credentials, headers });
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

/** The server has the history and reads one message: the new one, or the one that a tool's output was added to. */
function messageToSend({ trigger, messageId, messages }: SendOptions): readonly ChatMessage[] {
  const named = trigger === "submit-message" && messages.find(({ id }) => id === messageId);
  return named ? [named] : messages.slice(-1);
}

const resolve = <T>(value: Resolvable<T> | undefined): T | undefined | Promise<T> =>
  typeof value === "function" ? (value as () => T | Promise<T>)() : value;

/** `randomUUID` is missing on pages that were not served over HTTPS. A key has to be unique, not secret. */
function createKey(clock: Clock): string {
  const part = () => clock.random().toString(36).slice(2);
  return globalThis.crypto?.randomUUID?.() ?? `${clock.now().toString(36)}-${part()}${part()}`;
}
