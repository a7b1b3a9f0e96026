/**
 * The session wire of a Strandline server in memory, as far as a client can see it: PROTOCOL §8 over real sockets.
 *
 * A test appends events to a session and queues faults, as in `fake-server.ts`; `seen` has every request.
 */
import { createServer, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { Fault, Seen, WireChunk } from "./fake-server.js";

type Kind = "EVENTS" | "SEND" | "STOP" | "ACK" | "OTHER";

export interface WireEvent {
  type: string;
  [field: string]: unknown;
}

interface Message {
  id: string;
  version: string;
  parent: string | null;
  role: string;
  parts: unknown[];
}

interface Run {
  id: string;
  messageId: string;
  spawned?: boolean;
  status: string;
  reason: string | null;
  error: string | null;
  agent: string;
  createdAt: number;
  endedAt: number | null;
  chunks: WireChunk[];
  /** What its agent was told and has not taken, as the events say it. */
  notes?: object[];
}

const ENDED = { status: "completed", reason: "completed" };

/** One session: its log, and what the log says. */
export class FakeSession {
  readonly log: WireEvent[] = [];
  readonly messages = new Map<string, Message>();
  readonly runs: Run[] = [];
  readonly readers = new Set<(notice?: object) => void>();
  leaf: string | null = null;
  epoch = 1;
  isDeleted = false;
  /** Cursors up to this one cannot be continued. */
  forgotten = 0;

  constructor(readonly id: string) {}

  append(...events: WireEvent[]): void {
    for (const event of events) {
      this.log.push({ ...event, at: this.log.length + 1, seq: this.log.length + 1 });
      if (event.type === "message-created" || event.type === "run-queued") {
        const version = event.message as string;
        const { message_id: id, parent = null, role = "assistant", parts = [] } = event;
        this.messages.set(version, { id, version, parent, role, parts } as Message);
        if (!event.spawned) this.leaf = version;
      }
      if (event.spawned) this.beside(event);
      const run = this.runs.find(({ id }) => id === event.run);
      if (event.type === "appended") run?.chunks.push(...(event.chunks as WireChunk[]));
      if (event.type === "message-reset" && run) run.chunks = [];
      if (event.type === "run-started" && run) run.status = "running";
      if (event.type === "run-ended" && run) {
        run.status = event.status as string;
        const message = this.messages.get(run.messageId) as Message;
        message.parts = [{ type: "text", text: textOf(run.chunks), state: "done" }];
      }
    }
    this.wake();
  }

  /** Another agent begins to write beside the active path. */
  private beside({ run, message, agent, parent_run: parentRun }: WireEvent): void {
    const [id, messageId] = [run as string, message as string];
    const spawned = { id, messageId, agent: agent as string, spawned: true, parentRun, status: "queued" };
    this.runs.push({ ...spawned, reason: null, error: null, createdAt: 1, endedAt: null, chunks: [] });
  }

  /** Writes what is due to every feed, and a frame that is not in the log. */
  wake(notice?: object): void {
    for (const reader of [...this.readers]) reader(notice);
  }

  /** A user message and the run that answers it; the run says nothing yet. */
  ask(id: string, text = "hi", parent: string | null = this.leaf): Run {
    this.append({
      type: "message-created",
      by: "user:ann",
      message: `v-${id}-${this.log.length}`,
      message_id: id,
      ...(parent !== null && { parent }),
      role: "user",
      parts: [{ type: "text", text }],
    });
    return this.queue();
  }

  queue(parent: string | null = this.leaf): Run {
    const n = this.runs.length + 1;
    const run = { id: `run${n}`, messageId: `a${n}`, status: "queued", reason: null, error: null };
    this.runs.push({ ...run, agent: "reply", createdAt: n, endedAt: null, chunks: [] });
    const { id, messageId: message } = run;
    this.append({
      type: "run-queued",
      run: id,
      message,
      message_id: message,
      agent: "reply",
      ...(parent && { parent }),
    });
    this.append({ type: "run-started", run: id, message, message_id: message });
    return this.runs.at(-1) as Run;
  }

  say({ id: run, messageId: message }: Run, ...chunks: WireChunk[]): void {
    this.append({ type: "appended", run, message, chunks });
  }

  end({ id: run, messageId: message }: Run, end: object = ENDED): void {
    this.append({ type: "run-ended", run, message, message_id: message, ...ENDED, ...end });
  }

  cursor(next = this.log.length): string {
    return `${this.epoch}/${next}`;
  }

  path(): Message[] {
    const found: Message[] = [];
    for (let version = this.leaf; version !== null; ) {
      const message = this.messages.get(version) as Message;
      found.unshift(message);
      version = message.parent;
    }
    return found;
  }

  snapshot(last: number): object {
    const active = this.runs.filter(({ status }) => status === "queued" || status === "running");
    const path = this.path();
    const shown = last === 0 ? [] : path.slice(-last);
    return {
      type: "snapshot",
      session: this.plain(),
      messages: shown.map(plain),
      versions: versionsOf(shown),
      page: { before: shown.length < path.length ? shown[0]?.id : null },
      active: active.map(({ id, messageId, chunks, notes }) => ({
        run: id,
        messageId,
        chunks: [{ type: "start", messageId }, ...chunks],
        notes: notes ?? [],
      })),
      runs: this.runs.map(({ chunks, notes, ...run }) => run),
      readers: [],
      decisions: [],
      branches: {},
      authors: authorsOf([...this.messages.values()]),
      annotations: {},
      spawned: this.runs
        .filter(({ spawned }) => spawned)
        .map(({ id: run, agent, messageId }) => {
          const message = this.messages.get(messageId) as Message;
          const parent = this.messages.get(message.parent ?? "")?.id ?? null;
          return { message: plain(message), run, agent, parent };
        }),
      cursor: this.cursor(),
    };
  }

  plain(): object {
    const times = { createdAt: 1, updatedAt: 1 };
    return { id: this.id, title: null, archived: false, ...times, activeRun: null, submit: null, pending: 0 };
  }
}

const plain = ({ id, role, parts }: Message) => ({ id, role, parts });

const versionsOf = (messages: readonly Message[]) =>
  Object.fromEntries(messages.map(({ id, version }) => [id, version]));

const authorsOf = (messages: readonly Message[]) =>
  Object.fromEntries(
    messages.map(({ id, role }) => [id, { by: role === "user" ? "user:ann" : "agent:reply" }]),
  );

const textOf = (chunks: readonly WireChunk[]): string =>
  chunks.map(({ type, delta }) => (type === "text-delta" ? delta : "")).join("");

export class FakeSessions {
  readonly seen: Seen[] = [];
  readonly sessions = new Map<string, FakeSession>();
  /** What a message that is sent leads to. */
  script: (session: FakeSession, run: Run) => void = () => {};
  /** Open feeds. */
  readonly open = new Set<ServerResponse>();
  private readonly faults: Record<Kind, Fault[]> = { EVENTS: [], SEND: [], STOP: [], ACK: [], OTHER: [] };
  private readonly byKey = new Map<string, Run>();
  private constructor(private readonly server: Server) {}

  static async start(): Promise<FakeSessions> {
    const server = createServer();
    const fake = new FakeSessions(server);
    server.on("request", async (request, response) => {
      const parts: Buffer[] = [];
      for await (const part of request) parts.push(part);
      const text = Buffer.concat(parts).toString();
      const { method = "", url = "", headers } = request;
      const seen = { method, url, headers, body: text === "" ? {} : JSON.parse(text) };
      fake.serve(seen, response).catch((error) => response.destroy(error));
    });
    await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
    return fake;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}/api/sessions`;
  }

  async close(): Promise<void> {
    this.server.closeAllConnections();
    await new Promise((resolve) => void this.server.close(resolve));
  }

  session(id = "s1"): FakeSession {
    const session = this.sessions.get(id) ?? new FakeSession(id);
    this.sessions.set(id, session);
    return session;
  }

  fault(kind: Kind, ...faults: Fault[]): void {
    this.faults[kind].push(...faults);
  }

  of(kind: Kind): Seen[] {
    return this.seen.filter((seen) => kindOf(seen) === kind);
  }

  count(kind: Kind): number {
    return this.of(kind).length;
  }

  private async serve(seen: Seen, response: ServerResponse): Promise<void> {
    this.seen.push(seen);
    const kind = kindOf(seen);
    const fault = this.faults[kind].shift() ?? {};
    await fault.gate;
    const { pathname, searchParams } = new URL(seen.url, "http://x");
    const id = decodeURIComponent(pathname.split("/")[3] ?? "");
    const session = this.sessions.get(id);
    const json = (status: number, value?: object) => {
      if (fault.loseAnswer) response.destroy();
      else
        response
          .writeHead(status, { "Content-Type": "application/json" })
          .end(value && JSON.stringify(value));
    };
    if (fault.loseRequest) response.destroy();
    else if (fault.status !== undefined) {
      const headers: Record<string, string> = { "Content-Type": "application/problem+json" };
      if (fault.retryAfter !== undefined) headers["Retry-After"] = String(fault.retryAfter);
      response
        .writeHead(fault.status, headers)
        .end(JSON.stringify({ code: fault.code ?? "problem", detail: "No." }));
    } else if (kind === "SEND") json(202, this.send(this.session(id), seen));
    else if (kind === "OTHER" && id === "") json(seen.method === "GET" ? 200 : 201, this.collection(seen));
    else if (session === undefined) response.writeHead(404).end(JSON.stringify({ code: "not-found" }));
    else if (kind === "EVENTS") feed(this, session, seen, searchParams, response, fault);
    else if (kind === "STOP") json(200, stop(session, seen.body));
    else if (kind === "ACK") response.writeHead(204).end();
    else if (seen.method === "GET") json(200, page(session, searchParams));
    else if (seen.method === "PATCH") json(200, { session: { ...session.plain(), ...seen.body } });
    else {
      this.sessions.delete(id);
      session.isDeleted = true;
      session.wake();
      if (fault.loseAnswer) response.destroy();
      else response.writeHead(204).end();
    }
  }

  private send(session: FakeSession, { body, headers }: Seen): object {
    const key = String(headers["idempotency-key"]);
    let run = this.byKey.get(key);
    if (run === undefined) {
      const { message, trigger, messageId } = body as Record<string, unknown>;
      const named = session.path().find(({ id }) => id === messageId);
      if (trigger === "regenerate-message") run = session.queue(named?.parent);
      else {
        const { id, parts } = message as { id: string; parts: { text: string }[] };
        run = session.ask(id, parts[0]?.text, named === undefined ? session.leaf : named.parent);
      }
      this.byKey.set(key, run);
      this.script(session, run);
    }
    return { run: run.id, messageId: run.messageId, cursor: session.cursor() };
  }

  private collection({ method, body }: Seen): object {
    if (method === "GET")
      return { sessions: [...this.sessions.values()].map((one) => one.plain()), next: null };
    return { session: { ...this.session(String(body.id)).plain(), ...body } };
  }
}

function kindOf({ method, url }: Seen): Kind {
  const verb = url.split("?")[0]?.split("/")[4];
  if (verb === "events") return "EVENTS";
  if (verb === "stop") return "STOP";
  if (verb === "ack") return "ACK";
  return verb === "messages" && method === "POST" ? "SEND" : "OTHER";
}

function page(session: FakeSession, query: URLSearchParams): object {
  const path = session.path();
  const end = path.findIndex(({ id }) => id === query.get("before"));
  const shown = path.slice(0, end).slice(-Number(query.get("limit")));
  const before = shown[0] === path[0] ? null : shown[0]?.id;
  return {
    messages: shown.map(plain),
    versions: versionsOf(shown),
    branches: {},
    authors: authorsOf(shown),
    annotations: {},
    decisions: [],
    spawned: [],
    page: { before, after: null },
    runs: {},
    activeRun: null,
    cursor: null,
  };
}

function stop(session: FakeSession, { run: named, reason = "user" }: Record<string, unknown>): object {
  const run = session.runs.findLast(({ id, status }) => (named ? id === named : status === "running"));
  if (run === undefined) return { run: null, status: "idle", stopped: false };
  const stopped = run.status === "running";
  if (stopped) session.end(run, { status: "stopped", reason });
  return { run: run.id, status: run.status, reason, cursor: session.cursor(), stopped };
}

function feed(
  fake: FakeSessions,
  session: FakeSession,
  { headers }: Seen,
  query: URLSearchParams,
  response: ServerResponse,
  fault: Fault,
): void {
  const [epoch, position] = String(headers["last-event-id"] ?? "0/0")
    .split("/")
    .map(Number);
  const isKnown = epoch === session.epoch && (position as number) >= session.forgotten;
  let next = position as number;
  let left = fault.cutAfter ?? Number.POSITIVE_INFINITY;
  const write = (data: object, cursor?: string) => {
    if (left === 0) return;
    const text = `data: ${JSON.stringify(data)}\n${cursor === undefined ? "" : `id: ${cursor}\n`}\n`;
    const bytes = Buffer.from(text).subarray(0, left);
    left -= bytes.length;
    response.write(bytes);
    if (left === 0 && fault.cleanly) response.end();
    else if (left === 0) setImmediate(() => response.destroy());
  };
  response.writeHead(200, { "Content-Type": "text/event-stream", "Cache-Control": "no-store, no-transform" });
  response.flushHeaders();
  if (left === 0) response.destroy();
  else response.write(": strandline\nretry: 1000\n");
  if (!isKnown) {
    write(session.snapshot(Number(query.get("last") ?? 1000)), session.cursor());
    next = session.log.length;
  }
  const send = (notice?: object) => {
    if (notice !== undefined) write(notice);
    for (; next < session.log.length; next++) write(session.log[next] as object, session.cursor(next + 1));
    if (session.isDeleted) {
      write({ type: "session-deleted" });
      response.end();
    }
  };
  fake.open.add(response);
  session.readers.add(send);
  response.on("close", () => {
    fake.open.delete(response);
    session.readers.delete(send);
  });
  send();
  write({ type: "readers", readers: [{ id: headers["strandline-reader"], connected: true }] });
}

/** The chunks of a short reply with more than one byte per character in it. */
export const SAID: WireChunk[] = [
  { type: "start-step" },
  { type: "text-start", id: "t1" },
  { type: "text-delta", id: "t1", delta: "Grüße, " },
  { type: "text-delta", id: "t1", delta: "mein 🌊!" },
  { type: "text-end", id: "t1" },
  { type: "finish-step" },
];
