/** Real TanStack AI chats, with the stock connection and without a framework around them, that remember what happened. */
import { ChatClient, type ChatClientState, fetchServerSentEvents, type UIMessage } from "@tanstack/ai-client";
import { eventually } from "./support.js";

export interface TanStackOptions {
  url: string;
  thread: string;
  /** Between two attempts of the stock connection; its own default is 250. */
  delayMs?: number;
  pageSize?: number;
}

/** A message as both a client and history show it. */
export interface Plain {
  id: string;
  role: string;
  parts: unknown[];
}

export class TanStackPage {
  readonly chat: ChatClient;
  readonly errors: Error[] = [];
  readonly statuses: ChatClientState[] = [];
  /** Types of every event that was let through. */
  readonly events: string[] = [];
  /** Every text that was visible in the last message. */
  readonly texts: string[] = [];

  constructor(readonly options: TanStackOptions) {
    this.chat = new ChatClient({
      connection: fetchServerSentEvents(`${options.url}/api/tanstack`, {
        reconnect: { delayMs: options.delayMs ?? 5 },
      }),
      threadId: options.thread,
      persistence: true,
      ...(options.pageSize === undefined ? {} : { history: { pageSize: options.pageSize } }),
      onError: (error) => void this.errors.push(error),
      onStatusChange: (status) => void this.statuses.push(status),
      onChunk: (chunk) => void this.events.push(chunk.type),
      onMessagesChange: () => void this.texts.push(this.text),
    });
  }

  /** What a page does when it is shown: load the conversation, and join what is being written. */
  static opened(options: TanStackOptions): TanStackPage {
    const page = new TanStackPage(options);
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
