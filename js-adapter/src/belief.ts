/**
 * What a chat of TanStack AI believes about its thread, and what it is told so that it goes on believing what is so. No
 * time and no requests: chunks of the live thread come in, chunks for the chat go out.
 *
 * The chat (`@tanstack/ai-client@0.33.2 src/chat-client.ts`, `@tanstack/ai@0.58.0 .../stream/processor.ts`) keeps more
 * than messages: a reply that goes on, tool calls by id, whether an end was announced. Only `MESSAGES_SNAPSHOT` and its
 * own sends reset that.
 */
import {
  type Annotated,
  type ChatMessage,
  finished,
  type Hydrated,
  idOf,
  interrupted,
  isEnd,
  isOf,
  placeOf,
  runOf,
} from "./ag-ui.js";
import { ANNOTATED, CHANGED, DECIDED } from "./protocol.js";
import type { Chunk } from "./sse.js";

export interface BeliefOptions {
  /** The chat is told this. `isLive`: the live thread has said so. */
  tell(chunk: Chunk, isLive?: boolean): void;
  /** Whether the chat reads to the end of this run, and nothing else. */
  isLast(runId: string | undefined): boolean;
  /** That run has ended. */
  onLast(): void;
}

export interface Belief {
  /** A chunk of the live thread, in order, once. False: the chat cannot be told this by going on. */
  take(chunk: Chunk): boolean;
  /** The conversation is about to be loaded. The run of what was sent last, if the server has that. */
  begin(): string | undefined;
  /** The conversation as it was loaded. `before`: what `begin` said. Whether the server has taken something since. */
  load(found: Hydrated, before: string | undefined): boolean;
  /** The chat was given this. `isOlder`: it comes before what it shows. */
  shows(found: Hydrated, isOlder: boolean): void;
  /** How many messages that is. */
  shown(): number;
  /**
   * The chat sends a message, or (`goesOn`) decides what a reply waits for, and waits for the end of this run.
   * `messages` are those that it shows.
   */
  sending(runId: string, messages: readonly ChatMessage[], goesOn: boolean): void;
  /** The server has it. Whether the chat sent nothing since. */
  accepted(runId: string, messageId: string): boolean;
  /** Whether the chat waits for this run and nothing was heard of it. */
  misses(runId: string): boolean;
  /** An agent that is running was told the message: there will be no such run. */
  told(runId: string): void;
  /** It was not taken: there will be no such run. */
  refused(runId: string): void;
  /** The chat does not wait any more. What the run says from now on is not shown before it has ended. */
  abandon(runId: string): void;
  /** Newest run of this chat that has not ended, as far as is known. */
  ownRun(): string | undefined;
}

/** What a decision that was made says (§11.13). */
interface Made {
  outcome: string;
}

/** What `metadata.strandline` of a message says. */
interface About {
  annotations?: Record<string, unknown>;
}

export function createBelief({ tell, isLast, onLast }: BeliefOptions): Belief {
  /** Whether the chat was told anything, or shows anything of its own. */
  let isTold = false;
  let known = new Set<string>();
  /** What this chat has sent and the live thread has not said yet; with its run, until the server has it. */
  const unsent = new Map<string, { message: ChatMessage; runId: string | undefined }>();
  /** The conversation that was told last: the chat may not have taken it, and it takes it in place of what it shows. */
  let listed: ChatMessage[] = [];

  /** What `metadata.strandline` says of messages: the chat merges metadata by its first level only. */
  const about = new Map<string, About>();

  // Where the live thread is.
  let leaf: string | null = null;
  /** The newest event that the conversation had when it was loaded. */
  let seen = 0;
  let run: string | undefined;
  let expected: string | undefined;
  /** What comes after the message of `expected` is not told, and loaded when that run has ended. */
  let hasMore = false;
  /** Id of the message of somebody that is being told as a whole, where the chat does not show it yet. */
  let whole: unknown = null;
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
  /** The run of what was sent last, and the id of its reply, once the server has it. */
  let accepted: string | undefined;
  let reply: string | undefined;
  /** That reply was there before. */
  let isContinued = false;
  /** The run that the chat believes to wait for a decision. */
  let paused: string | undefined;
  const muted = new Set<string | undefined>();
  /** Runs that were disturbed: the chat may have missed a part. */
  const suspects = new Set<string | undefined>();

  return {
    take,
    begin() {
      // What the server has is listed, or is on another branch.
      for (const [id, { runId }] of unsent) if (runId === undefined) unsent.delete(id);
      return accepted;
    },
    load(found, before) {
      expected = found.activeRun?.runId;
      known = new Set(found.messages.map(({ id }) => id));
      // The chat keeps the metadata of a message that comes without.
      listed = found.messages.map((each) => (about.has(each.id) ? { metadata: {}, ...each } : each));
      about.clear();
      note(listed);
      for (const [id, { message }] of unsent) {
        if (known.has(id)) unsent.delete(id);
        else listed.push(message);
        known.add(id);
      }
      // It has ended meanwhile.
      if (run !== undefined && run !== expected && run !== waiting)
        tell(finished(run, waiting !== undefined));
      isTold ||= listed.length > 0;
      if (isTold) tell({ type: "MESSAGES_SNAPSHOT", messages: listed });
      // The chat counts as connected when something came.
      else tell({ type: "RAW", event: { type: "connected" }, source: "strandline" });
      leaf = found.leaf;
      seen = found.seq;
      hasMore = found.more;
      run = writes = undefined;
      whole = null;
      later = [];
      isOvertaken = false;
      const asked = found.interrupts;
      // Messages do not say what is waited for.
      if (asked !== null) tell(interrupted(asked));
      else if (paused !== undefined) tell(finished(paused));
      isStale = asked !== null || paused !== undefined;
      paused = asked?.runId;
      muted.clear();
      suspects.clear();
      if (waiting !== undefined && waiting !== expected && (waiting === before || isPast(waiting)))
        conclude(waiting);
      return accepted !== undefined && accepted !== before;
    },
    shows({ messages }, isOlder) {
      isTold ||= messages.length > 0;
      if (!isOlder) return;
      for (const { id } of messages) known.add(id);
      note(messages);
    },
    shown: () => known.size,
    sending(runId, messages, goesOn) {
      const last = messages.at(-1);
      const ids = new Set(messages.map(({ id }) => id));
      for (const id of unsent.keys()) if (!ids.has(id)) unsent.delete(id);
      if (last?.role === "user") {
        unsent.set(last.id, { message: last, runId });
        known.add(last.id);
        if (listed.every(({ id }) => id !== last.id)) listed.push(last);
      }
      if (run !== undefined) suspects.add(run);
      waiting = own = runId;
      accepted = reply = undefined;
      isContinued = goesOn;
      isStale = isOvertaken = false;
      isTold = true;
    },
    accepted(runId, messageId) {
      for (const each of unsent.values()) if (each.runId === runId) each.runId = undefined;
      if (own !== runId) return false;
      accepted = runId;
      reply = messageId;
      if (isPast(runId)) conclude(runId);
      return true;
    },
    misses: (runId) => waiting === runId && run !== runId && expected !== runId,
    told(runId) {
      for (const [id, each] of unsent) if (each.runId === runId) unsent.delete(id);
      if (waiting === runId) conclude(runId);
      refused(runId);
    },
    refused,
    abandon(runId) {
      if (waiting === runId) waiting = undefined;
      if (own !== runId) return;
      muted.add(runId);
      suspects.add(runId);
    },
    ownRun: () => own,
  };

  function note(messages: readonly ChatMessage[]): void {
    for (const { id, metadata } of messages) {
      const said = (metadata as { strandline?: About } | undefined)?.strandline;
      if (said !== undefined) about.set(id, said);
    }
  }

  /** `onCustomEvent` has it as it came, and the message as history would. */
  function annotate(chunk: Chunk): void {
    const { message, type, summary, seq } = chunk.value as Annotated;
    if (seq <= seen) return;
    const said = about.get(message);
    const { [type]: _, ...annotations } = said?.annotations ?? {};
    if (summary.count > 0) annotations[type] = summary;
    about.set(message, { ...said, annotations });
    give(chunk);
    describe(message);
  }

  function describe(messageId: string | undefined): void {
    const strandline = about.get(messageId as string);
    if (strandline) give({ type: "TEXT_MESSAGE_END", messageId, metadata: { strandline } });
  }

  function refused(runId: string): void {
    if (waiting === runId) waiting = undefined;
    if (own === runId) own = undefined;
  }

  /** It began and ended before the conversation was loaded. */
  function isPast(runId: string): boolean {
    return waiting === runId && expected !== runId && reply !== undefined && known.has(reply) && !isContinued;
  }

  /** A run of this chat has ended, and its end is not going to come. */
  function conclude(runId: string): void {
    tell(finished(runId));
    waiting = own = undefined;
    isStale = true;
  }

  function take(chunk: Chunk): boolean {
    if (chunk.name === ANNOTATED) {
      annotate(chunk);
      return true;
    }
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
    if (isEnd(chunk)) return end(chunk);
    if (place !== undefined) return takeMessage(chunk, place.parent, place.parts !== undefined);
    // Where nobody has decided, nothing goes on, and the chat is to ask no more.
    if (chunk.name === DECIDED && /expired|superseded/.test((chunk.value as Made).outcome)) return false;
    // What else is of no run that began here is in the conversation by now, or on a branch that was not shown (§16.3).
    const isOfNoRun = chunk.messageId === whole || chunk.name === DECIDED;
    if (run === undefined ? isOfNoRun : !muted.has(run)) give(chunk);
    return true;
  }

  /** Whether a chunk is not of the run that is being told. */
  function isOfAnother(chunk: Chunk, isPlaced: boolean): boolean {
    if (run === undefined || writes === undefined) return false;
    const runId = runOf(chunk);
    if (runId !== undefined) return runId !== run;
    return isPlaced || (idOf(chunk) !== undefined && !isOf(chunk, writes));
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
    whole = isKnown ? null : id;
    if (!isKnown) give({ ...chunk, metadata: undefined });
    return true;
  }

  function end(chunk: Chunk): boolean {
    const runId = runOf(chunk);
    if (run === undefined && runId && runId !== own && !isLast(runId)) return true;
    const isSuspect = suspects.delete(runId);
    const isMuted = muted.delete(runId);
    if (run === runId) run = undefined;
    if (own === runId) own = undefined;
    // What was said of it before the chat showed it.
    describe(writes);
    const { outcome } = chunk as { outcome?: { type: string } };
    paused = outcome?.type === "interrupt" ? runId : undefined;
    if (waiting !== undefined && waiting !== runId) {
      // To a chat that waits, the end of whatever run is the end of its own.
      give(finished(runId, true));
    } else {
      waiting = undefined;
      isStale = true;
      give(isMuted && chunk.type === "RUN_ERROR" ? finished(runId) : chunk);
    }
    if (isLast(runId)) {
      onLast();
      return true;
    }
    const held = later;
    later = [];
    // What was queued behind it has not begun, and does not before this one has gone on.
    const isBlocked = paused !== undefined && held.length > 0;
    const isMissing = hasMore && runId === expected;
    return !isSuspect && !isBlocked && !isMissing && held.every(take);
  }

  function give(chunk: Chunk): void {
    isTold = true;
    tell(chunk, true);
  }
}
