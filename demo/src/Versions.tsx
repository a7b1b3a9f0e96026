import { BackIcon, ChevronIcon } from "./icons";
import type { OpenChat } from "./useOpenChat";

/** ‹ 2 / 3 ›: the edits of a question, or the replies to it. Every device goes along. */
export function Versions({ chat, messageId }: { chat: OpenChat; messageId: string }) {
  const { session } = chat;
  const branch = session.branches[messageId];
  if (branch === undefined) return null;
  const { index, count } = branch;
  const go = (to: number) => chat.attempt(() => session.selectBranch(messageId, to));
  return (
    <span className="versions" data-testid="versions">
      <button
        type="button"
        className="text-button"
        data-testid="version-before"
        disabled={index === 0}
        onClick={() => go(index - 1)}
        aria-label="Earlier version"
      >
        <BackIcon />
      </button>
      <span>
        {index + 1} / {count}
      </span>
      <button
        type="button"
        className="text-button"
        data-testid="version-after"
        disabled={index === count - 1}
        onClick={() => go(index + 1)}
        aria-label="Later version"
      >
        <ChevronIcon />
      </button>
    </span>
  );
}
