import { redirect } from "next/navigation";
import { Chat } from "./Chat";

const PYTHON = process.env.STRANDLINE_URL ?? "http://127.0.0.1:8000";

interface Props {
  searchParams: Promise<{ chat?: string; via?: string }>;
}

/** `/` begins a chat. The browser talks to Python directly, or with `via=next` through the rewrite of this server. */
export default async function Page({ searchParams }: Props) {
  const { chat, via } = await searchParams;
  const query = via === undefined ? "" : `&via=${encodeURIComponent(via)}`;
  if (chat === undefined) redirect(`/?chat=${await newChat()}${query}`);
  return <Chat id={chat} server={via === "next" ? "" : PYTHON} />;
}

/** It exists before its first message, so that a second device can wait for that. */
async function newChat(): Promise<string> {
  const headers = { "Content-Type": "application/json" }; // and, where people sign in, whoever this request is from
  const answer = await fetch(`${PYTHON}/api/sessions`, { method: "POST", headers, body: "{}" });
  const { session } = await answer.json();
  return session.id;
}
