/** What an AI SDK chat (ai@5, 6 and 7) asks of its transport: structural types, so that any of them will do. */
import { StrandlineHttpError } from "./errors.js";
import type { HeaderFields } from "./request.js";
import type { Chunk } from "./sse.js";

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

/** The runs of one agent, or all of them, those that wait included. */
export type StopManyOptions = ({ agent: string } | { all: true }) & { reason?: string | undefined };

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
  /** Ends every run of one agent, or all, those that wait included, and resolves with those that it ended. */
  stop(chatId: string, options: StopManyOptions): Promise<StopResult[]>;
  /** Cuts the chat's connection as if its socket had died, and resumes. False when none is open. */
  drop(chatId: string): boolean;
  /** The run that the chat is reading, or null. */
  activeRun(chatId: string): ActiveRun | null;
  /** Detaches every stream of this transport. Runs go on. The transport can be used again. */
  close(): void;
}

/** Another device has decided otherwise: what the chat shows of its reply is not so. */
export const isTooLate = (error: unknown): boolean =>
  error instanceof StrandlineHttpError && error.problem === "already-decided";

/**
 * The same, of the output of a tool that this client has run: that somebody else was quicker is none of its user's business.
 * What the chat is told then, of this message.
 */
export const isOutputTooLate = (error: unknown): boolean =>
  isTooLate(error) &&
  ((error as StrandlineHttpError).document.decision as { kind?: string } | undefined)?.kind === "tool";

/**
 * Said of a message that there is nothing to send: a step of its own, without which a chat that sends by itself would
 * send the same again, for ever (PROTOCOL §15.5).
 */
export const settledAlready = (messageId: string | undefined): Chunk[] => [
  { type: "start-step" },
  { type: "start", messageId },
];

/** `metadata` of a chat that resumes what others may have asked for: their tool calls are not its to run. */
export const ONLOOKING = "strandline-onlooking";

/** The server has the history and reads one message: the new one, or the one that a tool's output was added to. */
export function messageToSend({ trigger, messageId, messages }: SendOptions): readonly ChatMessage[] {
  const named = trigger === "submit-message" && messages.find(({ id }) => id === messageId);
  return named ? [named] : messages.slice(-1);
}
