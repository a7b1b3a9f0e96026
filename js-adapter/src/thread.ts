/**
 * A thread of TanStack AI as it happens: PROTOCOL §11.10. The conversation is loaded, the chat is told it, and the live
 * thread is followed from there. What the chat could not be told by going on is told by beginning again.
 *
 * The chat (`@tanstack/ai-client@0.33.2 src/chat-client.ts`, `@tanstack/ai@0.58.0 .../stream/processor.ts`) keeps more
 * than messages: a reply that goes on, tool calls by id, whether an end was announced. Only `MESSAGES_SNAPSHOT` and its
 * own sends reset that.
 */
import { type ChatMessage, finished, type Hydrated, interrupted, placeOf, runOf } from "./ag-ui.js";
import { absentMs, type Clock, type RetryOptions } from "./backoff.js";
import type { ChunkQueue } from "./chunk-queue.js";
import { createConversation } from "./conversation.js";
import { StrandlineHttpError } from "./errors.js";
import { createFeed } from "./feed.js";
import { CHANGED, RESYNC } from "./protocol.js";
import type { Chunk } from "./sse.js";
import type { OnStatus } from "./status.js";

export interface ThreadOptions {
  clock: Clock;
  retry: RetryOptions;
  stallAfterMs: number;
  hiddenMs: number;
  onStatus: OnStatus;
  /** `GET`: the newest `limit` messages, or all. */
  load(limit: number | undefined): Promise<Response>;
  /** `GET`: the live thread. */
  follow(cursor: string | undefined, signal: AbortSignal): Promise<Response>;
}

export interface Thread {
  /** Whether everything is told to a chat that subscribed. */
  readonly isFollowed: boolean;
  /** Loads the conversation for the chat. Who follows goes on from there. */
  hydrate(limit: number | undefined): Promise<Hydrated>;
  /** The chat was given older messages. */
  prepend(found: Hydrated): void;
  /** Tell everything to this queue, and nothing to the one before; with `until`, up to the end of that run. */
  tell(queue: ChunkQueue, until?: string): void;
  leave(queue: ChunkQueue): void;
  /**
   * The chat sends a message, or (`goesOn`) decides what a reply waits for, and waits for the end of this run.
   * `messages` are those that it shows.
   */
  sending(runId: string, messages: readonly ChatMessage[], goesOn: boolean): void;
  /** The server has it. */
  accepted(runId: string, messageId: string): void;
  /** An agent that is running was told the message: there will be no such run. */
  told(runId: string): void;
  /** It was not taken: there will be no such run. */
  refused(runId: string): void;
  /** The chat does not wait any more. What the run says from now on is not shown before it has ended. */
  abandon(runId: string): void;
  /** Newest run of this chat that has not ended, as far as is known. */
  readonly ownRun: string | undefined;
  /** Ends a wait. */
  poke(): void;
  drop(): boolean;
  close(): void;
}

/** What a `decision-made` event says (§11.13). */
interface Made {
  outcome: string;
}

/** A run that the server has and that does not begin for so long may be over: then the conversation is loaded again. */
const OVERDUE_MS = 2_000;

export function createThread(options: ThreadOptions): Thread {
  const { clock, retry, stallAfterMs, onStatus } = options;
  let queue: ChunkQueue | undefined;
  let until: string | undefined;
  let got: { found: Hydrated; wasAccepted: boolean } | undefined;
  let absences = 0;
  /** Whether the chat was told anything, or shows anything of its own. */
  let isTold = false;
  let known = new Set<string>();
  /** What this chat has sent and the live thread has not said yet, with its run. */
  const unsent = new Map<string, { message: ChatMessage; runId: string; isSent: boolean }>();

  // Where the live thread is.
  let held: Chunk[] = [];
  let leaf: string | null = null;
  /** The newest event that the conversation had when it was loaded. */
  let seen = 0;
  let run: string | undefined;
  let expected: string | undefined;
  let quiet: unknown;
  /** A run has ended since the chat's state was reset: another one would be the first that it does not see end. */
  let isStale = false;
  /** Something of others came after what was sent last: if that comes now, the chat shows it too early. */
  let isOvertaken = false;

  /** Id of the reply that `run` writes. What is not of it waits for its end: a chat shows one after the other. */
  let writes: string | undefined;
  let later: Chunk[] = [];

  // What the chat does.
  let waiting: string | undefined;
  let own: string | undefined;
  /** Id of the reply to what was sent last, once the server has it. */
  let reply: string | undefined;
  /** That reply was there before. */
  let isContinued = false;
  /** The run that the chat believes to wait for a decision. */
  let paused: string | undefined;
  let lookout: unknown;
  const muted = new Set<string>();
  /** Runs that were disturbed: the chat may have missed a part. */
  const suspects = new Set<string>();

  const conversation = createConversation({
    clock,
    retry,
    stallAfterMs,
    onStatus,
    load: options.load,
    shown: () => known.size,
    isPatient: () => queue !== undefined,
    onBegin() {
      feed.stop();
      // What the server has is listed, or is on another branch.
      for (const [id, { isSent }] of unsent) if (isSent) unsent.delete(id);
      return reply !== undefined;
    },
    onFound: settle,
    onRefused: fail,
  });

  const feed = createFeed({
    clock,
    retry,
    stallAfterMs,
    hiddenMs: options.hiddenMs,
    onStatus,
    request(cursor, signal) {
      held = []; // Half of something that comes again, whole.
      return options.follow(cursor, signal);
    },
    onFrame(chunk, cursor) {
      if (cursor === undefined) {
        if (chunk.type !== "RUN_ERROR") held.push(chunk);
        else if (chunk.code === RESYNC) reload();
        return;
      }
      for (const each of [...held.splice(0), chunk]) if (!take(each)) return reload();
    },
    onRefused(error) {
      const isElsewhere =
        error instanceof StrandlineHttpError && (error.status === 409 || error.status === 404);
      if (isElsewhere) reload();
      else fail(error);
    },
  });

  return {
    get isFollowed() {
      return queue !== undefined && until === undefined;
    },
    hydrate: async (limit) => {
      const found = await conversation.hydrate(limit);
      isTold ||= found.messages.length > 0;
      return found;
    },
    prepend(found) {
      for (const { id } of found.messages) known.add(id);
      conversation.prepend(found);
    },
    tell(taker, upTo) {
      queue?.end();
      feed.stop();
      queue = taker;
      until = upTo;
      if (until !== undefined && got?.found.activeRun?.runId === until) settle(got.found, got.wasAccepted);
      else if (!conversation.isLoading) conversation.later(0);
      got = undefined;
    },
    leave(taker) {
      taker.end();
      if (queue === taker) rest();
    },
    sending(runId, messages, goesOn) {
      const last = messages.at(-1);
      const ids = new Set(messages.map(({ id }) => id));
      for (const id of unsent.keys()) if (!ids.has(id)) unsent.delete(id);
      if (last?.role === "user") {
        unsent.set(last.id, { message: last, runId, isSent: false });
        known.add(last.id);
      }
      if (run !== undefined) suspects.add(run);
      waiting = own = runId;
      reply = undefined;
      isContinued = goesOn;
      isStale = isOvertaken = false;
      isTold = true;
      got = undefined;
    },
    accepted(runId, messageId) {
      for (const each of unsent.values()) if (each.runId === runId) each.isSent = true;
      if (own !== runId) return;
      reply = messageId;
      if (isPast(runId)) conclude(runId);
      clock.clearTimeout(lookout);
      lookout = clock.setTimeout(() => {
        if (waiting === runId && run !== runId && expected !== runId) reload();
      }, OVERDUE_MS);
      if (absences > 0) conversation.later(0);
      feed.poke();
    },
    told(runId) {
      for (const [id, each] of unsent) if (each.runId === runId) unsent.delete(id);
      if (waiting === runId) conclude(runId);
      if (own === runId) own = undefined;
    },
    refused(runId) {
      if (waiting === runId) waiting = undefined;
      if (own === runId) own = undefined;
    },
    abandon(runId) {
      if (waiting === runId) waiting = undefined;
      if (own !== runId) return;
      muted.add(runId);
      suspects.add(runId);
    },
    get ownRun() {
      return own;
    },
    poke() {
      if (absences > 0) conversation.later(0);
      feed.poke();
    },
    drop: () => feed.drop(),
    close() {
      queue?.end();
      rest();
    },
  };

  function rest(): void {
    queue = until = undefined;
    clock.clearTimeout(lookout);
    conversation.stop();
    feed.stop();
  }

  function fail(error: unknown): void {
    queue?.end(error);
    rest();
  }

  // ------------------------------------------------------------------ the conversation

  function reload(): void {
    feed.stop();
    conversation.again();
  }

  function settle(found: Hydrated, wasAccepted: boolean): void {
    if (queue === undefined) {
      got = { found, wasAccepted };
      return;
    }
    const active = found.activeRun?.runId;
    known = new Set(found.messages.map(({ id }) => id));
    for (const id of unsent.keys()) if (known.has(id)) unsent.delete(id);
    const messages = [...found.messages, ...[...unsent.values()].map(({ message }) => message)];
    for (const { id } of messages) known.add(id);
    if (messages.length > 0 || isTold) queue.push({ type: "MESSAGES_SNAPSHOT", messages });
    // The chat counts as connected when something came.
    else queue.push({ type: "RAW", event: { type: "connected" }, source: "strandline" });
    isTold ||= messages.length > 0;
    leaf = found.leaf;
    seen = found.seq ?? 0;
    expected = active;
    run = quiet = writes = undefined;
    later = [];
    isStale = isOvertaken = false;
    const asked = found.interrupts;
    // Messages do not say what is waited for.
    if (asked !== null) queue.push(interrupted(asked.runId, asked.pending));
    else if (paused !== undefined) queue.push(finished(paused));
    isStale = asked !== null || paused !== undefined;
    paused = asked?.runId;
    muted.clear();
    suspects.clear();
    if (waiting !== undefined && waiting !== active && (wasAccepted || isPast(waiting))) conclude(waiting);
    if (until !== undefined && until !== active) {
      queue.push(finished(until));
      queue.end();
      rest();
    } else if (found.cursor === null) {
      onStatus("waiting", { reason: "absent" });
      const isSent = reply !== undefined && !wasAccepted;
      conversation.later(isSent ? 0 : absentMs(absences++));
    } else {
      absences = 0;
      feed.restart(found.cursor);
      feed.start();
    }
  }

  /** It began and ended before the conversation was loaded. */
  function isPast(runId: string): boolean {
    return waiting === runId && expected !== runId && reply !== undefined && known.has(reply) && !isContinued;
  }

  /** A run of this chat has ended, and its end is not going to come. */
  function conclude(runId: string): void {
    queue?.push(finished(runId));
    waiting = own = undefined;
    isStale = true;
  }

  // ------------------------------------------------------------------ the live thread

  /** False: the chat cannot be told this by going on. */
  function take(chunk: Chunk): boolean {
    const place = placeOf(chunk);
    if (isOfAnother(chunk, place !== undefined)) {
      later.push(chunk);
      return true;
    }
    if (chunk.type === "RUN_STARTED") {
      const runId = runOf(chunk);
      if (runId === run) return true;
      if (place !== undefined) {
        writes = place.message;
        // What goes on with the last message is one more reply to a chat that did not ask for it.
        const goesOn = place.message === leaf && (runId === own || !isStale);
        if (runId !== expected && place.parent !== leaf && !goesOn) return false;
        leaf = place.message ?? leaf;
        isOvertaken ||= runId !== own;
      }
      run = runId;
      give(chunk);
      return true;
    }
    if (chunk.type === "CUSTOM" && chunk.name === CHANGED)
      return (chunk.value as { seq: number }).seq <= seen;
    if (chunk.type === "RUN_FINISHED" || chunk.type === "RUN_ERROR") return end(chunk);
    if (place !== undefined) return takeMessage(chunk, place.parent, place.parts !== undefined);
    // Where nobody has decided, nothing goes on, and the chat is to ask no more.
    if (chunk.name === "decision-made" && /expired|superseded/.test((chunk.value as Made).outcome))
      return false;
    const isOf = quiet !== undefined && chunk.messageId === quiet;
    if (!isOf && !(run !== undefined && muted.has(run))) give(chunk);
    return true;
  }

  /** Whether a chunk is not of the run that is being told. */
  function isOfAnother(chunk: Chunk, isPlaced: boolean): boolean {
    if (run === undefined || writes === undefined) return false;
    const runId = runOf(chunk);
    if (runId !== undefined) return runId !== run;
    const id = (chunk.messageId ?? chunk.toolCallId) as string | undefined;
    return isPlaced || (id !== undefined && !id.startsWith(writes));
  }

  /** A whole message begins, of this chat or of another. */
  function takeMessage(chunk: Chunk, parent: string | null, isMore: boolean): boolean {
    const id = chunk.messageId as string;
    if (parent !== leaf) return false;
    const isKnown = known.has(id);
    if (isKnown ? isOvertaken : isMore || isStale) return false;
    isOvertaken ||= !isKnown;
    leaf = id;
    unsent.delete(id);
    known.add(id);
    quiet = isKnown ? id : undefined;
    if (!isKnown) give({ ...chunk, metadata: undefined });
    return true;
  }

  function end(chunk: Chunk): boolean {
    const runId = runOf(chunk);
    const isSuspect = runId !== undefined && suspects.delete(runId);
    const isMuted = runId !== undefined && muted.delete(runId);
    if (run === runId) run = undefined;
    if (own === runId) own = undefined;
    const { outcome } = chunk as { outcome?: { type: string } };
    paused = outcome?.type === "interrupt" ? runId : undefined;
    if (waiting !== undefined && waiting !== runId) {
      // To a chat that waits, the end of whatever run is the end of its own.
      give(finished(runId, true));
    } else {
      if (waiting === runId) waiting = undefined;
      isStale = true;
      give(isMuted && chunk.type === "RUN_ERROR" ? finished(runId) : chunk);
    }
    if (until === undefined || until !== runId) {
      const held = later;
      later = [];
      // What was queued behind it has not begun, and does not before this one has gone on.
      const isBlocked = paused !== undefined && held.length > 0;
      return !isSuspect && !isBlocked && held.every(take);
    }
    const taker = queue;
    rest();
    taker?.end();
    return true;
  }

  function give(chunk: Chunk): void {
    conversation.progress();
    isTold = true;
    queue?.push(chunk);
  }
}
