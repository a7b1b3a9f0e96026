/** The events of a session (PROTOCOL §8.9), put into words. */
import type { SessionEvent } from "strandline";

type Fields = Record<string, unknown>;

const text = (value: unknown): string => (typeof value === "string" ? value : "");

interface Chunk extends Fields {
  type: string;
}

const quoted = (value: string, length = 42) => {
  const flat = value.replace(/\s+/g, " ");
  return `“${flat.length > length ? `${flat.slice(0, length - 1)}…` : flat}”`;
};

const wordsOf = (parts: unknown) =>
  Array.isArray(parts) ? (parts as Fields[]).map((part) => text(part.text)).join("") : "";

function summaryOfChunks(chunks: Chunk[]): string {
  const said = chunks
    .filter((chunk) => chunk.type === "text-delta" || chunk.type === "reasoning-delta")
    .map((chunk) => text(chunk.delta))
    .join("");
  if (said) return quoted(said);
  const input = chunks.map((chunk) => text(chunk.inputTextDelta)).join("");
  if (input) return `input ${quoted(input)}`;
  return chunks.map((chunk) => chunk.type).join(", ");
}

/** One line about an event. */
export function summaryOf(event: SessionEvent): string {
  switch (event.type) {
    case "snapshot": {
      const messages = Array.isArray(event.messages) ? event.messages.length : 0;
      return `${messages} ${messages === 1 ? "message" : "messages"} as of this cursor`;
    }
    case "message-created":
      return `${text(event.role) || "user"} ${quoted(wordsOf(event.parts))}`;
    case "run-queued":
      return `agent ${text(event.agent) || "reply"}`;
    case "run-started":
      return "the agent is being called";
    case "appended":
      return summaryOfChunks(Array.isArray(event.chunks) ? (event.chunks as Chunk[]) : []);
    case "stop-requested":
      return `${text(event.reason)} by ${text(event.by) || "someone"}`;
    case "run-ended":
      return [...new Set([text(event.status), text(event.error) || text(event.reason)])]
        .filter(Boolean)
        .join(": ");
    case "steered":
      return `told ${quoted(wordsOf(event.parts))}`;
    case "decision-requested":
      return `${text(event.kind)} of ${text(event.tool)}`;
    case "decision-made":
      return [text(event.outcome), text(event.reason)].filter(Boolean).join(", ");
    case "annotated":
    case "annotation-removed":
      return `${text(event.kind)} ${JSON.stringify(event.summary)}`;
    default:
      return "";
  }
}
