/** The promise, checked: what this tab put together from the stream against what the server stored. */
import type { UIMessage } from "ai";

/** Characters, over all replies that were compared. */
export interface Tally {
  replies: number;
  lost: number;
  duplicated: number;
}

export const NOTHING_CHECKED: Tally = { replies: 0, lost: 0, duplicated: 0 };

/** Everything that a message says, thoughts included. */
export function textOf(message: UIMessage): string {
  return message.parts
    .flatMap((part) => (part.type === "text" || part.type === "reasoning" ? [part.text] : []))
    .join("\n");
}

/** What lies between the common beginning and the common end is missing on one side and too much on the other. */
export function difference(sum: Tally, streamed: string, stored: string): Tally {
  const shorter = Math.min(streamed.length, stored.length);
  let head = 0;
  while (head < shorter && streamed[head] === stored[head]) head++;
  let tail = 0;
  while (tail < shorter - head && streamed.at(-1 - tail) === stored.at(-1 - tail)) tail++;
  return {
    replies: sum.replies + 1,
    lost: sum.lost + stored.length - head - tail,
    duplicated: sum.duplicated + streamed.length - head - tail,
  };
}
