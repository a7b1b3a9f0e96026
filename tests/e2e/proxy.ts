/**
 * A network that can be broken on purpose: a TCP proxy that lets one request through per connection, so that "the k-th
 * connection" and "the k-th request" are the same, and a byte of a response has a number.
 */
import { once } from "node:events";
import { createServer, type Server, type Socket, connect as tcp } from "node:net";

export interface ProxiedRequest {
  /** From 0, over the life of the proxy. */
  number: number;
  method: string;
  path: string;
  /** Lower-case names. */
  headers: Record<string, string>;
}

/** What is done to one request and its response. Nothing in it: they pass. */
export interface Fault {
  /** Not delivered before this resolves. */
  hold?: Promise<unknown>;
  /** Answered here with this status; the server never sees the request. */
  status?: number;
  /** Delivered, and the connection dies when the answer begins. */
  swallow?: boolean;
  /** The connection dies after this many bytes of the response, head included. */
  cutAfter?: number;
  /** Each piece of the response is late by this much. */
  delay?: number;
}

type Plan = (request: ProxiedRequest) => Fault | undefined;

export class CuttingProxy {
  /** Decides about each request; assign to change it. */
  plan: Plan = () => undefined;
  readonly requests: ProxiedRequest[] = [];
  /** Size of each response so far, by number of its request. */
  readonly bytes: number[] = [];
  private readonly sockets = new Set<Socket>();
  private server: Server | undefined;
  private port = 0;

  private constructor(private readonly target: number) {}

  static async begin(target: number, plan?: Plan): Promise<CuttingProxy> {
    const proxy = new CuttingProxy(target);
    if (plan !== undefined) proxy.plan = plan;
    await proxy.listen();
    return proxy;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  count(method: string): number {
    return this.requests.filter((request) => request.method === method).length;
  }

  /** New connections are refused until `accept`. Those that exist stay. */
  async refuse(): Promise<void> {
    const { server } = this;
    this.server = undefined;
    if (server === undefined) return;
    server.close();
    await new Promise((resolve) => setImmediate(resolve));
  }

  async accept(): Promise<void> {
    if (this.server === undefined) await this.listen();
  }

  /** Kills every connection there is. */
  cut(): number {
    const { size } = this.sockets;
    for (const socket of this.sockets) socket.resetAndDestroy();
    return size;
  }

  async close(): Promise<void> {
    await this.refuse();
    for (const socket of this.sockets) socket.destroy();
  }

  private async listen(): Promise<void> {
    this.server = createServer((socket) => this.serve(socket)).listen(this.port, "127.0.0.1");
    await once(this.server, "listening");
    const address = this.server.address();
    if (address !== null && typeof address !== "string") this.port = address.port;
  }

  private serve(client: Socket): void {
    this.track(client);
    let head = Buffer.alloc(0);
    const read = (bytes: Buffer) => {
      head = Buffer.concat([head, bytes]);
      const end = head.indexOf("\r\n\r\n");
      if (end < 0) return;
      client.off("data", read);
      client.pause();
      const request = parse(head.subarray(0, end).toString("latin1"), this.requests.length);
      this.requests.push(request);
      this.bytes.push(0);
      void this.pass(client, request, head.subarray(end + 4));
    };
    client.on("data", read);
  }

  private async pass(client: Socket, request: ProxiedRequest, rest: Buffer): Promise<void> {
    const fault = this.plan(request) ?? {};
    await fault.hold;
    if (client.destroyed && fault.hold === undefined) return;
    if (fault.status !== undefined) {
      client.resume();
      client.end(`HTTP/1.1 ${fault.status} Out of order\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`);
      return;
    }
    if (fault.cutAfter === 0) {
      fault.swallow = true;
    }
    const upstream = tcp(this.target, "127.0.0.1");
    this.track(upstream);
    upstream.write(`${rewritten(request, this.target)}\r\n\r\n`, "latin1");
    upstream.write(rest);
    client.on("data", (bytes) => upstream.write(bytes));
    client.resume();
    upstream.on("data", (bytes: Buffer) => {
      if (fault.swallow) {
        client.resetAndDestroy();
        upstream.destroy();
        return;
      }
      const before = this.bytes[request.number] ?? 0;
      const left = (fault.cutAfter ?? Number.POSITIVE_INFINITY) - before;
      const due = bytes.subarray(0, left);
      this.bytes[request.number] = before + due.length;
      const give = () => {
        if (client.destroyed) return;
        // A FIN, not a reset: a reset would also take back bytes that the client has not read yet.
        if (left <= bytes.length) {
          client.end(due);
          upstream.destroy();
        } else if (!client.write(due)) {
          upstream.pause();
          client.once("drain", () => upstream.resume());
        }
      };
      if (fault.delay === undefined) give();
      else setTimeout(give, fault.delay);
    });
    const ended = () => setTimeout(() => client.end(), fault.delay ?? 0);
    upstream.on("end", ended);
    upstream.on("close", ended);
    client.on("close", () => upstream.destroy());
  }

  private track(socket: Socket): void {
    this.sockets.add(socket);
    socket.setNoDelay(true);
    socket.on("error", () => socket.destroy());
    socket.on("close", () => this.sockets.delete(socket));
  }
}

function parse(head: string, number: number): ProxiedRequest {
  const [first = "", ...lines] = head.split("\r\n");
  const [method = "", path = ""] = first.split(" ");
  const headers: Record<string, string> = {};
  for (const line of lines) {
    const colon = line.indexOf(":");
    headers[line.slice(0, colon).toLowerCase()] = line.slice(colon + 1).trim();
  }
  return { number, method, path, headers };
}

function rewritten({ method, path, headers }: ProxiedRequest, port: number): string {
  const fields = { ...headers, host: `127.0.0.1:${port}`, connection: "close" };
  const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}`);
  return [`${method} ${path} HTTP/1.1`, ...lines].join("\r\n");
}
