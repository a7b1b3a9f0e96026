/**
 * Not run, only checked by `tsc`: `useSessionSync`, as it is published, takes the `useChat` of ai 5, 6 and 7 and gives the
 * same thing back. (Needs `npm run build -w js-adapter`.)
 */

import type { UseChatHelpers as Chat5 } from "ai-react5";
import type { UseChatHelpers as Chat6 } from "ai-react6";
import type { UseChatHelpers as Chat7 } from "ai-react7";
import type { UIMessage as Message5 } from "ai5";
import type { UIMessage as Message6 } from "ai6";
import type { UIMessage as Message7 } from "ai7";
import { createSessions } from "strandline";
import { type SessionHandle, useSession, useSessionSync, useStop } from "strandline/react";

type Typed7 = Message7<{ model: string }, { weather: { city: string } }>;

export function useEverything(chat5: Chat5<Message5>, chat6: Chat6<Message6>, chat7: Chat7<Typed7>) {
  const session: SessionHandle = useSession("c1", { sessions: createSessions() });
  const for5: Chat5<Message5> = useSessionSync(chat5, session);
  const for6: Chat6<Message6> = useSessionSync(chat6, session);
  const for7 = useSessionSync(chat7, session);
  const same: Chat7<Typed7> = for7;
  const unsent: readonly Typed7[] = for7.unsent;
  const stopped: Promise<void> = for7.stop();
  const status: Promise<string> = useStop(session)
    .stop({ reason: "enough" })
    .then((result) => result.status);
  void for7.sendMessage({ text: "hello" }, { body: { model: "m" } });
  // @ts-expect-error what is sent is what the chat says
  void for7.sendMessage({ txt: "" });
  return [for5, for6, same, unsent, stopped, status];
}
