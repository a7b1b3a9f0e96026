/** What was sent from here and is not in the log yet: shown at once, until the log has it or never will. */
import type { SessionMessage } from "./fold.js";

export interface Outbox {
  /** The result takes it out again: it was refused. `answered` is told when the server has it. */
  put(message: SessionMessage): { answered(): void; takeOut(): void };
  /** The feed is asked for now: a snapshot that it begins with has everything that was answered before. */
  asked(): void;
  /** This message is in the log. */
  arrived(id: unknown): void;
  /** A snapshot came, with these messages. */
  compared(messages: readonly SessionMessage[]): void;
  /** The messages of the session, and what was sent after them. */
  shown(messages: readonly SessionMessage[]): readonly SessionMessage[];
}

/** `answered`: the server has it. `isDue`: the next snapshot has it, or it is off the path again. */
interface Item {
  message: SessionMessage;
  answered: boolean;
  isDue: boolean;
}

export function createOutbox(): Outbox {
  let items: readonly Item[] = [];
  const keep = (isKept: (item: Item) => boolean) => {
    items = items.filter(isKept);
  };
  return {
    put(message) {
      const mine: Item = { message: { ...message, pending: true }, answered: false, isDue: false };
      items = [...items, mine];
      return {
        answered() {
          mine.answered = true;
        },
        takeOut: () => keep((item) => item !== mine),
      };
    },
    asked() {
      for (const item of items) item.isDue = item.answered;
    },
    arrived: (id) => keep(({ message }) => message.id !== id),
    compared: (messages) =>
      keep(({ message, isDue }) => !isDue && messages.every(({ id }) => id !== message.id)),
    shown(messages) {
      for (const { message } of items) {
        // An edit takes the place of its message, and of what followed it.
        const index = messages.findIndex(({ id }) => id === message.id);
        messages = [...(index < 0 ? messages : messages.slice(0, index)), message];
      }
      return messages;
    },
  };
}
