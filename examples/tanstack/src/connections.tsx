import { fetchServerSentEvents, useChat } from "@tanstack/ai-react";
import { useState } from "react";
import { strandlineConnection } from "strandline/tanstack";
import { Chat } from "./Chat.js";

const url = "/api/tanstack";

/** Our connection: every device shows what happens on the others, and a reply survives any number of cuts. */
export function Live({ threadId }: { threadId: string }) {
  const [connection] = useState(() => strandlineConnection({ url, threadId }));
  const chat = useChat({ connection, threadId, persistence: true, live: true });
  return <Chat chat={chat} title="live" stop={() => connection.stop()} />;
}

/** TanStack's own: nothing of Strandline in the browser. A reply survives drops and a reload of the page. */
export function Stock({ threadId }: { threadId: string }) {
  const [connection] = useState(() => fetchServerSentEvents(url));
  const chat = useChat({ connection, threadId, persistence: true });
  // chat.stop() only hangs up, and hanging up never ends a run. This does; the end comes by the stream.
  const stop = () =>
    fetch(`${url}/stop`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ threadId }),
    });
  return <Chat chat={chat} title="stock" stop={stop} />;
}
