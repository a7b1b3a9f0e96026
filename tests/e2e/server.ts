/** A real server: uvicorn in its own process, on a port of its own, over a SQLite file in a directory of its own. */
import { type ChildProcess, spawn } from "node:child_process";
import { randomInt } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterEach } from "vitest";
import { eventually, within } from "./support.js";

const HERE = fileURLToPath(new URL(".", import.meta.url));
export const PYTHON = process.env.STRANDLINE_PYTHON ?? join(HERE, "../../.venv/bin/python");

/** What `GET /test/calls` says about one session. */
export interface Calls {
  called: number;
  /** How often the demo agent came to its end, in whatever way. */
  left: number;
  closed: { run: string; given: number; whole: boolean }[];
}

export interface RunStatus {
  run: string;
  status: string;
  reason: string | null;
  error?: string;
}

/** A UIMessage of any version. */
export interface Message {
  id: string;
  role: "user" | "assistant" | "system";
  parts: { type: string; text?: string; [field: string]: unknown }[];
  metadata?: unknown;
}

export interface History {
  messages: Message[];
  activeRun: { id: string; messageId: string; status: string } | null;
  cursor: string | null;
  runs: Record<string, RunStatus>;
}

export interface StopAnswer {
  run: string | null;
  status: string;
  reason?: string | null;
  cursor?: string | null;
  stopped: boolean;
}

const children = new Set<ChildProcess>();
process.once("exit", () => {
  for (const child of children) child.kill("SIGKILL");
});

// What the servers had to say is told with the test that failed.
const servers = new Set<PythonServer>();
afterEach(({ task }) => {
  for (const server of servers) {
    const said = server.heard();
    if (task.result?.state === "fail" && said !== "") console.error(`the server at ${server.url}:\n${said}`);
  }
});

/**
 * A port that was free just now, below those which connections going out are given: one of them would take it while a
 * server restarts.
 */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = randomInt(16_384, 32_768);
    const server = createServer();
    const isFree = await new Promise<boolean>((resolve) => {
      server.once("error", () => resolve(false));
      server.listen(port, "127.0.0.1", () => resolve(true));
    });
    if (!isFree) continue;
    server.close();
    await once(server, "close");
    return port;
  }
}

/** Any of this project's Python programs that serve HTTP on a port. */
export class PythonServer {
  readonly url: string;
  private output = "";
  private child: ChildProcess | undefined;

  constructor(
    readonly port: number,
    private readonly args: readonly string[],
    private readonly env: Record<string, string>,
    private readonly health = "/api/readyz",
    private readonly cwd = HERE,
  ) {
    this.url = `http://127.0.0.1:${port}`;
    servers.add(this);
  }

  /** What it has printed since this was last asked. */
  heard(): string {
    const { output } = this;
    this.output = "";
    return output;
  }

  async start(): Promise<void> {
    if (this.child !== undefined) throw new Error("it runs already");
    const child = spawn(PYTHON, this.args, {
      cwd: this.cwd,
      env: { ...process.env, PYTHONUNBUFFERED: "1", ...this.env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.child = child;
    children.add(child);
    child.once("exit", () => children.delete(child));
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding("utf8").on("data", (text: string) => {
        this.output = (this.output + text).slice(-20_000);
      });
    }
    try {
      await eventually(
        "the server is healthy",
        async () => {
          if (child.exitCode !== null) return true;
          return (await fetch(this.url + this.health)).ok;
        },
        30_000,
        25,
      );
      if (child.exitCode !== null) throw new Error(`the server ended with ${child.exitCode}`);
    } catch (error) {
      await this.end("SIGKILL");
      throw new Error(`the server did not start:\n${this.heard()}`, { cause: error });
    }
  }

  get running(): boolean {
    return this.child !== undefined && this.child.exitCode === null && this.child.signalCode === null;
  }

  /** Sends the signal and resolves when the process is gone, with how long that took and its exit code. */
  async end(signal: "SIGTERM" | "SIGKILL", ms = 20_000): Promise<{ took: number; code: number | null }> {
    const { child } = this;
    if (child === undefined) return { took: 0, code: null };
    const began = Date.now();
    if (child.exitCode === null && child.signalCode === null) {
      const gone = once(child, "exit");
      child.kill(signal);
      try {
        await within(ms, `the server's end after ${signal}`, gone);
      } catch (error) {
        child.kill("SIGKILL");
        await gone;
        this.child = undefined;
        throw error;
      }
    }
    this.child = undefined;
    return { took: Date.now() - began, code: child.exitCode };
  }
}

/**
 * Comments between the frames all the time, a memory that holds next to nothing, and a log that is packed while it is
 * written: a reader must not notice any of it.
 */
export const CRAMPED = {
  STRANDLINE_HEARTBEAT: "0.02",
  STRANDLINE_TAIL_LIMIT: "256",
  STRANDLINE_SEGMENT_AGE: "0.05",
  STRANDLINE_SESSION_IDLE: "0.2",
};

/** The application of app.py. */
export class TestServer extends PythonServer {
  private constructor(
    port: number,
    env: Record<string, string>,
    readonly directory: string,
  ) {
    const uvicorn = ["-m", "uvicorn", "app:app", "--host", "127.0.0.1", "--port", String(port)];
    super(port, [...uvicorn, "--log-level", "warning"], {
      ...env,
      E2E_DB: join(directory, "chat.db"),
      E2E_RECORD: join(directory, "record.jsonl"),
    });
  }

  static async begin(env: Record<string, string> = {}): Promise<TestServer> {
    const directory = await mkdtemp(join(tmpdir(), "strandline-e2e-"));
    const server = new TestServer(await freePort(), env, directory);
    try {
      await server.start();
    } catch (error) {
      await rm(directory, { recursive: true, force: true });
      throw error;
    }
    return server;
  }

  /** Ends it for good and removes its files. */
  async close(): Promise<void> {
    await this.end("SIGKILL");
    await rm(this.directory, { recursive: true, force: true });
  }

  async restart(signal: "SIGTERM" | "SIGKILL"): Promise<{ took: number; code: number | null }> {
    const how = await this.end(signal);
    await this.start();
    return how;
  }

  async allCalls(): Promise<Record<string, Calls>> {
    return ((await this.json("/test/calls")) as { sessions: Record<string, Calls> }).sessions;
  }

  async calls(session: string): Promise<Calls> {
    return (await this.allCalls())[session] ?? { called: 0, left: 0, closed: [] };
  }

  /** Resolves when the session exists: its first message has arrived. */
  async knows(session: string): Promise<void> {
    await eventually(`the server knows ${session}`, async () => {
      const response = await fetch(`${this.url}/api/sessions/${encodeURIComponent(session)}`);
      await response.body?.cancel();
      return response.ok;
    });
  }

  history(session: string): Promise<History> {
    return this.json(`/api/chat/${encodeURIComponent(session)}/messages`) as Promise<History>;
  }

  /** The history as soon as nothing is active in it. */
  settled(session: string, ms = 15_000): Promise<History> {
    return eventually(
      `${session} is idle`,
      async () => {
        const history = await this.history(session);
        return history.activeRun === null && history;
      },
      ms,
    );
  }

  async stop(session: string, body?: object): Promise<{ http: number; answer: StopAnswer }> {
    const response = await this.post(`/api/chat/${encodeURIComponent(session)}/stop`, body);
    return { http: response.status, answer: (await response.json()) as StopAnswer };
  }

  /** `GET …/stream`: the status, and the text of the whole response. */
  async resume(session: string, query = "", headers: Record<string, string> = {}) {
    const response = await fetch(`${this.url}/api/chat/${encodeURIComponent(session)}/stream${query}`, {
      headers,
    });
    return { status: response.status, headers: response.headers, text: await response.text() };
  }

  post(path: string, body?: object, headers: Record<string, string> = {}): Promise<Response> {
    const json = body === undefined ? {} : { body: JSON.stringify(body) };
    return fetch(this.url + path, {
      method: "POST",
      headers: { "Content-Type": "application/json", ...headers },
      ...json,
    });
  }

  private async json(path: string): Promise<unknown> {
    const response = await fetch(this.url + path);
    if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
    return response.json();
  }
}
