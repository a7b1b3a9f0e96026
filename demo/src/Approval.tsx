import { useState } from "react";
import { device } from "./device";
import type { OpenChat } from "./useOpenChat";

interface Props {
  chat: OpenChat;
  messageId: string;
  toolCallId: string;
  /** Why the agent asks. */
  reason: string | undefined;
}

/** A tool call that waits for a yes or a no, on every device. The first answer counts. */
export function Approval({ chat, messageId, toolCallId, reason }: Props) {
  const { session } = chat;
  const [deciding, setDeciding] = useState(false);
  const decision = session.decisions.find(
    (one) => one.messageId === messageId && one.toolCallId === toolCallId,
  );
  if (decision === undefined) return null;

  const decide = (approved: boolean) =>
    chat.attempt(async () => {
      setDeciding(true);
      try {
        // Everybody is one user in the demo, so the reason says who it was.
        await session.decide(decision.id, { approved, reason: `decided on ${device}` });
      } finally {
        setDeciding(false);
      }
    });
  return (
    <div className="approval" data-testid="approval">
      <p>{reason}</p>
      <button
        type="button"
        className="button small"
        data-testid="deny"
        disabled={deciding}
        onClick={() => decide(false)}
      >
        Deny
      </button>
      <button
        type="button"
        className="button small primary"
        data-testid="approve"
        disabled={deciding}
        onClick={() => decide(true)}
      >
        Approve
      </button>
    </div>
  );
}
