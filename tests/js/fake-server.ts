/**
 * A Strandline server in memory, as far as a client can see one: PROTOCOL §3 to §7 over real sockets.
 *
 * A test appends chunks to a run, and queues faults: the next request with that method and verb meets the fault that
 * waits first in its queue. To play a new kind of trouble, add a field to `Fault` and the place that heeds it.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface WireChunk {
  type: string;
  [field: string]: unknown;
}

export interface Fault {
  /** Answer with this status and a problem document. */
  status?: number;
  code?: string;
  retryAfter?: number;
  /** Do the work, then close the socket without having answered. */
  loseAnswer?: boolean;
  /** Close the socket before the work is done. */
  loseRequest?: boolean;
  /** Answer (and, for a POST, do the work) only when this resolves. */
  gate?: Promise<void>;
  /** Write this many bytes of the body, then close the socket, or end the response cleanly. */
  cutAfter?: number;
  cleanly?: boolean;
  /** Write this instead of the frames, and end. */
  body?: string;
  headers?: Record<string, string>;
}

export interface Seen {
  method: string;
  url: string;
  headers: IncomingMessage["headers"];
  body: Record<string, unknown>;
}

type Kind = "POST" | "GET" | "STOP";

export class FakeRun {
  readonly log: WireChunk[] = [];
  status = "running";
  readonly readers = new Set<() => void>();

  constructor(
    readonly id: string,
    readonly chatId: string,
    readonly messageId: string,
  ) {}

  get isActive(): boolean {
    return this.status === "running";
  }

  append(...chunks: WireChunk[]): this {
    for (const chunk of chunks) {
      this.log.push(chunk);
      const ends: Record<string, string> = { finish: "completed", abort: "stopped", error: "failed" };
      this.status = ends[chunk.type] ?? this.status;
    }
    for (const reader of [...this.readers]) reader();
    return this;
  }
}

/** A short reply with more than one byte per character in it. */
export const reply = (messageId: string): WireChunk[] => [
  { type: "start", messageId },
  { type: "start-step" },
  { type: "text-start", id: "t1" },
  { type: "text-delta", id: "t1", delta: "Grüße, " },
  { type: "text-delta", id: "t1", delta: "mein 🌊!" },
  { type: "text-end", id: "t1" },
  { type: "finish-step" },
  { type: "finish", finishReason: "stop" },
];

export class FakeServer {
  readonly seen: Seen[] = [];
  readonly runs: FakeRun[] = [];
  /** Stops that were for something that had not arrived. */
  readonly remembered: Record<string, unknown>[] = [];
  /** What a new run says by itself. */
  script: (run: FakeRun) => WireChunk[] = (run) => reply(run.messageId);
  /** Open responses. */
  readonly open = new Set<ServerResponse>();
  private readonly faults: Record<Kind, Fault[]> = { POST: [], GET: [], STOP: [] };
  private readonly byKey = new Map<string, FakeRun>();
  private constructor(private readonly server: Server) {}

  static async start(): Promise<FakeServer> {
    const server = createServer();
    const fake = new FakeServer(server);
    server.on("request", (request, response) => {
      fake.serve(request, response).catch((error) => response.destroy(error));
    });
    await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
    return fake;
  }

  get api(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}/api/chat`;
  }

  async close(): Promise<void> {
    this.server.closeAllConnections();
    await new Promise((resolve) => void this.server.close(resolve));
  }

  fault(kind: Kind, ...faults: Fault[]): void {
    this.faults[kind].push(...faults);
  }

  count(kind: Kind): number {
    return this.seen.filter((seen) => kindOf(seen.method, seen.url) === kind).length;
  }

  of(kind: Kind): Seen[] {
    return this.seen.filter((seen) => kindOf(seen.method, seen.url) === kind);
  }

  get run(): FakeRun {
    const run = this.runs.at(-1);
    if (run === undefined) throw new Error("no run was started");
    return run;
  }

  private async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const parts: Buffer[] = [];
    for await (const part of request) parts.push(part);
    const text = Buffer.concat(parts).toString();
    const seen: Seen = {
      method: request.method ?? "",
      url: request.url ?? "",
      headers: request.headers,
      body: text === "" ? {} : JSON.parse(text),
    };
    this.seen.push(seen);
    this.open.add(response);
    response.on("close", () => this.open.delete(response));
    const kind = kindOf(seen.method, seen.url);
    const fault = this.faults[kind].shift() ?? {};
    await fault.gate;
    if (fault.loseRequest) response.destroy();
    else if (fault.status !== undefined) problem(response, fault);
    else if (kind === "POST") this.post(seen, response, fault);
    else if (kind === "STOP") this.stop(seen, response, fault);
    else this.resume(seen, response, fault);
  }

  /** A run that somebody else started. */
  begin(chatId: string, ...chunks: WireChunk[]): FakeRun {
    const n = this.runs.length + 1;
    const run = new FakeRun(`run${n}`, chatId, `a${n}`);
    this.runs.push(run);
    return run.append(...chunks);
  }

  private post({ body, headers }: Seen, response: ServerResponse, fault: Fault): void {
    const key = String(headers["idempotency-key"]);
    let run = this.byKey.get(key);
    if (run === undefined) {
      run = this.begin(String(body.id));
      this.byKey.set(key, run);
      if (this.remembered.some((stop) => stop.key === key)) run.append({ type: "abort", reason: "stopped" });
      else run.append(...this.script(run));
    }
    if (fault.loseAnswer) response.destroy();
    else stream(response, run, 0, "full", fault, false);
  }

  private resume({ url, headers }: Seen, response: ServerResponse, fault: Fault): void {
    const { pathname, searchParams } = new URL(url, "http://x");
    const chatId = decodeURIComponent(pathname.split("/").at(-2) ?? "");
    const named = searchParams.get("run");
    const run = this.runs.findLast(
      (one) => one.chatId === chatId && (named === null ? one.isActive : one.id === named),
    );
    if (run === undefined) {
      response.writeHead(204).end();
      return;
    }
    const cursor = headers["last-event-id"];
    const next = cursor === undefined ? 0 : Number(String(cursor).split("/")[1]);
    stream(response, run, next, cursor === undefined ? "full" : "tail", fault, cursor === undefined);
  }

  private stop({ url, body }: Seen, response: ServerResponse, fault: Fault): void {
    const chatId = decodeURIComponent(url.split("/").at(-2) ?? "");
    const own = this.runs.filter((run) => run.chatId === chatId);
    const byKey = this.byKey.get(String(body.key));
    const active = own.findLast((one) => one.isActive);
    const run = body.run ? own.find((one) => one.id === body.run) : body.key ? byKey : active;
    const answer = (status: number, result: object) => {
      if (fault.loseAnswer) response.destroy();
      else response.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(result));
    };
    if (run !== undefined) {
      const stopped = run.isActive;
      const reason = body.reason ?? "user";
      if (stopped) run.append({ type: "abort", reason: String(reason) });
      answer(200, { run: run.id, status: run.status, reason, cursor: `${run.log.length}`, stopped });
    } else if (body.key !== undefined) {
      this.remembered.push(body);
      answer(202, { run: null, status: "remembered", stopped: false });
    } else if (own.length === 0) {
      problem(response, { status: 404, code: "not-found" });
    } else {
      answer(200, { run: null, status: "idle", stopped: false });
    }
  }
}

const kindOf = (method: string, url: string): Kind =>
  method === "GET" ? "GET" : url.endsWith("/stop") ? "STOP" : "POST";

function problem(response: ServerResponse, { status = 500, code = "problem", retryAfter }: Fault): void {
  const headers: Record<string, string> = { "Content-Type": "application/problem+json" };
  if (retryAfter !== undefined) headers["Retry-After"] = String(retryAfter);
  const document = {
    type: `urn:strandline:${code}`,
    title: code,
    status,
    detail: `The ${code} story.`,
    code,
  };
  response.writeHead(status, headers).end(JSON.stringify(document));
}

export const cursorOf = (run: FakeRun, next: number): string => `${run.id}/${next}`;

export const frame = (chunk: WireChunk, cursor?: string): string =>
  `data: ${JSON.stringify(chunk)}\n${cursor === undefined ? "" : `id: ${cursor}\n`}\n`;

function stream(
  response: ServerResponse,
  run: FakeRun,
  from: number,
  replay: string,
  fault: Fault,
  isSnapshot: boolean,
): void {
  response.writeHead(200, {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store, no-transform",
    "Strandline-Run": run.id,
    "Strandline-Message": run.messageId,
    "Strandline-Replay": replay,
    ...fault.headers,
  });
  let left = fault.cutAfter ?? Number.POSITIVE_INFINITY;
  const cut = () => {
    if (fault.cleanly) response.end();
    else setImmediate(() => response.destroy());
  };
  const write = (text: string) => {
    if (left === 0) return;
    const bytes = Buffer.from(text).subarray(0, left);
    left -= bytes.length;
    if (left === 0) response.write(bytes, cut);
    else response.write(bytes);
  };
  response.flushHeaders();
  if (left === 0) cut();
  write(": strandline\n");
  if (fault.body !== undefined) {
    write(fault.body);
    response.end();
    return;
  }
  let next = from;
  let snapshotEnd = isSnapshot ? run.log.length : 0;
  const send = () => {
    for (; next < run.log.length; next++) {
      const isHeld = next + 1 < snapshotEnd;
      write(frame(run.log[next] as WireChunk, isHeld ? undefined : cursorOf(run, next + 1)));
    }
    snapshotEnd = 0;
    if (run.isActive) return;
    write("data: [DONE]\n\n");
    run.readers.delete(send);
    if (left > 0) response.end();
  };
  run.readers.add(send);
  response.on("close", () => run.readers.delete(send));
  send();
}
