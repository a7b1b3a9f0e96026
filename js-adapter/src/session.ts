/**
 * One session as this page sees it: a feed while somebody looks, what it says, what was sent from here and is not in the
 * log yet, and the acknowledgement of what was applied. PROTOCOL §8.
 */
import { absentMs, type Clock, type RetryOptions } from "./backoff.js";
import type { StopResult } from "./chat.js";
import { discard } from "./connection.js";
import { type StrandlineError, StrandlineHttpError } from "./errors.js";
import { createFeed } from "./feed.js";
import type { MessagePart, SessionMessage } from "./fold.js";
import { createOutbox } from "./outbox.js";
import type { Post } from "./post.js";
import { CURSOR_HEADER, KEY_HEADER, STOP_MEMORY_MS, type SubmitPolicy } from "./protocol.js";
import { createReceipt } from "./receipt.js";
import { createId, type HeaderFields } from "./request.js";
import type { StatusDetail, StreamStatus } from "./status.js";
import {
  type Content,
  createView,
  type Older,
  type RunReply,
  runsShown,
  type SessionDecision,
  type SessionEvent,
} from "./view.js";
import { isHidden, watchWake } from "./wake.js";

export type { StopResult } from "./chat.js";
export type { MessagePart, SessionMessage } from "./fold.js";
export type {
  AnnotationSummary,
  Annotations,
  Content,
  RunReply,
  SessionDecision,
  SessionEvent,
  SessionInfo,
  SessionNote,
  SessionReader,
  SessionRun,
  SpawnedMessage,
} from "./view.js";

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
  /** Null for answers that leave something pending: then nothing is running (PROTOCOL §15.5). */
  run: string | null;
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

/** The runs of one agent, or all of them, those that wait included. */
export type StopManyOptions = ({ agent: string } | { all: true }) & { reason?: string | undefined };

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

export function createSession(id: string, wire: Wire): Session {
  const { clock } = wire;
  const path = `/${encodeURIComponent(id)}`;
  const view = createView(wire.only !== undefined);
  const listeners = new Set<() => void>();
  const eventListeners = new Set<(event: SessionEvent, cursor: string | undefined) => void>();
  let status: SessionStatus = "idle";
  let error: StrandlineError | null = null;
  let cursor: string | null = null;
  let snapshot: SessionView | undefined;
  const outbox = createOutbox();
  /** Who this page is on the newest connection, which keeps its name when the page takes another. */
  let { reader } = wire;
  const receipt = createReceipt(clock, (applied) => {
    const body = JSON.stringify({ reader, cursor: applied });
    wire.request(`${path}/ack`, {}, { method: "POST", body, keepalive: true }).then(discard, () => {});
  });
  let unanswered: { post: Post; key: string } | undefined;
  let leaving: unknown;
  /** How many messages of ours the server has, now and when the feed was last asked for. */
  let answered = 0;
  let answeredBefore = 0;
  let unwatch = () => {};
  /** How often in a row it was not there, and when it is asked for again. */
  let absences = 0;
  let asking: unknown;

  const feed = createFeed({
    ...wire,
    request(from, signal) {
      reader = wire.reader;
      answeredBefore = answered;
      outbox.asked();
      if (from !== undefined) receipt.presented(from);
      const query = { last: from === undefined ? wire.pageSize : undefined, only: wire.only };
      const position = from === undefined ? {} : { [CURSOR_HEADER]: from };
      return wire.request(`${path}/events`, query, { signal, cache: "no-store" }, position);
    },
    onFrame(data, position) {
      const event = data as SessionEvent;
      if (event.type === "replaced") {
        if (reader === wire.reader) wire.nameReader();
        reader = wire.reader;
        return tell();
      }
      if (event.type === "session-deleted") {
        leave("deleted");
        forget();
      } else {
        try {
          view.apply(event);
        } catch (cause) {
          if (event.type === "snapshot") throw cause;
          // Whatever was wrong with it: in a fresh snapshot it is right.
          return feed.restart(undefined);
        }
        if (event.type === "snapshot") outbox.compared(view.content().messages);
        else if (event.type === "message-created" || event.type === "steered")
          outbox.arrived(event.message_id);
        // The list of readers is what a connection is told first when it has caught up (§8.11).
        if (event.type === "snapshot" || event.type === "readers") {
          status = "live";
          absences = 0;
        }
        if (position !== undefined) {
          cursor = position;
          receipt.applied(position, event.type === "run-ended");
        }
        if (event.type === "position") return;
      }
      snapshot = undefined;
      for (const listener of [...eventListeners]) safely(() => listener(event, position));
      tell();
    },
    onStatus(now, detail) {
      wire.onStatus(id, now, detail);
      // Connected is not there yet: what was missed has to come first.
      if (status === now || now === "ended" || now === "live") return;
      // Asking again for what is absent is not worth a word.
      if (absences > 0 && now === "connecting") return;
      status = now;
      tell();
    },
    onRefused(cause) {
      // It was asked for before the message that made it had arrived.
      if (answered !== answeredBefore) return connect();
      const isGone = cause instanceof StrandlineHttpError && cause.status === 404;
      leave(!isGone ? "refused" : cursor === null ? "absent" : "deleted");
      if (isGone) forget();
      else error = cause;
      if (status === "absent") askLater();
      tell();
    },
  });

  return {
    id,
    subscribe(listener) {
      // A function of its own, so that subscribing it twice is two subscriptions.
      const mine = () => listener();
      listeners.add(mine);
      clock.clearTimeout(leaving);
      wire.onUse(id, undefined);
      connect();
      return () => {
        if (!listeners.delete(mine) || listeners.size > 0) return;
        // A moment later: a component that is mounted again at once, or a page that follows another, goes on with it.
        leaving = clock.setTimeout(() => {
          leave("idle");
          tell();
          wire.onUse(id, forget);
        }, 0);
      };
    },
    getSnapshot,
    onEvent(listener) {
      const mine: typeof listener = (event, position) => listener(event, position);
      eventListeners.add(mine);
      return () => void eventListeners.delete(mine);
    },
    send,
    steer,
    stop,
    decide,
    loadOlder,
    selectBranch: (message, index) => change("/branch", "POST", { message, index }),
    edit: (id, parts, metadata) => change(messagePath(id), "PATCH", { parts, metadata }),
    delete: (id) => change(messagePath(id), "DELETE"),
    annotate,
    unannotate,
    reply: (run) => view.reply(run),
    poke() {
      if (listeners.size > 0) connect();
    },
    drop: () => feed.drop(),
    close() {
      clock.clearTimeout(leaving);
      leave("idle");
      tell();
    },
  };

  function connect(): void {
    absences = 0;
    if (status === "absent") {
      status = "connecting";
      tell();
    }
    ask();
  }

  function ask(): void {
    clock.clearTimeout(asking);
    if (!feed.isRunning) {
      error = null;
      unwatch();
      unwatch = watchWake((change) => {
        if (change !== "back") receipt.flush();
      });
    }
    feed.start();
  }

  function askLater(): void {
    unwatch = watchWake((change) => change === "back" && ask());
    asking = clock.setTimeout(() => isHidden() || ask(), absentMs(absences++));
  }

  function leave(as: SessionStatus): void {
    clock.clearTimeout(asking);
    receipt.flush();
    unwatch();
    feed.stop();
    status = as;
  }

  function forget(): void {
    view.clear();
    // What the server had went with it.
    outbox.asked();
    outbox.compared([]);
    feed.restart(undefined);
    receipt.clear();
    cursor = null;
    tell();
  }

  function tell(): void {
    snapshot = undefined;
    for (const listener of [...listeners]) safely(listener);
  }

  function getSnapshot(): SessionView {
    if (snapshot !== undefined) return snapshot;
    const content = view.content();
    const messages = outbox.shown(content.messages);
    snapshot = { ...content, messages, id, reader, status, error, cursor };
    return snapshot;
  }

  function send(input: string, options?: SendOptions): Promise<Sent & { run: string }>;
  function send(input: string | NewMessage | undefined, options?: SendOptions): Promise<Sent>;
  async function send(input: string | NewMessage | undefined, options: SendOptions = {}): Promise<Sent> {
    const { trigger = "submit-message", messageId, body, submit, headers, key = createId(clock) } = options;
    const given = partsOf(input);
    // An edited message keeps its id.
    const message = given && ({ id: messageId ?? createId(clock), role: "user", ...given } as SessionMessage);
    const isNew =
      message?.role === "user" &&
      trigger === "submit-message" &&
      (messageId !== undefined || view.content().messages.every(({ id }) => id !== message.id));
    const shown = isNew ? outbox.put(message) : undefined;
    const init = { method: "POST", body: JSON.stringify({ message, trigger, messageId, body, submit }) };
    const post = wire.call(`${path}/messages`, {}, init, headers, { [KEY_HEADER]: key });
    const mine = { post, key };
    unanswered = mine;
    tell();
    try {
      const sent = (await (await post.answer).json()) as Sent;
      answered++;
      if (sent.steered !== undefined) shown?.takeOut();
      else shown?.answered();
      // Not when it was closed meanwhile.
      if (listeners.size > 0 && status !== "idle") connect();
      return sent;
    } catch (cause) {
      shown?.takeOut();
      tell();
      throw cause;
    } finally {
      if (unanswered === mine) unanswered = undefined;
    }
  }

  async function steer(input: string | NewMessage, options: SteerOptions = {}): Promise<Sent> {
    const { run, body, headers } = options;
    const message = { id: createId(clock), role: "user", ...partsOf(input) };
    const init = { method: "POST", body: JSON.stringify({ message, run, body }) };
    return (await (await wire.call(`${path}/steer`, {}, init, headers).answer).json()) as Sent;
  }

  function stop(options?: StopOptions): Promise<StopResult>;
  function stop(options: StopManyOptions): Promise<StopResult[]>;
  async function stop(
    options: StopOptions & { agent?: string; all?: true } = {},
  ): Promise<StopResult | StopResult[]> {
    const { run, reason, agent, all } = options;
    const isMany = all === true || agent !== undefined;
    // A repetition that came after the stop is forgotten would start what was stopped.
    if (run === undefined) unanswered?.post.limit(STOP_MEMORY_MS * 0.75);
    const target = isMany
      ? { agent, all }
      : { run: run ?? (unanswered ? undefined : newest()), key: run ? undefined : unanswered?.key };
    const body = JSON.stringify({ ...target, reason });
    try {
      const { answer } = wire.call(`${path}/stop`, {}, { method: "POST", body, keepalive: true });
      const result = (await (await answer).json()) as StopResult & { runs: StopResult[] };
      feed.poke();
      return isMany ? result.runs : result;
    } catch (cause) {
      if (!(cause instanceof StrandlineHttpError) || cause.status !== 404) throw cause;
      return isMany ? [] : { run: null, status: "idle", stopped: false };
    }
  }

  /** What a stop without a name means here, as the server would say. */
  function newest(): string | undefined {
    const content = view.content();
    const shown = runsShown(content);
    const known = [...content.activeRuns, ...shown].reverse();
    return (known.find((run) => run.status === "running") ?? shown[0] ?? content.activeRuns[0])?.id;
  }

  async function decide(decision: string, given: Answer): Promise<Decided> {
    const init = { method: "POST", body: JSON.stringify(given) };
    const { answer } = wire.call(`${path}/decisions/${encodeURIComponent(decision)}`, {}, init);
    const result = (await (await answer).json()) as Decided;
    feed.poke();
    return result;
  }

  /** Repeated until it is answered, which changes nothing. It shows when the feed says so. */
  async function change(where: string, method: string, body?: object): Promise<void> {
    const init = { method, ...(body && { body: JSON.stringify(body) }) };
    discard(await wire.call(path + where, {}, init).answer);
    feed.poke();
  }

  async function annotate(annotation: NewAnnotation): Promise<string> {
    // With an id a repetition replaces what it repeats.
    const { id: named = createId(clock) } = annotation;
    const body = JSON.stringify({ ...annotation, id: named });
    await wire.call(`${path}/annotations`, {}, { method: "POST", body }).answer.then(discard);
    return named;
  }

  async function unannotate(annotation: string): Promise<void> {
    const one = `${path}/annotations/${encodeURIComponent(annotation)}`;
    try {
      await wire.call(one, {}, { method: "DELETE" }).answer.then(discard);
    } catch (cause) {
      // It is gone: a repetition may say so.
      if (!(cause instanceof StrandlineHttpError) || cause.status !== 404) throw cause;
    }
  }

  async function loadOlder(): Promise<void> {
    const { before } = view;
    if (before === null) return;
    const { answer } = wire.call(`${path}/messages`, { limit: wire.pageSize, before }, {});
    const older = (await (await answer).json()) as Older;
    // Asked twice, or on another branch by now.
    if (view.before !== before) return;
    view.prepend(older);
    tell();
  }
}

const messagePath = (id: string) => `/messages/${encodeURIComponent(id)}`;
const partsOf = (input: string | NewMessage | undefined) =>
  typeof input === "string" ? { parts: [{ type: "text", text: input }] } : input;

/** A listener that throws must not end the feed. It is the application's error, so it goes where those go. */
export function safely(work: () => void): void {
  try {
    work();
  } catch (error) {
    globalThis.reportError?.(error);
  }
}
