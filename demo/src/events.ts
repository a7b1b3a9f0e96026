/** The frames of the session feed (PROTOCOL §8.3) and how to put them into words. */
import type { UIMessage } from "ai";
import type { RunStatus } from "./api";

export interface FeedReader {
  id: string;
  user?: string | null;
  device?: string | null;
  wire?: string | null;
  run?: string | null;
  cursor?: string | null;
  since?: number | string;
}

type Fields = Record<string, unknown>;

export interface FeedEvent extends Fields {
  type: string;
  seq?: number;
  run?: string;
}

export interface FeedSnapshot extends Fields {
  type: "snapshot";
  messages: UIMessage[];
  runs: unknown;
  readers: FeedReader[];
  cursor: string;
}

export interface RunInfo {
  id: string;
  messageId: string;
  status: RunStatus;
  reason?: string | null;
  error?: string | null;
}

const ACTIVE: ReadonlySet<string> = new Set<RunStatus>(["queued", "running"]);

export const isActive = (run: { status: RunStatus }) => ACTIVE.has(run.status);

const text = (value: unknown): string => (typeof value === "string" ? value : "");

/** A field in either spelling. */
const field = (event: Fields, camel: string, snake: string): string =>
  text(event[camel]) || text(event[snake]);

export const messageIdOf = (event: FeedEvent): string => field(event, "messageId", "message_id");

/** The runs of a snapshot: a list of runs, or a map from message id to run. */
export function runsOf(snapshot: FeedSnapshot): RunInfo[] {
  const { runs } = snapshot;
  if (typeof runs !== "object" || runs === null) return [];
  const entries: [string, unknown][] = Array.isArray(runs)
    ? runs.map((run) => ["", run])
    : Object.entries(runs);
  return entries.flatMap(([key, value]) => {
    if (typeof value !== "object" || value === null) return [];
    const run = value as Fields;
    const id = text(run.id) || text(run.run);
    const status = text(run.status) as RunStatus;
    const messageId = field(run, "messageId", "message_id") || key;
    return id
      ? [{ id, messageId, status, reason: text(run.reason) || null, error: text(run.error) || null }]
      : [];
  });
}

/** What an event does to the list of runs. */
export function applyToRuns(runs: RunInfo[], event: FeedEvent): RunInfo[] {
  if (event.run === undefined) return runs;
  const known = runs.find((run) => run.id === event.run);
  const next: RunInfo = known ?? { id: event.run, messageId: messageIdOf(event), status: "queued" };
  const change: Partial<RunInfo> =
    event.type === "run-started"
      ? { status: "running" }
      : event.type === "run-ended"
        ? {
            status: text(event.status) as RunStatus,
            reason: text(event.reason),
            error: text(event.error),
          }
        : {};
  if (event.type !== "run-queued" && Object.keys(change).length === 0) return runs;
  const changed = { ...next, ...change };
  return known ? runs.map((run) => (run.id === event.run ? changed : run)) : [...runs, changed];
}

interface Chunk extends Fields {
  type: string;
}

const quoted = (value: string, length = 42) => {
  const flat = value.replace(/\s+/g, " ");
  return `“${flat.length > length ? `${flat.slice(0, length - 1)}…` : flat}”`;
};

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
export function summaryOf(event: FeedEvent): string {
  switch (event.type) {
    case "snapshot": {
      const messages = Array.isArray(event.messages) ? event.messages.length : 0;
      return `${messages} ${messages === 1 ? "message" : "messages"} as of this cursor`;
    }
    case "message-created": {
      const parts = Array.isArray(event.parts) ? (event.parts as Fields[]) : [];
      return `${text(event.role) || "user"} ${quoted(parts.map((part) => text(part.text)).join(""))}`;
    }
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
    default:
      return "";
  }
}
