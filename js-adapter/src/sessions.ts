/** The sessions of one person on one page: the list, and the ones that are open. PROTOCOL §8. */
import { HIDDEN_MS } from "./away.js";
import { type Clock, DEFAULT_RETRY, type RetryOptions, systemClock } from "./backoff.js";
import { STALL_MS } from "./connection.js";
import type { SessionInfo } from "./content.js";
import { abortError, StrandlineHttpError } from "./errors.js";
import { createSession, safely } from "./open-session.js";
import { type Post, postUntilAnswered } from "./post.js";
import { DEVICE_HEADER, READER_HEADER, SESSIONS_PREFIX, type SubmitPolicy, urlOf } from "./protocol.js";
import { createId, createRequest, JSON_FIELDS, type Request, type RequestOptions, whole } from "./request.js";
import type { Query, Session, Wire } from "./session.js";
import type { StatusDetail, StreamStatus } from "./status.js";

export interface SessionsOptions extends RequestOptions {
  /** Prefix of the session wire. Default `/api/sessions`. */
  url?: string;
  /** An id of this device, shown with its readers. */
  device?: string;
  retry?: Partial<RetryOptions>;
  /** Silence after which a connection counts as dead. The server is silent for 15 s at most. Default 45 000. */
  stallAfterMs?: number;
  /** A page that is hidden for longer lets go of its connections, and reads on when it is back. Default 60 000. */
  hiddenMs?: number;
  /** How many messages are loaded at a time, 0 to 1000. Default 50. */
  pageSize?: number;
  /** Nothing but runs and how far they are: the `data-progress` parts of messages (§8.10). */
  only?: "progress";
  /** Messages come without what the model thought before it answered (§8.10). */
  exclude?: "reasoning";
  /** Keeps the name of this reader over a reload, so that it is the same one to others: `sessionStorage`. */
  storage?: Pick<Storage, "getItem" | "setItem">;
  /** The connection of a session that is open. */
  onStatus?(id: string, status: StreamStatus, detail: StatusDetail): void;
}

export interface ListOptions {
  /** `true`: only archived ones; `any`: all. Default `false`. */
  archived?: boolean | "any";
  /** `true`: instead those, whoever owns them, that wait for a decision which you may take. */
  pending?: boolean;
  /** `next` of the page before. */
  before?: string | undefined;
  /** 1 to 200. Default 50. */
  limit?: number;
}

/** All of these are repeated until they are answered, and reject as a stream does: with a `StrandlineError`. */
export interface Sessions {
  /** Those changed last first. */
  list(options?: ListOptions): Promise<{ sessions: SessionInfo[]; next: string | null }>;
  /** Resolves with the session as it is when there is one with this id already. */
  create(options?: { id?: string; title?: string }): Promise<SessionInfo>;
  /** Null: without a title. */
  rename(id: string, title: string | null): Promise<SessionInfo>;
  archive(id: string, archived?: boolean): Promise<SessionInfo>;
  /** What becomes of messages that come while a reply is being written. Null: what the server does by default. */
  submitting(id: string, policy: SubmitPolicy | null): Promise<SessionInfo>;
  /** Resolves when nothing is left of it. */
  delete(id: string): Promise<void>;
  /** The same object for the same id. Nothing is asked for before somebody subscribes. */
  open(id: string): Session;
  /** Lets go of everything. It can be used again. */
  close(): void;
  /** For transports over this client: how it asks. */
  readonly asking: Asking;
}

export interface Asking {
  clock: Clock;
  retry: RetryOptions;
  stallAfterMs: number;
  hiddenMs: number;
  request: Request;
}

export function createSessions(options: SessionsOptions & { clock?: Clock } = {}): Sessions {
  const { url = SESSIONS_PREFIX, clock = systemClock, stallAfterMs = STALL_MS } = options;
  const retry = { ...DEFAULT_RETRY, ...options.retry };
  const request = createRequest(options);
  const opened = new Map<string, Session>();
  /** What nobody looks at any more is kept for a return, within reason. */
  const unused = new Map<string, () => void>();
  const posts = new Set<Post>();
  const { device, storage } = options;
  const names: Record<string, string> = device === undefined ? {} : { [DEVICE_HEADER]: device };
  const nameReader = (name: string) => {
    names[READER_HEADER] = name;
    safely(() => storage?.setItem(NAME, name)); // It may be full.
  };
  nameReader(storage?.getItem(NAME) ?? createId(clock));

  const asking = { clock, retry, stallAfterMs, hiddenMs: options.hiddenMs ?? HIDDEN_MS, request };
  const wire: Wire = {
    ...asking,
    pageSize: options.pageSize ?? 50,
    only: options.only,
    exclude: options.exclude,
    request: (path, query, init, ...fields) =>
      // The names as they are now, whatever they are when the application has made up its headers.
      request(
        urlOf(url, path, query),
        init,
        init.body == null ? undefined : JSON_FIELDS,
        { ...names },
        ...fields,
      ),
    call(path, query, init, ...fields) {
      const send = () => whole(wire.request(path, query, init, ...fields));
      const post = postUntilAnswered({ clock, retry, stallAfterMs, send });
      posts.add(post);
      const answered = () => void posts.delete(post);
      post.answer.then(answered, answered);
      return post;
    },
    get reader() {
      return names[READER_HEADER] as string;
    },
    onUse(id, forget) {
      unused.delete(id);
      if (forget !== undefined) unused.set(id, forget);
      if (unused.size <= MOST_UNUSED) return;
      const [oldest, drop] = [...unused][0] as [string, () => void];
      unused.delete(oldest);
      drop();
    },
    nameReader: () => nameReader(createId(clock)),
    onStatus: (id, status, detail) => safely(() => options.onStatus?.(id, status, detail)),
  };

  return {
    list: ({ archived, before, limit, pending } = {}) =>
      ask("", "GET", undefined, { archived, before, limit, pending }),
    async create({ id = createId(clock), title } = {}) {
      // With an id of ours it can be repeated.
      return (await ask<{ session: SessionInfo }>("", "POST", { id, title })).session;
    },
    rename: (id, title) => change(id, { title }),
    archive: (id, archived = true) => change(id, { archived }),
    submitting: (id, submit) => change(id, { submit }),
    async delete(id) {
      try {
        await wire.call(pathOf(id), {}, { method: "DELETE" }).answer;
      } catch (error) {
        // It was deleted by the attempt whose answer was lost, or by somebody else.
        if (!(error instanceof StrandlineHttpError) || error.status !== 404) throw error;
      }
    },
    open(id) {
      const session = opened.get(id) ?? createSession(id, wire);
      opened.set(id, session);
      return session;
    },
    close() {
      for (const session of opened.values()) session.close();
      for (const post of [...posts]) post.cancel(abortError());
    },
    asking,
  };

  async function ask<T>(path: string, method: string, body?: object, query: Query = {}): Promise<T> {
    const init = { method, body: JSON.stringify(body) };
    return (await (await wire.call(path, query, init).answer).json()) as T;
  }

  async function change(id: string, body: object): Promise<SessionInfo> {
    return (await ask<{ session: SessionInfo }>(pathOf(id), "PATCH", body)).session;
  }
}

const pathOf = (id: string): string => `/${encodeURIComponent(id)}`;

const MOST_UNUSED = 16;

const NAME = "strandline-reader";
