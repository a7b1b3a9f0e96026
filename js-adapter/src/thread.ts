/**
 * A thread of TanStack AI as it happens: PROTOCOL §11.10. The conversation is loaded, the chat is told it, and the live
 * thread is followed from there. What the chat could not be told by going on is told by beginning again.
 */
import { finished, type Hydrated, isEnd, runOf } from "./ag-ui.js";
import { absentMs, type Clock, type RetryOptions } from "./backoff.js";
import { type Belief, createBelief } from "./belief.js";
import type { ChunkQueue } from "./chunk-queue.js";
import { createConversation } from "./conversation.js";
import { StrandlineHttpError } from "./errors.js";
import { createFeed } from "./feed.js";
import { RESYNC } from "./protocol.js";
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

export interface Thread extends Pick<Belief, "sending" | "told" | "refused" | "abandon" | "ownRun"> {
  /** Whether everything is told to a chat that subscribed. */
  readonly isFollowed: boolean;
  /** Loads the conversation for the chat. Who follows goes on from there. */
  hydrate(limit: number | undefined): Promise<Hydrated>;
  /** The chat was given older messages. */
  prepend(found: Hydrated): void;
  /** Tell everything to this queue, and nothing to the one before; with `until`, up to the end of that run. */
  tell(queue: ChunkQueue, until?: string): void;
  leave(queue: ChunkQueue): void;
  /** The server has what the chat has sent. */
  accepted(runId: string, messageId: string): void;
  /** Ends a wait. */
  poke(): void;
  drop(): boolean;
  close(): void;
}

/** A run that the server has and that does not begin for so long may be over: then the conversation is loaded again. */
const OVERDUE_MS = 2_000;

export function createThread(options: ThreadOptions): Thread {
  const { clock, onStatus } = options;
  let queue: ChunkQueue | undefined;
  let until: string | undefined;
  /** The conversation that was loaded while nobody listened. */
  let got: [found: Hydrated, before: string | undefined] | undefined;
  let absences = 0;
  let lookout: unknown;
  /** What has come without a cursor: it belongs to the next frame that has one. */
  let held: Chunk[] = [];

  const belief = createBelief({
    tell(chunk, isLive) {
      if (isLive) conversation.progress();
      queue?.push(chunk);
    },
    isLast: (runId) => until !== undefined && until === runId,
    onLast: finish,
  });

  const conversation = createConversation({
    ...options,
    shown: belief.shown,
    isPatient: () => queue !== undefined,
    onBegin() {
      feed.stop();
      return belief.begin();
    },
    onFound: settle,
    onRefused: finish,
  });

  const feed = createFeed({
    ...options,
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
      for (const each of [...held.splice(0), chunk]) if (!belief.take(each)) return reload();
    },
    onRefused(error) {
      const isElsewhere =
        error instanceof StrandlineHttpError && (error.status === 409 || error.status === 404);
      if (isElsewhere) reload();
      else finish(error);
    },
  });

  return {
    ...belief,
    get isFollowed() {
      return queue !== undefined && until === undefined;
    },
    async hydrate(limit) {
      const found = await conversation.hydrate(limit);
      belief.shows(found, false);
      return found;
    },
    prepend(found) {
      belief.shows(found, true);
      conversation.prepend(found);
    },
    tell(taker, upTo) {
      queue?.end();
      feed.stop();
      queue = taker;
      until = upTo;
      if (until !== undefined && got?.[0].activeRun?.runId === until) settle(...got);
      else if (!conversation.isLoading) conversation.later(0);
      got = undefined;
    },
    leave(taker) {
      taker.end();
      if (queue === taker) rest();
    },
    sending(runId, messages, goesOn) {
      belief.sending(runId, messages, goesOn);
      // To a chat that waits, the end of whatever run is the end of its own: also one that it has yet to take.
      if (until === undefined) queue?.reword((each) => (isEnd(each) ? finished(runOf(each), true) : each));
      got = undefined;
    },
    accepted(runId, messageId) {
      if (!belief.accepted(runId, messageId)) return;
      clock.clearTimeout(lookout);
      lookout = clock.setTimeout(() => {
        if (belief.misses(runId)) reload();
      }, OVERDUE_MS);
      poke();
    },
    poke,
    drop: feed.drop,
    close: finish,
  };

  function poke(): void {
    if (absences > 0) conversation.later(0);
    feed.poke();
  }

  function rest(): void {
    queue = until = undefined;
    clock.clearTimeout(lookout);
    conversation.stop();
    feed.stop();
  }

  function finish(error?: unknown): void {
    const taker = queue;
    rest();
    taker?.end(error);
  }

  function reload(): void {
    feed.stop();
    conversation.again();
  }

  function settle(found: Hydrated, before: string | undefined): void {
    if (queue === undefined) {
      got = [found, before];
      return;
    }
    const isSent = belief.load(found, before);
    if (until !== undefined && until !== found.activeRun?.runId) {
      queue.push(finished(until));
      finish();
    } else if (found.cursor === null) {
      onStatus("waiting", { reason: "absent" });
      conversation.later(isSent ? 0 : absentMs(absences++));
    } else {
      absences = 0;
      feed.restart(found.cursor);
      feed.start();
    }
  }
}
