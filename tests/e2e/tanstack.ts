/** Real TanStack AI chats, with the stock connection or ours and without a framework, that remember what happened. */
import { isDeepStrictEqual } from "node:util";
import type { AnyClientTool, StreamChunk } from "@tanstack/ai/client";
import { ChatClient, type ChatClientState, fetchServerSentEvents, type UIMessage } from "@tanstack/ai-client";
import {
  type InternalOptions,
  type StrandlineConnection,
  type StrandlineConnectionOptions,
  type StreamStatus,
  strandlineConnection,
} from "strandline/tanstack";
import { expect } from "vitest";
import type { TestServer } from "./server.js";
import { eventually } from "./support.js";

export interface TanStackOptions {
  url: string;
  thread: string;
  /** Between two attempts of the stock connection; its own default is 250. */
  delayMs?: number;
  /** Of the stock connection. */
  headers?: Record<string, string>;
  pageSize?: number;
  /** Tools that run in the page. */
  tools?: AnyClientTool[];
  /** With our connection, and these options. */
  ours?: Partial<StrandlineConnectionOptions & InternalOptions>;
  /** Default true. */
  persistence?: boolean;
}

/** A message as both a client and history show it. */
export interface Plain {
  id: string;
  role: string;
  parts: unknown[];
}

/** Quick enough for tests, patient enough for a restart. */
const QUICK = { minDelayMs: 5, maxDelayMs: 60, giveUpAfterMs: 20_000 };

export class TanStackPage {
  readonly chat: ChatClient;
  readonly errors: Error[] = [];
  readonly statuses: ChatClientState[] = [];
  /** Types of every event that was let through. */
  readonly events: string[] = [];
  /** What came in `CUSTOM` events. */
  readonly customs: { name: string; value: Record<string, unknown> }[] = [];
  /** Every text that was visible in the last message. */
  readonly texts: string[] = [];
  readonly ours: StrandlineConnection | undefined;
  /** Of our connection. */
  readonly network: StreamStatus[] = [];

  constructor(readonly options: TanStackOptions) {
    const { thread: threadId, persistence = true } = options;
    const url = `${options.url}/api/tanstack`;
    this.ours =
      options.ours &&
      strandlineConnection({
        url,
        threadId,
        retry: QUICK,
        onStatus: (status) => void this.network.push(status),
        ...options.ours,
      });
    const shared = {
      connection:
        this.ours ??
        fetchServerSentEvents(url, {
          reconnect: { delayMs: options.delayMs ?? 5 },
          headers: options.headers ?? {},
        }),
      threadId,
      ...(options.tools && { tools: options.tools }),
      onError: (error: Error) => void this.errors.push(error),
      onStatusChange: (status: ChatClientState) => void this.statuses.push(status),
      onChunk: (chunk: StreamChunk) => void this.events.push(chunk.type),
      onCustomEvent: (name: string, value: unknown) =>
        void this.customs.push({ name, value: value as Record<string, unknown> }),
      onMessagesChange: () => void this.texts.push(this.text),
    };
    const history = options.pageSize === undefined ? {} : { history: { pageSize: options.pageSize } };
    this.chat = new ChatClient(persistence ? { ...shared, persistence, ...history } : shared);
  }

  /** What a page does when it is shown: load the conversation, and join what is being written. */
  static opened(options: TanStackOptions): TanStackPage {
    const page = new TanStackPage(options);
    page.chat.attach();
    return page;
  }

  /** With our connection and `live`, in the order of React's `useChat` (@tanstack/ai-react@0.27.3). */
  static live(options: TanStackOptions): TanStackPage {
    const page = new TanStackPage({ ours: {}, ...options });
    page.chat.subscribe();
    page.chat.attach();
    return page;
  }

  get messages(): UIMessage[] {
    return this.chat.getMessages();
  }

  get replies(): UIMessage[] {
    return this.messages.filter(({ role }) => role === "assistant");
  }

  /** The text of the last reply. */
  get text(): string {
    const last = this.chat?.getMessages().at(-1);
    return last?.role === "assistant" ? textOf(last) : "";
  }

  /** The page goes away, as a tab that is closed. */
  close(): void {
    this.chat.detach();
    this.chat.dispose();
  }

  /** The page is loaded again. */
  reloaded(more: Partial<TanStackOptions> = {}): TanStackPage {
    this.close();
    return TanStackPage.opened({ ...this.options, ...more });
  }

  /** Resolves when the last reply says this and nothing is going on. */
  shows(text: string): Promise<void> {
    return this.until(
      `it shows ${JSON.stringify(text)}`,
      () => this.text === text && !this.chat.getIsLoading(),
    );
  }

  /** Resolves when more than so many characters of the last reply are there. */
  begun(length: number): Promise<void> {
    return this.until(`it shows more than ${length} characters`, () => this.text.length > length);
  }

  private async until(what: string, look: () => boolean): Promise<void> {
    try {
      await eventually(what, look, 15_000);
    } catch (error) {
      const { text, errors, events, statuses } = this;
      const seen = { text, statuses, errors: errors.map(String), events: events.length };
      throw new Error(`${this.options.thread}: ${JSON.stringify(seen)}`, { cause: error });
    }
  }
}

export const textOf = (message: UIMessage): string =>
  message.parts.map((part) => (part.type === "text" ? part.content : "")).join("");

/** Without times. How the arguments of a call were spaced is known only to who saw them stream. */
export const plainOf = (messages: readonly UIMessage[]): Plain[] =>
  JSON.parse(
    JSON.stringify(messages.map(({ id, role, parts }) => ({ id, role, parts }))),
    (name, value: unknown) =>
      name === "arguments" && typeof value === "string" && value !== "" ? JSON.parse(value) : value,
  ) as Plain[];

/** Resolves when the page has nothing more to do. */
export const idle = (page: TanStackPage): Promise<unknown> =>
  eventually(
    "the page is idle",
    () =>
      page.chat.getStatus() !== "streaming" && !page.chat.getIsLoading() && !page.chat.getSessionGenerating(),
  );

/** What these live pages show is what the server has, and what a page that is loaded now shows. */
export async function agrees(server: TestServer, ...pages: TanStackPage[]): Promise<void> {
  const { thread } = (pages[0] as TanStackPage).options;
  await server.settled(thread);
  const { messages, activeRun } = await hydrated(server.url, thread);
  expect(activeRun).toBeNull();
  for (const page of pages) {
    await eventually("the page is up to date", () => page.messages.at(-1)?.id === messages.at(-1)?.id);
    await idle(page);
    await eventually(
      "the page agrees",
      () => isDeepStrictEqual(plainOf(page.messages), plainOf(messages)),
      3_000,
    )
      // Shown with its difference.
      .catch(() => expect(plainOf(page.messages)).toEqual(plainOf(messages)));
  }
  const again = TanStackPage.opened({ url: server.url, thread });
  await eventually("the page has loaded", () => again.messages.length === messages.length);
  expect(plainOf(again.messages)).toEqual(plainOf(messages));
  again.close();
}

/** `GET ?threadId=`: what a page that is loaded now is given. */
export async function hydrated(url: string, thread: string, query = "") {
  const response = await fetch(`${url}/api/tanstack?threadId=${encodeURIComponent(thread)}${query}`);
  if (!response.ok) throw new Error(`${response.status} ${await response.text()}`);
  return (await response.json()) as {
    messages: UIMessage[];
    activeRun: { runId: string } | null;
    interrupts: null;
    page: { truncated: boolean; cursor?: string };
  };
}
