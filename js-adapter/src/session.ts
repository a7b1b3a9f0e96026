/** One session as applications have it, and what it needs of the client that it belongs to. What it does: `open-session.ts`. */
import type { Clock, RetryOptions } from "./backoff.js";
import type { StopManyOptions, StopResult } from "./chat.js";
import type { Content, RunReply, SessionDecision, SessionEvent } from "./content.js";
import type { StrandlineError } from "./errors.js";
import type { MessagePart } from "./fold.js";
import type { Post } from "./post.js";
import type { SubmitPolicy } from "./protocol.js";
import type { HeaderFields } from "./request.js";
import type { StatusDetail, StreamStatus } from "./status.js";

export type { StopManyOptions, StopResult } from "./chat.js";
export type {
  AnnotationSummary,
  Annotations,
  Author,
  Authors,
  Content,
  RunReply,
  SessionDecision,
  SessionEvent,
  SessionInfo,
  SessionNote,
  SessionReader,
  SessionRun,
  SpawnedMessage,
} from "./content.js";
export type { MessagePart, SessionMessage } from "./fold.js";

/**
 * `idle`: nobody looks. `absent`: there is no such session yet; it is asked for again when something was sent, and now
 * and then, because another device may make it. `offline` is `waiting` while the browser knows that there is no way out.
 * `refused`: see `error`; it is not asked for again.
 */
export type SessionStatus =
  | "idle"
  | "connecting"
  | "live"
  | "waiting"
  | "offline"
  | "absent"
  | "deleted"
  | "refused";

/** Never changed: something new is a new object, and what did not change in it stays the same object. */
export interface SessionView extends Content {
  readonly id: string;
  /** Id of this page among the readers. Null where there is no page. */
  readonly reader: string | null;
  readonly status: SessionStatus;
  /** Why it was refused. */
  readonly error: StrandlineError | null;
  /** The newest offset that is in here. Null until the first snapshot. */
  readonly cursor: string | null;
}

export interface SendOptions {
  /** Default `submit-message`. */
  trigger?: "submit-message" | "regenerate-message";
  /** The message that is edited or regenerated. */
  messageId?: string | undefined;
  /** What the agent sees as `body`. */
  body?: object | undefined;
  /** What becomes of it while a reply is being written. Default: what the session does. */
  submit?: SubmitPolicy | undefined;
  /** Names this request, however often it is made. Default: a new one. */
  key?: string;
  headers?: HeaderFields | undefined;
}

export interface Sent {
  /** Null where nothing is running: answers that leave something `pending`, or a reply that waits for nothing (§15.5). */
  run: string | null;
  /** With `run: null`: ids of the decisions that the reply still waits for. */
  pending?: readonly string[];
  /** Of the reply. */
  messageId: string;
  /** Of the event that queued the run, or that told it. */
  cursor: string;
  /** Id of the message, when no run was started for it and `run` was told it instead. */
  steered?: string;
}

export interface SteerOptions {
  /** Default: the newest run that is running. */
  run?: string | undefined;
  /** What the agent sees as `body` of the run that answers, if it does not take it. */
  body?: object | undefined;
  headers?: HeaderFields | undefined;
}

/** A single annotation (§19.4). */
export interface Annotation {
  readonly id: string;
  /** Id of the message. */
  readonly message: string;
  readonly type: string;
  /** Who said it. */
  readonly by: string;
  readonly at: number;
  /** Of a citation: `url`, `title`, and what else was said. */
  readonly data: unknown;
  readonly range?: { readonly part: number; readonly start?: number; readonly end?: number };
}

export interface AnnotationsOptions {
  /** Only those of this type. */
  type?: string | undefined;
  /** `next` of the page before. */
  after?: string | undefined;
  /** 1 to 200. Default 50. */
  limit?: number;
}

/** What is decided: about an approval, or by a tool that this client runs. */
export type Answer =
  | { approved: boolean; reason?: string }
  | { output: unknown }
  /** The tool failed. */
  | { errorText: string };

export interface Decided {
  decision: SessionDecision;
  /** The run that goes on with the reply. Null while something else of it is pending. */
  run: string | null;
  messageId: string;
}

export interface StopOptions {
  /** Default: the newest run that is running, else the next one that would be. */
  run?: string | undefined;
  reason?: string | undefined;
}

/** A user message: `id` is made up when it has none. */
export interface NewMessage {
  id?: string;
  role?: "user";
  parts: readonly MessagePart[];
  metadata?: unknown;
}

export interface NewAnnotation {
  /** Id of the message. */
  message: string;
  type: string;
  data?: unknown;
  range?: { part: number; start?: number; end?: number };
  /** Made up when missing. The id of one of yours replaces it. */
  id?: string;
}

export interface Session {
  readonly id: string;
  /** The first listener connects, the last one to leave disconnects, a moment later. What was read is kept. */
  subscribe(listener: () => void): () => void;
  getSnapshot(): SessionView;
  /** Every event of the feed while it is connected, in order, after it was applied. */
  onEvent(listener: (event: SessionEvent, cursor: string | undefined) => void): () => void;
  /**
   * Sends a message, or what `trigger` says without one. Repeated until it is answered, and done once. The message is
   * shown at once, marked `pending`. Rejects when it is refused, and when it is time to give up.
   */
  send(message: string, options?: SendOptions): Promise<Sent & { run: string }>;
  send(message: string | NewMessage | undefined, options?: SendOptions): Promise<Sent>;
  /**
   * Tells a running agent something, from any device. Until the agent has taken it, it is among the `notes`; if it never
   * does, it becomes a message when the run ends. Rejects (409 `not-running`) when nothing is running.
   */
  steer(message: string | NewMessage, options?: SteerOptions): Promise<Sent>;
  /** Ends a run, on every device. Resolves when the end is in the log. */
  stop(options?: StopOptions): Promise<StopResult>;
  /** Ends several in one step, and resolves with every one that it ended. */
  stop(options: StopManyOptions): Promise<StopResult[]>;
  /**
   * Decides what a run waits for (`decisions`). Repeated until it is answered, and done once: rejects with a
   * `StrandlineHttpError` (409, `already-decided`) when somebody else has decided otherwise.
   */
  decide(decision: string, answer: Answer): Promise<Decided>;
  /** Loads the page of messages before those that are here. */
  loadOlder(): Promise<void>;
  /** Shows another of the siblings of a message (see `branches`), and what came after it, on every device. */
  selectBranch(messageId: string, index: number): Promise<void>;
  /** Lets a user message say something else, in its place: no new reply, and what it said is gone. */
  edit(messageId: string, parts: readonly MessagePart[], metadata?: unknown): Promise<void>;
  /** Deletes a message, and what it said, on every device and in the store. */
  delete(messageId: string): Promise<void>;
  /** Says something about a message; resolves with the id of the annotation, which `unannotate` takes (§19). */
  annotate(annotation: NewAnnotation): Promise<string>;
  unannotate(annotation: string): Promise<void>;
  /** The single ones of a message, oldest first, of which the snapshot has only summaries. */
  loadAnnotations(
    messageId: string,
    options?: AnnotationsOptions,
  ): Promise<{ annotations: readonly Annotation[]; next: string | null }>;
  /** The chunks of a run, if this page has all of them: of active ones, and for a while of the last that ended. */
  reply(run: string): RunReply | undefined;
  /** Ends a wait for the next attempt; asks again for a session that was absent or refused. */
  poke(): void;
  /** Cuts the connection as if its socket had died, and resumes. False when none is open. */
  drop(): boolean;
  /** Disconnects, whoever listens, until somebody subscribes again. */
  close(): void;
}

/** What a session needs of the client that it belongs to. Paths are what follows the prefix. */
export interface Wire {
  clock: Clock;
  retry: RetryOptions;
  stallAfterMs: number;
  hiddenMs: number;
  /** How many messages are asked for at a time. */
  pageSize: number;
  only: "progress" | undefined;
  exclude: "reasoning" | undefined;
  request(
    path: string,
    query: Query,
    init: RequestInit,
    ...fields: (HeaderFields | undefined)[]
  ): Promise<Response>;
  /** Repeated until it is answered, with JSON. */
  call(path: string, query: Query, init: RequestInit, ...fields: (HeaderFields | undefined)[]): Post;
  /** The name that connections of this page get. */
  readonly reader: string;
  /** Another page has the name of this reader (a tab that was duplicated): makes up a new one. */
  nameReader(): void;
  /** Somebody looks at this session, or nobody does any more: then what it holds may have to be forgotten. */
  onUse(id: string, forget: (() => void) | undefined): void;
  onStatus(id: string, status: StreamStatus, detail: StatusDetail): void;
}

export type Query = Record<string, string | number | boolean | undefined>;
