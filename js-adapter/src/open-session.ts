/**
 * One session as this page sees it: a feed while somebody looks, what it says, what was sent from here and is not in the
 * log yet, and the acknowledgement of what was applied. PROTOCOL §8.
 */
import { absentMs } from "./backoff.js";
import type { StopResult } from "./chat.js";
import { discard } from "./connection.js";
import { type Older, runsShown, type SessionEvent } from "./content.js";
import { type StrandlineError, StrandlineHttpError } from "./errors.js";
import { createFeed } from "./feed.js";
import type { MessagePart, SessionMessage } from "./fold.js";
import { createOutbox } from "./outbox.js";
import type { Post } from "./post.js";
import { CURSOR_HEADER, KEY_HEADER, STOP_MEMORY_MS } from "./protocol.js";
import { createReceipt } from "./receipt.js";
import { createId } from "./request.js";
import { createRequests, partsOf } from "./requests.js";
import type {
  NewMessage,
  SendOptions,
  Sent,
  Session,
  SessionStatus,
  SessionView,
  StopManyOptions,
  StopOptions,
  Wire,
} from "./session.js";
import { createView } from "./view.js";
import { isHidden, watchWake } from "./wake.js";

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
      const query = {
        last: from === undefined ? wire.pageSize : undefined,
        only: wire.only,
        exclude: wire.exclude,
      };
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
    stop,
    loadOlder,
    ...createRequests(path, wire, feed.poke),
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

  async function loadOlder(): Promise<void> {
    const { before } = view;
    if (before === null) return;
    const { answer } = wire.call(`${path}/messages`, { limit: wire.pageSize, before }, {});
    const older = (await (await answer).json()) as Older;
    // Asked twice, or on another branch by now.
    if (view.before !== before) return;
    // Pages are whole.
    const isKept = ({ type }: MessagePart) => wire.exclude === undefined || !type.startsWith(wire.exclude);
    const messages = older.messages.map((one) => ({ ...one, parts: one.parts.filter(isKept) }));
    view.prepend({ ...older, messages });
    tell();
  }
}

/** A listener that throws must not end the feed. It is the application's error, so it goes where those go. */
export function safely(work: () => void): void {
  try {
    work();
  } catch (error) {
    globalThis.reportError?.(error);
  }
}
