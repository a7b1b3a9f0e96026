/** One run's reply as this page has it: what it says so far, and the chunks that said it. */
import { createFold, type SessionMessage } from "./fold.js";
import type { Chunk } from "./sse.js";

export interface Reply {
  readonly message: SessionMessage;
  /** They fold to the message. Adjacent deltas of a part are one, so it is not much longer than that. */
  readonly chunks: readonly Chunk[];
  /** It goes on with a message that another run began. */
  readonly goesOn: boolean;
  push(chunks: readonly Chunk[]): void;
  /** Starts over: what was said does not count. */
  reset(): void;
}

/** `base`: the message that it goes on with; `null` where that is not known. `isShown`: else only the chunks are kept. */
export function createReply(messageId: string, base?: SessionMessage | null, isShown = true): Reply {
  let fold = createFold(messageId, base ?? undefined);
  let goesOn = base !== undefined;
  let said: Chunk[] = [];
  return {
    get message() {
      return fold.message;
    },
    get chunks() {
      return said;
    },
    get goesOn() {
      return goesOn;
    },
    push(chunks) {
      for (const chunk of chunks) {
        if (isShown) fold.push(chunk);
        if (!chunk.transient) keep(said, chunk);
      }
    },
    reset() {
      // What it went on with comes again, with what follows (§17.1).
      fold = createFold(messageId);
      said = [];
      goesOn = false;
    },
  };
}

const DELTAS: Record<string, string> = {
  "text-delta": "delta",
  "reasoning-delta": "delta",
  "tool-input-delta": "inputTextDelta",
};

function keep(said: Chunk[], chunk: Chunk): void {
  const last = said.at(-1);
  const text = DELTAS[chunk.type];
  const isMore =
    text !== undefined &&
    last?.type === chunk.type &&
    last.id === chunk.id &&
    last.toolCallId === chunk.toolCallId &&
    chunk.providerMetadata === undefined;
  if (isMore) said[said.length - 1] = { ...last, [text]: `${last[text]}${chunk[text]}` };
  else said.push(chunk);
}
