/**
 * What a chat can end with.
 *
 * ```
 * StrandlineError
 *  ├─ StrandlineResyncError    resync    the stream cannot be continued; reading it anew gives the whole message
 *  ├─ StrandlineGaveUpError    gave-up   no progress for `giveUpAfterMs`; the run may well be going on
 *  ├─ StrandlineGoneError      gone      the server does not know the run any more
 *  ├─ StrandlineHttpError      http      the server refused; `status` and `problem` say why
 *  └─ StrandlineProtocolError  protocol  the answer is not what PROTOCOL.md allows
 * ```
 *
 * None of them is a TypeError, and no message speaks of "fetch" or "network": an AI SDK chat keeps its parser state
 * after such errors, and the full replay that follows would then double every part (ai@5-7, `chat.ts`).
 */

export type StrandlineErrorCode = "resync" | "gave-up" | "gone" | "http" | "protocol";

export class StrandlineError extends Error {
  readonly code: StrandlineErrorCode;

  constructor(code: StrandlineErrorCode, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "StrandlineError";
    this.code = code;
  }
}

/** The stream cannot be continued after its cursor. `chat.resumeStream()` reads the whole message anew. */
export class StrandlineResyncError extends StrandlineError {
  constructor(message = "This reply cannot be continued where it was cut; resume to read it anew.") {
    super("resync", message);
    this.name = "StrandlineResyncError";
  }
}

/** The server could not be reached for `giveUpAfterMs`. `cause` is the last failure. The run was not stopped. */
export class StrandlineGaveUpError extends StrandlineError {
  constructor(cause?: unknown) {
    super("gave-up", "The connection could not be restored in time. The reply goes on at the server.", cause);
    this.name = "StrandlineGaveUpError";
  }
}

/** The server does not know the run that was being read: its log was deleted or replaced. */
export class StrandlineGoneError extends StrandlineError {
  constructor() {
    super("gone", "The server does not know this run any more.");
    this.name = "StrandlineGoneError";
  }
}

/** The server refused. Asking again will not help before something else changes. */
export class StrandlineHttpError extends StrandlineError {
  /** HTTP status, e.g. 409. */
  readonly status: number;
  /** `code` of the problem document, e.g. `message-exists`; `http` when the answer was not one (§10). */
  readonly problem: string;
  /** `detail` of the problem document, made for people; may be empty. */
  readonly detail: string;
  /** The whole problem document: with `decision`, of one that was decided otherwise (§15.4). Empty when there was none. */
  readonly document: Readonly<Record<string, unknown>>;

  constructor(status: number, problem = "http", detail = "", document: Record<string, unknown> = {}) {
    super("http", detail || `The server answered ${status}${problem === "http" ? "" : ` (${problem})`}.`);
    this.name = "StrandlineHttpError";
    this.status = status;
    this.problem = problem;
    this.detail = detail;
    this.document = document;
  }
}

/** The answer is not what PROTOCOL.md allows: often a proxy or a sign-in page that answers in the server's place. */
export class StrandlineProtocolError extends StrandlineError {
  constructor(message: string, cause?: unknown) {
    super("protocol", message, cause);
    this.name = "StrandlineProtocolError";
  }
}

/** The error of an HTTP answer, from its problem document (RFC 9457) where it has one. Reads the body; never throws. */
export async function httpError(response: Response): Promise<StrandlineHttpError> {
  try {
    const document = JSON.parse(await response.text()) as Record<string, unknown>;
    const { code, detail, title } = document;
    return new StrandlineHttpError(response.status, text(code), text(detail) ?? text(title), document);
  } catch {
    // An HTML page or a cut body: the status has to do.
    return new StrandlineHttpError(response.status);
  }
}

/** What an aborted request ends with; AI SDK chats know it by its name. */
export const abortError = (reason = "The stream was detached."): DOMException =>
  new DOMException(reason, "AbortError");

const text = (value: unknown): string | undefined => (typeof value === "string" ? value : undefined);
