/** Real clients behind a real nginx: its defaults, and compression for everything. (What `docs/deploying.md` shows, TLS
 * and `strandline doctor` are tested in tests/python/proxies.) */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { Client, COMBINATIONS, plain } from "./chat.js";
import { freePort, TestServer } from "./server.js";
import { counted, eventually, fresh } from "./support.js";

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

const NGINX = existsSync("/usr/sbin/nginx") ? "/usr/sbin/nginx" : "nginx";
const TEMPORARY = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];

class Nginx {
  readonly url: string;
  private child: ChildProcess | undefined;

  private constructor(
    private readonly port: number,
    private readonly directory: string,
  ) {
    this.url = `http://127.0.0.1:${port}`;
  }

  static async begin(behind: number): Promise<Nginx> {
    const directory = await mkdtemp(join(tmpdir(), "strandline-nginx-"));
    const nginx = new Nginx(await freePort(), directory);
    const config = `daemon off; master_process off; error_log stderr; pid ${directory}/pid;
      events { worker_connections 256; }
      http {
        access_log off;
        ${TEMPORARY.map((name) => `${name}_temp_path ${directory}/${name};`).join("\n")}
        gzip on; gzip_min_length 1; gzip_types text/event-stream application/json;
        server {
          listen 127.0.0.1:${nginx.port};
          location / { proxy_pass http://127.0.0.1:${behind}; proxy_read_timeout 2s; }
        }
      }`;
    await writeFile(join(directory, "nginx.conf"), config);
    await nginx.start();
    return nginx;
  }

  async start(): Promise<void> {
    const child = spawn(NGINX, ["-p", this.directory, "-c", join(this.directory, "nginx.conf")], {
      stdio: ["ignore", "ignore", "inherit"],
    });
    this.child = child;
    await eventually("nginx listens", async () => {
      if (child.exitCode !== null) throw new Error(`nginx ended with ${child.exitCode}`);
      const socket = connect(this.port, "127.0.0.1");
      await once(socket, "connect");
      return socket.destroy();
    });
  }

  async kill(): Promise<void> {
    const { child } = this;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, "exit");
    child.kill("SIGKILL");
    await gone;
  }

  async close(): Promise<void> {
    await this.kill();
    await rm(this.directory, { recursive: true, force: true });
  }
}

let server: TestServer;
let nginx: Nginx;
beforeAll(async () => {
  server = await TestServer.begin({ STRANDLINE_HEARTBEAT: "0.5" });
  nginx = await Nginx.begin(server.port);
});
afterAll(async () => {
  await nginx?.close();
  await server?.close();
});

const client = ({ major, kind }: (typeof COMBINATIONS)[number], name: string) =>
  new Client({ major, kind, url: nginx.url, id: fresh(name) });

test.each(COMBINATIONS)(
  "a token is shown while the agent waits with the next, and a reloaded page has it: $name",
  async (combination) => {
    const first = client(combination, "held");
    // Nothing ends this but the stop below: whatever holds the first number back holds it for a minute.
    void first.chat.sendMessage({ text: "count to 2 every 60000 ms" });
    await first.shows(counted(1).length);
    const { client: second, done } = await first.reloading();
    await second.shows(counted(1).length);
    await server.stop(first.id);
    await done;
    expect(second.text).toBe(counted(1));
    expect(plain(second.chat.messages)).toEqual((await server.settled(first.id)).messages);
  },
);

test("four seconds of silence, where nginx cuts after two, with every client", async () => {
  await Promise.all(
    COMBINATIONS.map(async (combination) => {
      const quiet = client(combination, "quiet");
      await quiet.chat.sendMessage({ text: "count to 1 every 4000 ms" });
      expect(quiet.errors).toEqual([]);
      expect(quiet.finishes).toMatchObject([{ isAbort: false, isDisconnect: false, isError: false }]);
      expect(plain(quiet.chat.messages)).toEqual((await server.history(quiet.id)).messages);
    }),
  );
});

test.each([5, 6, 7] as const)("our transport rides out a restart of nginx, ai@%s", async (major) => {
  const page = new Client({ major, kind: "ours", url: nginx.url, id: fresh("restart") });
  const sent = page.chat.sendMessage({ text: "count to 100 every 10 ms" });
  await page.shows(counted(5).length);
  await nginx.kill();
  await nginx.start();
  await sent;
  expect(page.errors).toEqual([]);
  expect(page.text).toBe(counted(100));
  expect((await server.calls(page.id)).called).toBe(1);
  expect(plain(page.chat.messages)).toEqual((await server.history(page.id)).messages);
});
