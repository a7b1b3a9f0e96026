/** Real AI SDK chats of all three majors, without a framework around them, that remember what happened to them. */

import * as ai5 from "ai5";
import * as ai6 from "ai6";
import * as ai7 from "ai7";
import {
  type StrandlineTransport,
  type StrandlineTransportOptions,
  strandlineTransport,
} from "strandline/ai-sdk";
import type { History, Message } from "./server.js";
import { eventually } from "./support.js";

export const MAJORS = [5, 6, 7] as const;
export type Major = (typeof MAJORS)[number];
export type Kind = "stock" | "ours";

/** Every combination, for `describe.each`. */
export const COMBINATIONS = MAJORS.flatMap((major) =>
  (["stock", "ours"] as const).map((kind) => ({ major, kind, name: `ai@${major}, ${kind} transport` })),
);

export interface Finish {
  message: Message;
  isAbort: boolean;
  isDisconnect: boolean;
  isError: boolean;
}

type Status = "submitted" | "streaming" | "ready" | "error";

/** What the three versions of `AbstractChat` have in common. */
interface AnyChat {
  readonly id: string;
  readonly status: Status;
  readonly error: Error | undefined;
  messages: Message[];
  sendMessage(message?: { text: string; messageId?: string }): Promise<void>;
  addToolApprovalResponse(answer: { id: string; approved: boolean; reason?: string }): Promise<void>;
  addToolOutput(answer: ToolOutput): Promise<void>;
  regenerate(options?: { messageId?: string }): Promise<void>;
  resumeStream(options?: object): Promise<void>;
  stop(): Promise<void>;
  clearError(): void;
}

type ToolOutput = { tool: string; toolCallId: string } & (
  | { output: unknown }
  | { state: "output-error"; errorText: string }
);

/** Sends answers by itself when everything is answered, as applications do. */
const whenAnswered = {
  5: ai5.lastAssistantMessageIsCompleteWithToolCalls,
  6: (chat: { messages: ai6.UIMessage[] }) =>
    ai6.lastAssistantMessageIsCompleteWithToolCalls(chat) ||
    ai6.lastAssistantMessageIsCompleteWithApprovalResponses(chat),
  7: (chat: { messages: ai7.UIMessage[] }) =>
    ai7.lastAssistantMessageIsCompleteWithToolCalls(chat) ||
    ai7.lastAssistantMessageIsCompleteWithApprovalResponses(chat),
};

/** The state of a chat that shows nothing; remembers every status, and every text of an assistant that was visible. */
class State {
  statuses: Status[] = [];
  error: Error | undefined = undefined;
  private current: Status = "ready";

  constructor(public messages: never[]) {}

  get status(): Status {
    return this.current;
  }
  set status(status: Status) {
    this.current = status;
    if (this.statuses.at(-1) !== status) this.statuses.push(status);
  }
  pushMessage = (message: unknown) => {
    this.messages = [...this.messages, message as never];
  };
  popMessage = () => {
    this.messages = this.messages.slice(0, -1);
  };
  replaceMessage = (index: number, message: unknown) => {
    this.messages = [...this.messages.slice(0, index), message as never, ...this.messages.slice(index + 1)];
  };
  snapshot = <T>(thing: T): T => structuredClone(thing);
}

class Chat5 extends ai5.AbstractChat<ai5.UIMessage> {}
class Chat6 extends ai6.AbstractChat<ai6.UIMessage> {}
class Chat7 extends ai7.AbstractChat<ai7.UIMessage> {}
const CHATS = { 5: Chat5, 6: Chat6, 7: Chat7 };

const stock = (major: Major, api: string, headers: Record<string, string> = {}): unknown => {
  if (major === 5) return new ai5.DefaultChatTransport({ api, headers });
  if (major === 6) return new ai6.DefaultChatTransport({ api, headers });
  return new ai7.DefaultChatTransport({ api, headers });
};

export interface ClientOptions {
  major: Major;
  kind: Kind;
  /** Where the server or a proxy is. */
  url: string;
  id: string;
  messages?: Message[];
  transport?: StrandlineTransportOptions;
  /** A transport of ours that was made elsewhere. */
  made?: StrandlineTransport;
  /** Of the stock transport. */
  headers?: Record<string, string>;
  /** False where a stock chat may take a cut for the end of a reply: it would send back half of one, and be refused. */
  answers?: boolean;
  onToolCall?(call: { toolCall: { toolName: string; toolCallId: string } }): void;
}

/** Quick enough for tests, patient enough for a restart. */
const RETRY = { minDelayMs: 5, maxDelayMs: 100, giveUpAfterMs: 30_000 };

export class Client {
  readonly chat: AnyChat;
  readonly finishes: Finish[] = [];
  readonly errors: Error[] = [];
  readonly state: State;
  /** The transport, if it is ours. */
  readonly ours: StrandlineTransport | undefined;

  constructor(readonly options: ClientOptions) {
    const { major, kind, url, id, messages = [], headers } = options;
    const api = `${url}/api/chat`;
    this.ours =
      options.made ??
      (kind === "ours"
        ? strandlineTransport({ api, ai: major, retry: RETRY, ...options.transport })
        : undefined);
    this.state = new State(messages as never[]);
    const init = {
      id,
      state: this.state,
      transport: this.ours ?? stock(major, api, headers),
      sendAutomaticallyWhen: options.answers === false ? () => false : whenAnswered[major],
      onToolCall: options.onToolCall,
      onFinish: (finish: Finish) => void this.finishes.push(finish),
      onError: (error: Error) => void this.errors.push(error),
    };
    this.chat = new CHATS[major](init as never) as unknown as AnyChat;
  }

  get id(): string {
    return this.chat.id;
  }

  /** The new Chat of a page that was loaded again: the history, then `resume`. Resolves when the resuming is over. */
  async reload(changes: Partial<ClientOptions> = {}): Promise<Client> {
    const { client, done } = await this.reloading(changes);
    await done;
    return client;
  }

  /** The same, without waiting for the end of the stream; the old page is gone. */
  async reloading(
    changes: Partial<ClientOptions> = {},
  ): Promise<{ client: Client; done: Promise<void>; history: History }> {
    void this.chat.stop().catch(() => {}); // As a page that is left: whatever it had open is aborted.
    return open({ ...this.options, ...changes });
  }

  get assistants(): Message[] {
    return this.chat.messages.filter(({ role }) => role === "assistant");
  }

  /** The text that the last assistant message shows. */
  get text(): string {
    return textOf(this.assistants.at(-1));
  }

  /** Resolves when at least so many characters are shown. */
  async shows(characters: number): Promise<void> {
    await eventually(
      `${this.id} shows ${characters} characters`,
      () => this.text.length >= characters,
      15_000,
      1,
    );
  }

  async until(status: Status, ms = 20_000): Promise<void> {
    await eventually(
      `${this.id} is ${status} (now ${this.chat.status})`,
      () => this.chat.status === status,
      ms,
      1,
    );
  }
}

/** A page: loads the history of a session and resumes what is active. */
export async function open(
  options: Omit<ClientOptions, "messages">,
): Promise<{ client: Client; done: Promise<void>; history: History }> {
  const response = await fetch(`${options.url}/api/chat/${encodeURIComponent(options.id)}/messages`);
  if (!response.ok) throw new Error(`messages: ${response.status}`);
  const history = (await response.json()) as History;
  const client = new Client({ ...options, messages: history.messages });
  return { client, done: client.chat.resumeStream(), history };
}

export const textOf = (message: Message | undefined): string =>
  (message?.parts ?? []).map((part) => (part.type === "text" ? part.text : "")).join("");

/** What `toEqual` compares: JSON's idea of the messages. */
export const plain = <T>(value: T): T => JSON.parse(JSON.stringify(value)) as T;
