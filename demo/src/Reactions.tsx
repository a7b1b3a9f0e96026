import { device } from "./device";
import { ThumbDownIcon, ThumbUpIcon } from "./icons";
import type { OpenChat } from "./useOpenChat";

const REACTIONS = [
  { name: "up", label: "Good reply", Icon: ThumbUpIcon },
  { name: "down", label: "Bad reply", Icon: ThumbDownIcon },
];

/** Thumbs, one of each kind per device, counted over all of them. */
export function Reactions({ chat, messageId }: { chat: OpenChat; messageId: string }) {
  const { session, annotations } = chat.session;
  const names = annotations[messageId]?.reaction?.names ?? {};

  const toggle = async (name: string) => {
    // Its id says whose it is and what about, so that it cannot be given twice.
    const id = `${name}-${device}-${messageId}`;
    if (sessionStorage.getItem(id) === null) {
      await session.annotate({ id, message: messageId, type: "reaction", data: { name } });
      sessionStorage.setItem(id, "mine");
    } else {
      await session.unannotate(id);
      sessionStorage.removeItem(id);
    }
  };
  return (
    <>
      {REACTIONS.map(({ name, label, Icon }) => {
        const count = names[name] ?? 0;
        const isMine = count > 0 && sessionStorage.getItem(`${name}-${device}-${messageId}`) !== null;
        return (
          <button
            key={name}
            type="button"
            className="text-button reaction"
            data-testid={`react-${name}`}
            aria-pressed={isMine}
            aria-label={count > 0 ? `${label}, ${count}` : label}
            title={label}
            onClick={() => chat.attempt(() => toggle(name))}
          >
            <Icon />
            {count > 0 && <span>{count}</span>}
          </button>
        );
      })}
    </>
  );
}
