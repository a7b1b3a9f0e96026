/**
 * Not run, only checked by `tsc`: the transport, as it is published, is what ai 5, 6 and 7 ask for.
 * (Needs `npm run build -w js-adapter`, because `strandline/ai-sdk` is the emitted declaration here.)
 */
import type * as ai5 from "ai5";
import type * as ai6 from "ai6";
import type * as ai7 from "ai7";
import { createSessions, type SessionView, StrandlineError, type StrandlineErrorCode } from "strandline";
import { type StopResult, strandlineTransport } from "strandline/ai-sdk";
import { sessionTransport } from "strandline/ai-sdk/sessions";

interface Metadata {
  model: string;
}
type Data = { weather: { city: string } };

const transport = strandlineTransport({ api: "/api/chat", ai: 7, retry: { minDelayMs: 1 } });

export const for5: ai5.ChatTransport<ai5.UIMessage> = transport;
export const for6: ai6.ChatTransport<ai6.UIMessage> = transport;
export const for7: ai7.ChatTransport<ai7.UIMessage> = transport;
export const forTyped5: ai5.ChatTransport<ai5.UIMessage<Metadata, Data>> = transport;
export const forTyped6: ai6.ChatTransport<ai6.UIMessage<Metadata, Data>> = transport;
export const forTyped7: ai7.ChatTransport<ai7.UIMessage<Metadata, Data>> = transport;
export const initial7: ai7.ChatInit<ai7.UIMessage> = { transport, id: "c1" };

const sessions = createSessions({ storage: sessionStorage, device: "phone", headers: () => ({ a: "b" }) });
const shared = sessionTransport({ sessions });
export const shared5: ai5.ChatTransport<ai5.UIMessage> = shared;
export const shared6: ai6.ChatTransport<ai6.UIMessage<Metadata, Data>> = shared;
export const shared7: ai7.ChatTransport<ai7.UIMessage<Metadata, Data>> = shared;
export const view: SessionView = sessions.open("c1").getSnapshot();
// @ts-expect-error what is shown is not changed in place
view.messages.push({ id: "m", role: "user", parts: [] });

export const stopped: Promise<StopResult> = transport.stop("c1", { reason: "enough" });
export const dropped: boolean = transport.drop("c1");
export const run: string | undefined = transport.activeRun("c1")?.run;
export const chunks: Promise<ReadableStream<ai7.UIMessageChunk> | null> = transport.reconnectToStream({
  chatId: "c1",
});
export const code = (error: unknown): StrandlineErrorCode | undefined =>
  error instanceof StrandlineError ? error.code : undefined;

// @ts-expect-error there is no such major version
strandlineTransport({ ai: 4 });
// @ts-expect-error a value or a function, not a promise
strandlineTransport({ headers: Promise.resolve({}) });
strandlineTransport({ headers: async () => ({ Authorization: "Bearer x" }), credentials: "include" });
strandlineTransport({
  headers: new Headers(),
  body: () => ({ model: "m" }),
  onResync: (chatId) => void chatId,
});
