/**
 * Every name that this package and a Strandline server must agree on. PROTOCOL.md outranks this file; the Python side
 * keeps its own copy, and a test compares the two.
 */

/** Version of this package, sent to the server with every request. */
export const VERSION = "0.1.0";

/** Header: who is asking, `shim/<version>; ai=<major>` (§5.2). Being called `shim` is what makes a server answer a
 * cursor that cannot be continued with `resync`, and lets it end a response early, because this client resumes. */
export const CLIENT_HEADER = "Strandline-Client";

/** Header: the cursor to go on after (§3.2). */
export const CURSOR_HEADER = "Last-Event-ID";

/** Header: with {@link RESPOND_ASYNC} a POST is answered before there is a reply (§11.12). */
export const PREFER_HEADER = "Prefer";

/** Header: names one POST, or one resume, however often it is repeated (§7.4, §6.6). */
export const KEY_HEADER = "Idempotency-Key";

/** Header: the name of this reader, made up once per page (§8.11). */
export const READER_HEADER = "Strandline-Reader";

/** Header: an id that the client gives its device (§5.4). */
export const DEVICE_HEADER = "Strandline-Device";

/** Header: what becomes of a message that comes while a reply is being written (§14.1). */
export const SUBMIT_HEADER = "Strandline-Submit";

/**
 * Values of {@link SUBMIT_HEADER}. `interrupt`: the reply ends and this is answered. `queue`: this is answered when its
 * turn comes. `reject`: it is refused (409 `busy`). `steer`: the agent that is running is told. `concurrent`: it is
 * answered beside the other.
 */
export type SubmitPolicy = "interrupt" | "queue" | "reject" | "steer" | "concurrent";

/** Chunk by which an agent acknowledges what it was told (§14.3). */
export const STEERING = "steering-message";

/** Response header: id of the run that is streamed (§5.1). */
export const RUN_HEADER = "Strandline-Run";

/** Response header: id of the assistant message that is streamed (§5.1). */
export const MESSAGE_HEADER = "Strandline-Message";

/** Response header: `full` (from `start`) or `tail` (strictly after the cursor) (§5.1). */
export const REPLAY_HEADER = "Strandline-Replay";

/** Value of {@link REPLAY_HEADER} that a request with a cursor must never meet: its chunks would be applied twice. */
export const REPLAY_FULL = "full";

export const EVENT_STREAM = "text/event-stream";

/** The `data:` after a terminal frame (§4.4). */
export const DONE = "[DONE]";

/** Code of the unlogged `error` frame that says: this stream cannot go on, read the message anew (§4.6). */
export const RESYNC = "resync";

/** Name of the event on a live thread after which the conversation is loaded again (§16.6). */
export const CHANGED = "strandline.changed";

/** Name of the event on a live thread that says what annotations of a kind a message has (§19.5). */
export const ANNOTATED = "strandline.annotated";

/** Name of the event on a live thread that says how something was decided (§11.13). */
export const DECIDED = "decision-made";

/** Value of {@link PREFER_HEADER}. */
export const RESPOND_ASYNC = "respond-async";

/** The server writes at least a comment this often (§4.2). */
export const HEARTBEAT_MS = 15_000;

/** How long a server remembers a stop for a request that has not arrived (§6.4). */
export const STOP_MEMORY_MS = 60_000;

/** Default prefix of the AI SDK wire (§6). */
export const AI_SDK_PREFIX = "/api/chat";

/** Default prefix of the TanStack AI wire (§11). */
export const TANSTACK_PREFIX = "/api/tanstack";

/** Default prefix of the session wire (§8). */
export const SESSIONS_PREFIX = "/api/sessions";

/** `GET`: resume (§6.2). */
export const streamUrl = (prefix: string, chatId: string, run: string | undefined): string =>
  urlOf(prefix, `/${encodeURIComponent(chatId)}/stream`, { run });

/** `POST`: stop (§6.4, §8.7). */
export const stopUrl = (prefix: string, chatId: string): string =>
  urlOf(prefix, `/${encodeURIComponent(chatId)}/stop`);

/** The path goes before the query and fragment of the prefix, as in ai@7 `http-chat-transport.ts`. */
export function urlOf(prefix: string, path: string, query: Record<string, unknown> = {}): string {
  const [, base = "", more = "", fragment = ""] = /^([^?#]*)(\?[^#]*)?(#.*)?$/.exec(prefix) ?? [];
  const named = Object.entries(query)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `&${name}=${encodeURIComponent(String(value))}`);
  return base + path + `${more}${named.join("")}`.replace(/^&/, "?") + fragment;
}
