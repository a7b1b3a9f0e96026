/**
 * Chunks on their way to a chat that takes one at a time, and in browsers no more than a few hundred a second. Deltas
 * that wait next to each other become one, so what waits is never much more than what it says.
 */
import type { Chunk } from "./sse.js";

export interface ChunkQueue extends AsyncIterable<Chunk> {
  push(chunk: Chunk): void;
  /** What waits is said like this. */
  reword(said: (chunk: Chunk) => Chunk): void;
  /** Ends after everything that was pushed was taken, with an error if one is given. */
  end(error?: unknown): void;
}

/** What can be said in fewer pieces, and by which field the pieces know each other. */
const DELTAS: Record<string, string> = {
  TEXT_MESSAGE_CONTENT: "messageId",
  REASONING_MESSAGE_CONTENT: "messageId",
  TOOL_CALL_ARGS: "toolCallId",
};

export function createChunkQueue(): ChunkQueue {
  let waiting: Chunk[] = [];
  let ending: { error?: unknown } | undefined;
  let wake: (() => void) | undefined;

  return {
    push(chunk) {
      if (ending !== undefined) return;
      // It says everything that was said before; runs begin and end all the same.
      if (chunk.type === "MESSAGES_SNAPSHOT") waiting = waiting.filter(({ type }) => type.startsWith("RUN_"));
      const last = waiting.at(-1);
      if (last !== undefined && goesOn(last, chunk))
        waiting[waiting.length - 1] = { ...last, delta: `${last.delta}${chunk.delta}` };
      else waiting.push(chunk);
      wake?.();
    },
    reword(said) {
      waiting = waiting.map(said);
    },
    end(error) {
      ending ??= { error };
      wake?.();
    },
    async *[Symbol.asyncIterator]() {
      for (;;) {
        const chunk = waiting.shift();
        if (chunk !== undefined) yield chunk;
        else if (ending?.error !== undefined) throw ending.error;
        else if (ending !== undefined) return;
        else
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
      }
    },
  };
}

function goesOn(last: Chunk, chunk: Chunk): boolean {
  const key = DELTAS[chunk.type];
  return (
    key !== undefined &&
    last.type === chunk.type &&
    last[key] === chunk[key] &&
    last.metadata === undefined &&
    chunk.metadata === undefined
  );
}
