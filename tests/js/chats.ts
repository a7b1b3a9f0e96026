/** The real chat of every major version of the AI SDK, with its state in memory. */
import * as ai5 from "ai5";
import * as ai6 from "ai6";
import * as ai7 from "ai7";
import type { StrandlineTransport } from "strandline/ai-sdk";

type Message = ai7.UIMessage;

class MemoryState implements ai7.ChatState<Message> {
  status: ai7.ChatStatus = "ready";
  error: Error | undefined = undefined;
  messages: Message[];
  readonly history: ai7.ChatStatus[] = [];

  constructor(messages: Message[]) {
    this.messages = messages;
  }
  pushMessage = (message: Message) => {
    this.messages = [...this.messages, message];
  };
  popMessage = () => {
    this.messages = this.messages.slice(0, -1);
  };
  replaceMessage = (index: number, message: Message) => {
    // As @ai-sdk/react does: what is shown is a copy.
    this.messages = this.messages.with(index, this.snapshot(message));
  };
  snapshot = <T>(thing: T): T => structuredClone(thing);
}

export interface Finish {
  isAbort: boolean;
  isDisconnect: boolean;
  isError: boolean;
}

export const MAJORS = [5, 6, 7] as const;
export type Major = (typeof MAJORS)[number];

// The three classes are used through the type of the newest; what the tests use of them is the same in all.
const modules = { 5: ai5, 6: ai6, 7: ai7 } as unknown as Record<Major, typeof ai7>;

export function openChat(major: Major, transport: StrandlineTransport, id = "c1", messages: Message[] = []) {
  const { AbstractChat } = modules[major];
  const finishes: Finish[] = [];
  const errors: Error[] = [];
  class MemoryChat extends AbstractChat<Message> {}
  const chat = new MemoryChat({
    id,
    transport,
    state: new MemoryState(messages),
    onFinish: ({ isAbort, isDisconnect, isError }) => void finishes.push({ isAbort, isDisconnect, isError }),
    onError: (error) => void errors.push(error),
  });
  return { chat, finishes, errors };
}
