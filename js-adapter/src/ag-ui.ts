/** What the TanStack AI and AG-UI wire says, as far as this package looks at it: PROTOCOL §11. */
import type { Branches } from "./branch.js";
import type { Authors } from "./content.js";
import type { Chunk } from "./sse.js";

/** A `UIMessage` of TanStack AI. */
export interface ChatMessage {
  id: string;
  role: string;
  parts?: readonly Chunk[];
  [field: string]: unknown;
}

/** What a suspended run waits for (§11.13). */
export interface Asked {
  runId: string;
  pending: unknown[];
}

/** A conversation as it is loaded: the answer to a hydrate request (§11.8, §11.11). */
export interface Hydrated {
  messages: ChatMessage[];
  /** What is being written, and is not in `messages`. */
  activeRun: { runId: string } | null;
  interrupts: Asked | null;
  /** `cursor`: the `before` that loads what comes before these messages. */
  page: { truncated: boolean; cursor?: string };
  /** Where those messages that have siblings stand among them (§16.1). */
  branches: Branches;
  /** Who has said each message (§16.7). */
  authors: Authors;
  /** Where the live thread goes on. Null when there is no such thread yet. */
  cursor: string | null;
  /** The last message of the active path that is listed. */
  leaf: string | null;
  /** Something comes after what is being written that the live thread does not say from there on (§11.11). */
  more: boolean;
  /** Number of the newest event that is in it (§16.6). */
  seq: number;
}

/** What there is of one kind of annotations on a message (§19.5). */
export interface Annotated {
  message: string;
  type: string;
  summary: { count: number };
  /** Number of the event. */
  seq: number;
}

/** Where a message or a run belongs (§11.10). */
export interface Place {
  /** Id of the message that it follows or answers. */
  parent: string | null;
  /** Of a run: id of the message that it writes. */
  message?: string;
  /** Of a message: all of its parts, when one text is not all. */
  parts?: unknown;
}

export function placeOf({ metadata }: Chunk): Place | undefined {
  const place = (metadata as { strandline?: Partial<Place> } | undefined)?.strandline;
  return place?.parent === undefined ? undefined : (place as Place);
}

export function runOf(chunk: Chunk): string | undefined {
  const more = (chunk.metadata as { tanstack?: { runId?: string } } | undefined)?.tanstack;
  return (chunk.runId as string | undefined) ?? more?.runId;
}

/** Of the message, or of the call. */
export const idOf = ({ messageId, toolCallId }: Chunk) => (messageId ?? toolCallId) as string | undefined;

/** Whether a chunk is about this message: `id`, `id~2` and so on are its texts, `id:` begins its calls and its reasoning. */
export function isOf(chunk: Chunk, message: string): boolean {
  const id = idOf(chunk);
  return id?.startsWith(message) === true && /^($|~|:)/.test(id.slice(message.length));
}

/** The end of a run that is no error. `turn`: to the chat it is the end of a turn, and what it waits for comes later. */
export const finished = (runId: string | undefined, turn = false): Chunk => ({
  type: "RUN_FINISHED",
  runId,
  outcome: { type: "success" },
  metadata: { tanstack: { finishReason: turn ? "tool_calls" : "stop" } },
});

export const isEnd = ({ type }: Chunk): boolean => type === "RUN_FINISHED" || type === "RUN_ERROR";

/** The end of a run that waits for something. */
export const interrupted = ({ runId, pending }: Asked): Chunk => ({
  type: "RUN_FINISHED",
  runId,
  outcome: { type: "interrupt", interrupts: pending },
});

/**
 * A user message as `RunAgentInput` has it (`@tanstack/ai@0.58.0 src/utilities/ag-ui-wire.ts`). Another one is sent as
 * what it is, without its parts: the server refuses it.
 */
export function wireMessage({ parts, ...message }: ChatMessage): object {
  if (message.role !== "user" || parts === undefined) return { content: "", ...message };
  const content = parts.map(({ type, content, source }) =>
    type === "text" ? { type, text: content } : { type, source },
  );
  const [first] = content;
  const { id, role, metadata } = message;
  return {
    id,
    role,
    metadata,
    content: content.length === 1 && first && "text" in first ? first.text : content,
  };
}
