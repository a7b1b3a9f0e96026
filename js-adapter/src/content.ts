/** What a session is to whoever looks at it: the shapes that the feed fills (PROTOCOL §8.8). */
import type { Branches } from "./branch.js";
import type { MessagePart, SessionMessage } from "./fold.js";
import type { SubmitPolicy } from "./protocol.js";
import type { Chunk } from "./sse.js";

/** What lists show of a session (§8.1). Times are ms since 1970. */
export interface SessionInfo {
  readonly id: string;
  readonly title: string | null;
  readonly archived: boolean;
  readonly createdAt: number;
  readonly updatedAt: number;
  /** Id of the first run of the conversation that has not ended: the reply that is being written. */
  readonly activeRun: string | null;
  /** What becomes of messages that come meanwhile, where they do not say. Null: what the server does by default. */
  readonly submit: SubmitPolicy | null;
  /** How many decisions it waits for. */
  readonly pending: number;
}

/** Who has said a message (§16.7): `user:<id>`, `agent:<name>` or `server`. */
export interface Author {
  readonly by: string;
  /** Who has replaced what it says last. It still counts as said by `by`. */
  readonly editedBy?: string;
}

/** By message id. */
export type Authors = Readonly<Record<string, Author>>;

/** What a running agent was told and has not taken. When the run ends it becomes a message with this id. */
export interface SessionNote {
  readonly id: string;
  readonly run: string;
  /** `user:<id>` */
  readonly by: string;
  readonly at: number;
  readonly parts: readonly MessagePart[];
  readonly metadata?: unknown;
}

export interface SessionRun {
  readonly id: string;
  /** Of the reply that it writes. */
  readonly messageId: string;
  readonly status: "queued" | "running" | "completed" | "suspended" | "stopped" | "failed" | "lost";
  /** Why it ended (§9.2). */
  readonly reason: string | null;
  readonly error: string | null;
  readonly agent: string;
  /** Another agent's, beside the conversation (§17.6). */
  readonly spawned: boolean;
  /** The run that has spawned it, or the suspended one that it goes on from (§15.6). */
  readonly parentRun: string | null;
  readonly createdAt: number;
  readonly endedAt: number | null;
}

/** What another agent says beside a reply (§17.6). */
export interface SpawnedMessage {
  readonly message: SessionMessage;
  readonly run: string;
  readonly agent: string;
  /** Id of the message beside which it is written. */
  readonly parent: string | null;
}

/** What a suspended run waits for (§15.2). */
export interface SessionDecision {
  readonly id: string;
  /** `approval`: of a tool call. `tool`: its output, from a tool that a client runs. */
  readonly kind: "approval" | "tool";
  readonly run: string;
  readonly messageId: string;
  readonly toolCallId: string;
  readonly tool: string;
  readonly input: unknown;
  /** Who decides needs one of them. Null: whoever the server's policy lets. */
  readonly roles: readonly string[] | null;
  readonly createdAt: number;
  readonly expiresAt: number | null;
  /** Null while it is pending. */
  readonly outcome: "approved" | "denied" | "output" | "error" | "expired" | "superseded" | null;
  readonly value: unknown;
  readonly by: string | null;
  readonly at: number | null;
}

/** One connection to the session (§8.11). */
export interface SessionReader {
  readonly id: string;
  readonly user: string;
  readonly device: string | null;
  readonly client: string | null;
  readonly wire: "session" | "ai-sdk" | "ag-ui";
  readonly run: string | null;
  readonly connected: boolean;
  readonly since: number;
  readonly leftAt: number | null;
  readonly sent: string | null;
  readonly acknowledged: string | null;
}

/** What there is of one type of annotation on a message (§19.3). */
export interface AnnotationSummary {
  readonly count: number;
  /** How many of each name (of citations: of each host), the most frequent first. */
  readonly names?: Readonly<Record<string, number>>;
  /** How many have none of these names, where there are too many to list. */
  readonly others?: number;
}

export type Annotations = Readonly<Record<string, Readonly<Record<string, AnnotationSummary>>>>;

/** A frame of the feed, as it came. */
export interface SessionEvent {
  readonly type: string;
  readonly seq?: number;
  readonly [field: string]: unknown;
}

/** What the feed says of a session. Objects that did not change stay the same from one to the next. */
export interface Content {
  /** Null until something has come. */
  readonly info: SessionInfo | null;
  /** The active path, what is being written included. */
  readonly messages: readonly SessionMessage[];
  /** The newest, oldest first. */
  readonly runs: readonly SessionRun[];
  /** Those that have not ended, as the conversation has them, without spawned ones: what is written in `messages`. */
  readonly activeRuns: readonly SessionRun[];
  /** What other agents say beside the replies, oldest first, at most the newest 50. */
  readonly spawned: readonly SpawnedMessage[];
  /** Oldest first. */
  readonly notes: readonly SessionNote[];
  readonly readers: readonly SessionReader[];
  /** Where those messages that have siblings stand among them: versions of the same question, answers to the same one. */
  readonly branches: Branches;
  /** Of every message here, those of `spawned` too. One that was sent from here has none before it has arrived. */
  readonly authors: Authors;
  /** Those that are pending, oldest first. */
  readonly decisions: readonly SessionDecision[];
  /** Of messages that have annotations: by message id, then by type (§19.3). */
  readonly annotations: Annotations;
  /** There are messages before the first one: `loadOlder`. */
  readonly hasOlder: boolean;
}

/** The chunks of a run, from its first one. Those of a run that goes on with a message begin with what was decided. */
export interface RunReply {
  readonly messageId: string;
  readonly chunks: readonly Chunk[];
  /** The message was begun by another run. */
  readonly goesOn: boolean;
  /** The event that ended it, if that has come. */
  readonly end: SessionEvent | undefined;
}

/** The active runs whose message is shown, the current one first: others may be writing on another branch. */
export const runsShown = ({ activeRuns, messages }: Content): SessionRun[] =>
  activeRuns.filter(({ messageId }) => messages.some(({ id }) => id === messageId));

const ACTIVE = new Set(["queued", "running"]);

/** The runs that have not ended, without spawned ones, in the order of the conversation. */
export function activeOf(runs: readonly SessionRun[]): SessionRun[] {
  /** A run that goes on with a message stands where the one that began it does, before what was queued meanwhile. */
  const begun = (run: string): number => {
    const index = runs.findIndex(({ id }) => id === run);
    const { parentRun, spawned } = runs[index] ?? {};
    return parentRun && !spawned ? begun(parentRun) : index;
  };
  return runs
    .filter(({ status, spawned }) => ACTIVE.has(status) && !spawned)
    .sort((one, other) => begun(one.id) - begun(other.id));
}

/** Message id to version, where they differ. */
type Versions = Readonly<Record<string, string>>;

/** What is read of a page of messages (§8.6): the feed says the rest of it. */
export interface Older {
  messages: readonly SessionMessage[];
  versions: Versions;
  branches: Branches;
  authors: Authors;
  annotations: Annotations;
  page: { before: string | null };
}

/** An active run in a snapshot. */
export interface Active {
  run: string;
  messageId: string;
  chunks: Chunk[];
  continues?: true;
  /** As `steered` says them. */
  notes: SessionEvent[];
}

/** What is read of a snapshot (§8.8): who this reader is, and where it was taken, is known otherwise. */
export interface Snapshot extends Older {
  session: SessionInfo;
  active: Active[];
  runs: SessionRun[];
  readers: SessionReader[];
  decisions: SessionDecision[];
  spawned: SpawnedMessage[];
}

export const noteOf = (run: string, { message_id: id, by, at, parts, metadata }: SessionEvent): SessionNote =>
  ({ id, run, by, at, parts, ...(metadata !== undefined && { metadata }) }) as SessionNote;

export function decisionOf(event: SessionEvent): SessionDecision {
  const { decision: id, message_id: messageId, tool_call: toolCallId, expires_at: expiresAt = null } = event;
  const { kind, run, tool, input = null, roles = null, at: createdAt } = event;
  const asked = { id, kind, run, messageId, toolCallId, tool, input, roles, createdAt, expiresAt };
  return { ...asked, outcome: null, value: null, by: null, at: null } as SessionDecision;
}

export const messageOf = (id: unknown, role: unknown, { parts, metadata }: SessionEvent): SessionMessage =>
  ({ id, role, parts, ...(metadata !== undefined && { metadata }) }) as SessionMessage;

/** A longer first message is cut to make a title (§8.2). */
const LONGEST_TITLE = 80;

/** The title that a session without one gets from a message of a user (§8.2). */
export function titleOf({ parts }: SessionMessage): string | null {
  const texts = parts.map(({ type, text }) => (type === "text" ? text : ""));
  const line = [...texts.join(" ").replace(/\s+/g, " ").trim()];
  if (line.length > LONGEST_TITLE) line.splice(LONGEST_TITLE - 1, line.length, "…");
  return line.join("") || null;
}
