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

/** Header: names one POST, or one resume, however often it is repeated (§7.4, §6.6). */
export const KEY_HEADER = "Idempotency-Key";

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

/** The server writes at least a comment this often (§4.2). */
export const HEARTBEAT_MS = 15_000;

/** How long a server remembers a stop for a request that has not arrived (§6.4). */
export const STOP_MEMORY_MS = 60_000;

/** Default prefix of the AI SDK wire (§6). */
export const AI_SDK_PREFIX = "/api/chat";

/** `GET`: resume (§6.2). */
export const streamUrl = (prefix: string, chatId: string, run: string | undefined): string =>
  chatUrl(prefix, chatId, "stream", run);

/** `POST`: stop (§6.4). */
export const stopUrl = (prefix: string, chatId: string): string => chatUrl(prefix, chatId, "stop");

// The path goes before the query and fragment of the prefix, as in ai@7 `http-chat-transport.ts`.
function chatUrl(prefix: string, chatId: string, verb: string, run?: string): string {
  const [, path = "", query = "", fragment = ""] = /^([^?#]*)(\?[^#]*)?(#.*)?$/.exec(prefix) ?? [];
  const named = run === undefined ? "" : `${query ? "&" : "?"}run=${encodeURIComponent(run)}`;
  return `${path}/${encodeURIComponent(chatId)}/${verb}${query}${named}${fragment}`;
}
