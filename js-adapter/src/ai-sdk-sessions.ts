/**
 * The AI SDK's `ChatTransport` (ai@5, 6 and 7) over a session client: what a chat sends is sent to the session, and what
 * it reads is read off the session's feed, so that one connection carries everything that a page shows of a session.
 *
 * An abort only ever detaches. What ends a run is `stop()`.
 */
import {
  type ActiveRun,
  isOutputTooLate,
  isTooLate,
  messageToSend,
  ONLOOKING,
  type ReconnectOptions,
  type SendOptions,
  type StrandlineTransport,
  settledAlready,
} from "./chat.js";
import { runsShown } from "./content.js";
import { abortError, StrandlineGoneError, StrandlineProtocolError, StrandlineResyncError } from "./errors.js";
import { onlooking } from "./onlooking.js";
import { createOutlet } from "./outlet.js";
import { AI_SDK_PREFIX, CURSOR_HEADER, KEY_HEADER, type SubmitPolicy, streamUrl } from "./protocol.js";
import { createId, type Resolvable, resolve } from "./request.js";
import { createRunStream } from "./run-stream.js";
import type {
  NewMessage,
  RunReply,
  Sent,
  Session,
  SessionEvent,
  SessionStatus,
  SessionView,
} from "./session.js";
import type { Sessions } from "./sessions.js";
import type { Chunk } from "./sse.js";

export interface SessionTransportOptions {
  sessions: Sessions;
  /**
   * Prefix of the AI SDK wire, default `/api/chat`: where a reply is read that was over before this page had heard of
   * its session. A chat that resumes when nothing is active asks there for what it is owed (PROTOCOL §6.6).
   */
  api?: string;
  /** Added to every message that is sent: the `body` that the agent sees. */
  body?: Resolvable<object>;
  /** What becomes of a message that is sent while a reply is being written. Default: what the session does. */
  submit?: Resolvable<SubmitPolicy | undefined>;
  /**
   * A reply ended with `StrandlineResyncError`, or another device was quicker to decide: call `chat.resumeStream()` to
   * read it anew.
   */
  onResync?(chatId: string): void;
}

/** What a chat has asked for and not seen the end of. */
interface Turn extends ActiveRun {
  detach(): void;
}

interface Followed {
  chunks: ReadableStream<Chunk>;
  /** Resolves with the error that the stream ended with, if any, when its reader has seen the end. */
  ended: Promise<unknown>;
}

const LOST = "The server stopped before this reply was finished. What it said so far is kept.";

export function sessionTransport(options: SessionTransportOptions): StrandlineTransport {
  const { sessions, api = AI_SDK_PREFIX } = options;
  const { clock, request } = sessions.asking;
  /** The newest of each chat: what a stop means. */
  const turns = new Map<string, Turn>();
  const turnsOpen = new Set<Turn>();
  /** Runs that were asked for here, with the tool calls of each that the chat was given to run. */
  const asked = new Map<string, Set<string>>();

  return {
    resumeStreamIsReplay: true,

    async sendMessages<CHUNK>(call: SendOptions) {
      const { chatId, trigger, messageId = undefined, headers, abortSignal } = call;
      const message = messageToSend(call)[0] as unknown as NewMessage | undefined;
      const stream = await begin<CHUNK>(chatId, abortSignal, false, async (session, turn, signal) => {
        const body = { ...(await resolve(options.body)), ...call.body };
        const submit = await resolve(options.submit);
        signal.throwIfAborted();
        const aborted = new Promise<never>((_, reject) => {
          signal.addEventListener("abort", () => reject(abortError()));
        });
        // What is posted is not taken back: its answer may come when nobody waits for it any more.
        const sending = session.send(message, { trigger, messageId, body, headers, submit });
        const sent = await Promise.race([sending, aborted]).catch((error) => {
          if (isTooLate(error)) readAnew(chatId);
          if (isOutputTooLate(error)) return { run: null, messageId: message?.id as string } as Sent;
          throw error;
        });
        turn.messageId = sent.messageId;
        if (sent.run === null) return nothing(sent);
        turn.run = sent.run;
        if (sent.steered !== undefined) return steered(sent);
        asked.set(sent.run, new Set());
        return follow(session, sent.run, signal, message?.role !== undefined && message.role !== "user");
      });
      if (stream === null) throw new StrandlineGoneError();
      return stream;
    },

    reconnectToStream: <CHUNK>({ chatId, abortSignal, metadata }: ReconnectOptions) =>
      begin<CHUNK>(chatId, abortSignal, metadata === ONLOOKING, async (session, turn, signal) => {
        await seen(session, signal, ({ status }) => status === "live" || undefined);
        const [run] = runsShown(session.getSnapshot());
        turn.run = run?.id;
        turn.messageId = run?.messageId;
        if (run !== undefined) return follow(session, run.id, signal);
        // The history that this chat shows may be older than the end of a reply which it left out.
        return session.getSnapshot().status === "live" ? replay(session, turn, signal) : null;
      }),

    stop: ((chatId, options = {}) =>
      sessions.open(chatId).stop({ run: turns.get(chatId)?.run, ...options })) as StrandlineTransport["stop"],

    drop: (chatId) => sessions.open(chatId).drop(),

    activeRun(chatId) {
      const turn = turns.get(chatId);
      return turn === undefined ? null : { run: turn.run, messageId: turn.messageId };
    },

    close() {
      for (const turn of [...turnsOpen]) turn.detach();
    },
  };

  /** Reads what `find` finds, holding the session's connection meanwhile. Null when there is none. */
  async function begin<CHUNK>(
    chatId: string,
    abortSignal: AbortSignal | undefined,
    isOnlooking: boolean,
    find: (session: Session, turn: Turn, signal: AbortSignal) => Promise<Followed | null>,
  ): Promise<ReadableStream<CHUNK> | null> {
    if (chatId === "." || chatId === "..") throw new StrandlineProtocolError(`"${chatId}" cannot be an id.`);
    if (abortSignal?.aborted) throw abortError();
    const session = sessions.open(chatId);
    const release = session.subscribe(() => {});
    const life = new AbortController();
    const detach = () => life.abort();
    const turn: Turn = { run: undefined, messageId: undefined, detach };
    turns.set(chatId, turn);
    turnsOpen.add(turn);
    abortSignal?.addEventListener("abort", detach);
    const end = () => {
      abortSignal?.removeEventListener("abort", detach);
      turnsOpen.delete(turn);
      if (turns.get(chatId) === turn) turns.delete(chatId);
      detach();
      release();
    };
    try {
      const followed = await find(session, turn, life.signal);
      if (followed === null) {
        end();
        return null;
      }
      void followed.ended.then((error) => {
        end();
        if (error instanceof StrandlineResyncError) readAnew(chatId);
      });
      const chunks = onlooking(followed.chunks, (call) => isToRun(turn.run, call, isOnlooking));
      return chunks as ReadableStream<unknown> as ReadableStream<CHUNK>;
    } catch (error) {
      end();
      throw error;
    }
  }

  /** Whether the chat is to be told to run this tool: once if it has asked for the reply and only looks on now. */
  function isToRun(run: string | undefined, call: string, isOnlooking: boolean): boolean {
    const given = asked.get(run as string);
    const isMine = !isOnlooking || given?.has(call) === false;
    given?.add(call);
    return isMine;
  }

  function readAnew(chatId: string): void {
    // Later than the chat's own reaction to the error, so that it can be told to resume.
    clock.setTimeout(() => options.onResync?.(chatId), 0);
  }

  /** `goesOn`: the chat has the message so far, and is only told what follows; else it is told all of it. */
  async function follow(
    session: Session,
    run: string,
    signal: AbortSignal,
    goesOn = false,
  ): Promise<Followed | null> {
    await seen(session, signal, ({ runs }) => session.reply(run) ?? runs.find(({ id }) => id === run));
    // Asked for again: events that came together with the one that was waited for have been applied meanwhile.
    const reply = session.reply(run);
    const isWhole = reply?.chunks[0]?.type === "start" || !reply?.goesOn;
    if (reply !== undefined && isWhole !== goesOn) return followLive(session, run, reply, signal);
    if (goesOn) throw new StrandlineResyncError();
    // It was over before this page had heard of its session, or this page was not there when it began.
    return replay(session, { run }, signal);
  }

  /** Off the other wire, which tells a run whatever its state: this one, or the one that it owes to who has none. */
  async function replay(
    session: Session,
    turn: Partial<ActiveRun>,
    signal: AbortSignal,
  ): Promise<Followed | null> {
    const key = createId(clock);
    const stream = createRunStream({
      ...sessions.asking,
      onStatus: () => {},
      request(cursor, run = turn.run, cut) {
        const position = cursor === undefined ? { [KEY_HEADER]: key } : { [CURSOR_HEADER]: cursor };
        return request(streamUrl(api, session.id, run), { signal: cut, cache: "no-store" }, position);
      },
    });
    signal.addEventListener("abort", stream.detach);
    if (!(await stream.attach())) return null;
    turn.run = stream.run;
    turn.messageId = stream.messageId;
    return stream;
  }
}

/** Answers were recorded, and something else is pending. Or nothing is. */
const nothing = ({ messageId, pending }: Sent): Followed =>
  only(...settledAlready(messageId).slice(pending?.length ? 1 : 0));

/** The first thing that `look` finds in a session that is being followed. Undefined when there is no such session. */
function seen<T>(
  session: Session,
  signal: AbortSignal,
  look: (view: SessionView) => T | undefined,
): Promise<T | undefined> {
  return new Promise((resolve, reject) => {
    const settle = (end: () => void) => {
      signal.removeEventListener("abort", cancel);
      release?.();
      end();
    };
    const cancel = () => settle(() => reject(abortError()));
    const check = () => {
      if (release === undefined) return;
      const view = session.getSnapshot();
      const { status, error } = view;
      const found = look(view);
      if (found !== undefined) settle(() => resolve(found));
      else if (status === "absent" || status === "deleted") settle(() => resolve(undefined));
      else if (status === "refused" || status === "idle") settle(() => reject(error ?? abortError()));
    };
    let release: (() => void) | undefined;
    release = session.subscribe(check);
    signal.addEventListener("abort", cancel);
    check();
  });
}

/** Then nothing more comes. */
const OVER = new Set<SessionStatus>(["idle", "refused", "absent", "deleted"]);

/** The answer of the other wire to a message that an agent was told which is running (PROTOCOL §14.4). */
const steered = ({ run, steered: messageId }: Sent): Followed =>
  only({ type: "data-strandline", data: { steered: { run, messageId } }, transient: true });

function only(...chunks: Chunk[]): Followed {
  const outlet = createOutlet<Chunk>(() => {});
  outlet.push(chunks);
  outlet.end();
  return { chunks: outlet.stream, ended: outlet.ended };
}

/** What has been said of a run, and then what the feed says of it. */
function followLive(session: Session, run: string, reply: RunReply, signal: AbortSignal): Followed {
  const outlet = createOutlet<Chunk>(() => end());
  let finalError: unknown;
  const end = (error?: unknown) => {
    finalError ??= error;
    for (const undo of undos) undo();
    outlet.end(error);
  };
  const take = (event: SessionEvent) => {
    // A fresh snapshot: how what was read here goes on is not known.
    if (event.type === "snapshot") end(new StrandlineResyncError());
    else if (event.run !== run) return;
    else if (event.type === "run-started") begin();
    else if (event.type === "appended") outlet.push(event.chunks as Chunk[]);
    else if (event.type === "message-reset") end(new StrandlineResyncError());
    else if (event.type === "run-ended") {
      const [last, error] = endingOf(event as RunEnded);
      outlet.push([last]);
      end(error);
    }
  };
  const undos = [
    session.onEvent(take),
    session.subscribe(() => {
      const { status, error } = session.getSnapshot();
      if (OVER.has(status)) end(error ?? abortError(status));
    }),
  ];
  signal.addEventListener("abort", () => {
    end(abortError());
    outlet.fail(abortError());
  });
  const { messageId, chunks } = reply;
  // A snapshot begins with `start`, which has the metadata; in the log it is not a chunk.
  const begin = () =>
    outlet.push(chunks[0]?.type === "start" ? chunks : [{ type: "start", messageId }, ...chunks]);
  // A chat that is told that a reply begins shows it: not before its turn has come.
  const isQueued = session.getSnapshot().runs.some(({ id, status }) => id === run && status === "queued");
  if (!isQueued) begin();
  if (reply.end !== undefined) take(reply.end);
  return { chunks: outlet.stream, ended: outlet.ended.then(() => finalError) };
}

interface RunEnded extends SessionEvent {
  status: string;
  reason: string;
  error?: string;
  finish_reason?: string;
}

/** The terminal chunk (PROTOCOL §9), and the error that the stream ends with. */
function endingOf({
  status,
  reason,
  error,
  finish_reason: finishReason,
}: RunEnded): [last: Chunk, error?: unknown] {
  if (status === "completed") return [{ type: "finish", finishReason: finishReason ?? "stop" }];
  if (status === "suspended") return [{ type: "finish", finishReason: "tool-calls" }];
  // Chats ignore the chunk and heed the error: `isAbort`, status `ready`, on every device (ai@5-7, `chat.ts`).
  if (status === "stopped") return [{ type: "abort", reason }, abortError(reason)];
  if (status === "lost") return [{ type: "error", errorText: LOST, code: status }];
  return [{ type: "error", errorText: error ?? "The reply failed.", code: reason }];
}
