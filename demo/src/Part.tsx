import type { UIMessage } from "ai";
import { Prose } from "./Prose";
import { Reasoning } from "./Reasoning";
import { isTool, Tool } from "./Tool";
import type { OpenChat } from "./useOpenChat";

type AnyPart = UIMessage["parts"][number];

interface Props {
  chat: OpenChat;
  messageId: string;
  part: AnyPart;
  isUser: boolean;
  /** The part that is being written. */
  live: boolean;
}

/** Would showing this image ask another host for something? The page talks to its own server only. */
const isLocal = (url: string) => {
  try {
    const { origin, protocol } = new URL(url, location.href);
    return protocol === "data:" || protocol === "blob:" || origin === location.origin;
  } catch {
    return false;
  }
};

/** Links from a reply open http and mail addresses only. */
const safeHref = (url: string) => (/^(https?:|mailto:)/i.test(url) || isLocal(url) ? url : undefined);

/** JSON on one line while it is short. */
function small(value: unknown): string {
  const line = JSON.stringify(value) ?? "";
  return line.length <= 80 ? line : JSON.stringify(value, null, 2);
}

function FileView({
  url,
  mediaType,
  filename,
}: {
  url: string;
  mediaType: string;
  filename?: string | undefined;
}) {
  const name = filename || mediaType;
  if (mediaType.startsWith("image/") && isLocal(url)) return <img className="image" src={url} alt={name} />;
  return (
    <a className="attachment" href={safeHref(url)} target="_blank" rel="noreferrer" download={filename}>
      {name}
    </a>
  );
}

/** How far something is (PROTOCOL §17.8): the newest word on it, where it was first said. */
function Progress({ data }: { data: unknown }) {
  const { label, done, of } = data as { label: string; done: number; of: number };
  return (
    <label className="progress">
      <span>{label}</span>
      <progress value={done} max={of} />
      <span>
        {done} / {of}
      </span>
    </label>
  );
}

export function Part({ chat, messageId, part, isUser, live }: Props) {
  if (part.type === "text") {
    if (part.text === "") return null;
    return isUser ? <p className="plain">{part.text}</p> : <Prose text={part.text} />;
  }
  if (part.type === "reasoning") return <Reasoning text={part.text} live={live} />;
  if (isTool(part)) return <Tool chat={chat} messageId={messageId} part={part} />;
  if (part.type === "steering-message") {
    const said = part.parts.map((one) => (one.type === "text" ? one.text : "")).join("\n");
    return (
      <aside className="told" data-testid="told">
        <span>You, meanwhile</span>
        <p className="plain">{said}</p>
      </aside>
    );
  }
  if (part.type === "data-progress") return <Progress data={"data" in part ? part.data : null} />;
  if (part.type === "source-url") {
    return (
      <a className="source" href={safeHref(part.url)} target="_blank" rel="noreferrer">
        {part.title || part.url}
      </a>
    );
  }
  if (part.type === "source-document") return <span className="source">{part.title}</span>;
  if (part.type === "file") return <FileView {...part} />;
  if (part.type.startsWith("data-")) {
    return (
      <figure className="data">
        <figcaption>{part.type.slice("data-".length)}</figcaption>
        <pre>{small("data" in part ? part.data : null)}</pre>
      </figure>
    );
  }
  return null;
}
