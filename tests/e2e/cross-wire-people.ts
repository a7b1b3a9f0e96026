/**
 * People with a page each, on the two wires, behind networks that cut. Each does what its user would: where the client
 * cannot recover from a cut by itself, the page is loaded again.
 */
import { Client, type Kind, type Major, open } from "./chat.js";
import { ofAiSdk, ofTanStack, othersOf, type Said } from "./cross-wire-content.js";
import { CuttingProxy, type ProxiedRequest } from "./proxy.js";
import type { TestServer } from "./server.js";
import { eventually, type Random } from "./support.js";
import { hydrated, TanStackPage } from "./tanstack.js";

/** A message, with an image perhaps, or another reply to the last one. */
export type Move = { say: string; image: string | undefined } | "again";

export interface Person {
  readonly name: string;
  /** Opens the conversation and reads until nothing more comes. */
  read(): Promise<void>;
  /** Sends; reads until nothing more comes. */
  act(move: Move): Promise<void>;
  shown(): Said[];
  /** Whether it keeps what comes as events besides the messages. */
  readonly keepsOthers: boolean;
  /** How often a stream was cut, and how often that made the user load the page again. */
  readonly cuts: number;
  readonly reloads: number;
  close(): Promise<void>;
}

/** Cuts the first few streams somewhere; histories get through. */
class Network {
  private readonly limits = new Map<number, number>();
  private constructor(readonly proxy: CuttingProxy) {}

  static async begin(server: TestServer, chance: Random): Promise<Network> {
    const network = new Network(await CuttingProxy.begin(server.port));
    let left = 1 + Math.floor(chance() * 4);
    network.proxy.plan = ({ number, method, path }: ProxiedRequest) => {
      if (method === "GET" && (path.endsWith("/messages") || path.includes("threadId="))) return undefined;
      if (left-- <= 0) return undefined;
      // The head alone has about 500 bytes.
      const cutAfter = Math.floor(chance() * 3000);
      network.limits.set(number, cutAfter);
      return { cutAfter };
    };
    return network;
  }

  /** Requests whose answer was cut. */
  get cut(): number[] {
    return [...this.limits]
      .filter(([number, limit]) => this.proxy.bytes[number] === limit)
      .map(([number]) => number);
  }
}

const EXPECTED_ERRORS = ["The model is tired.", "The reply failed. Please try again."];

const MEDIA_TYPE = "image/png";

function aiSdkMessage({ say: text, image }: Exclude<Move, "again">) {
  return { text, ...(image && { files: [{ type: "file", mediaType: MEDIA_TYPE, url: image }] }) };
}

function tanStackMessage({ say: content, image }: Exclude<Move, "again">) {
  if (image === undefined) return content;
  const [head, data] = image.split(";base64,");
  const source = data
    ? ({ type: "data", value: data, mimeType: MEDIA_TYPE } as const)
    : ({ type: "url", value: head as string, mimeType: MEDIA_TYPE } as const);
  return {
    content: [
      { type: "text" as const, content },
      { type: "image" as const, source },
    ],
  };
}

export async function aiSdkPerson(
  server: TestServer,
  id: string,
  major: Major,
  kind: Kind,
  chance: Random,
): Promise<Person> {
  const network = await Network.begin(server, chance);
  const { proxy } = network;
  const headers = { "Strandline-Client": `test; ai=${major}` };
  const retry = { minDelayMs: 1, maxDelayMs: 10, giveUpAfterMs: 30_000 };
  const options = { major, kind, url: proxy.url, id, headers, transport: { retry }, answers: false };
  let client: Client | undefined;
  let reloads = 0;

  async function load(): Promise<number> {
    const before = network.cut.length;
    await client?.chat.stop();
    const page = await open(options);
    client = page.client;
    await page.done;
    return before;
  }

  /** A stock chat takes a cut for an end, or says that something went wrong. */
  async function settle(before: number): Promise<void> {
    let seen = before;
    while (kind === "stock" && network.cut.length > seen) {
      reloads += 1;
      seen = await load();
    }
    const unexpected = client?.errors.filter(({ message }) => !EXPECTED_ERRORS.includes(message));
    if (unexpected !== undefined && unexpected.length > 0) throw unexpected[0];
  }

  return {
    name: `ai@${major} ${kind}`,
    get cuts() {
      return network.cut.length;
    },
    get reloads() {
      return reloads;
    },
    async read() {
      await settle(await load());
    },
    async act(move) {
      client ??= new Client(options);
      const before = network.cut.length;
      if (move === "again") await client.chat.regenerate();
      else await client.chat.sendMessage(aiSdkMessage(move));
      await settle(before);
    },
    shown: () => ofAiSdk(client?.chat.messages ?? []),
    keepsOthers: true,
    async close() {
      await client?.chat.stop();
      await proxy.close();
    },
  };
}

export async function tanStackPerson(server: TestServer, thread: string, chance: Random): Promise<Person> {
  const network = await Network.begin(server, chance);
  const { proxy } = network;
  let page: TanStackPage | undefined;
  let reloads = 0;

  /** By reply: what it has besides text, reasoning and tools, if that came as events and not with the history. */
  const others = new Map<string, Said["others"]>();

  function shown(): Said[] {
    return ofTanStack(page?.messages ?? []).map((said) => ({
      ...said,
      others: others.get(said.id) ?? said.others,
    }));
  }

  function remember(): void {
    const last = shown().at(-1);
    const events = page?.customs.splice(0) ?? [];
    if (last !== undefined && last.others.length === 0) {
      others.set(last.id, othersOf(events.map(({ name, value }) => ({ type: name, ...value }))));
    }
  }

  /** Nothing but an end of its own making, or an error: a stock client that is cut before the first frame is lost. */
  const isLost = ({ errors, events }: TanStackPage) =>
    events[0] !== "RUN_STARTED" || errors.some(({ message }) => !EXPECTED_ERRORS.includes(message));

  /** Whether the page is through with what it was loaded for; it may have been cut before it had anything. */
  async function load(): Promise<boolean> {
    const before = network.cut.length;
    page?.close();
    others.clear();
    const opened = TanStackPage.opened({ url: proxy.url, thread });
    page = opened;
    await server.settled(thread);
    const replies = ofTanStack((await hydrated(server.url, thread)).messages).length;
    const isThere = () => ofTanStack(opened.messages).length === replies;
    const isCut = () => network.cut.length > before && isLost(opened);
    await eventually("the page is quiet", () => !opened.chat.getIsLoading() && (isThere() || isCut()));
    return isThere() && !(opened.events.length > 0 && isCut());
  }

  const person: Person = {
    name: "TanStack AI",
    get cuts() {
      return network.cut.length;
    },
    get reloads() {
      return reloads;
    },
    async read() {
      while (!(await load())) reloads += 1;
      remember();
    },
    async act(move) {
      page ??= new TanStackPage({ url: proxy.url, thread });
      const { chat, events, errors } = page;
      events.length = errors.length = 0;
      const before = network.cut.length;
      if (move === "again") await chat.reload();
      else await chat.sendMessage(tanStackMessage(move));
      if (!isLost(page)) return remember();
      if (network.cut.length === before) throw page.errors[0] ?? new Error("nothing came");
      reloads += 1;
      await person.read();
    },
    shown,
    keepsOthers: true,
    async close() {
      page?.close();
      await proxy.close();
    },
  };
  return person;
}

/** With our connection: one page for the whole conversation, which never has to be loaded again. */
export async function livePerson(server: TestServer, thread: string, chance: Random): Promise<Person> {
  const network = await Network.begin(server, chance);
  const { proxy } = network;
  const page = TanStackPage.live({ url: proxy.url, thread });
  const person: Person = {
    name: "TanStack AI, live",
    get cuts() {
      return network.cut.length;
    },
    reloads: 0,
    async read() {
      const { messages } = await server.settled(thread);
      await eventually("the page is up to date", () => {
        const isQuiet = !page.chat.getIsLoading() && !page.chat.getSessionGenerating();
        return isQuiet && ofTanStack(page.messages).at(-1)?.id === messages.at(-1)?.id;
      });
      const wrong = page.errors.filter(({ message }) => !EXPECTED_ERRORS.includes(message));
      if (wrong.length > 0) throw wrong[0];
    },
    async act(move) {
      if (move === "again") await page.chat.reload();
      else await page.chat.sendMessage(tanStackMessage(move));
      await person.read();
    },
    shown: () => ofTanStack(page.messages),
    keepsOthers: false,
    async close() {
      page.close();
      await proxy.close();
    },
  };
  return person;
}
