import type { UIMessage } from "ai";
import { AgentIcon } from "./icons";
import { Part } from "./Part";
import type { OpenChat } from "./useOpenChat";

/** What other agents say beside a reply: each has a run of its own, and its own end. */
export function Colleagues({ chat, messageId }: { chat: OpenChat; messageId: string }) {
  const { spawned, runs, stop } = chat.session;
  const beside = spawned.filter(({ parent }) => parent === messageId);
  if (beside.length === 0) return null;
  return (
    <ul className="colleagues" aria-label="Other agents">
      {beside.map(({ run, agent, message }) => {
        const status = runs.find(({ id }) => id === run)?.status ?? "completed";
        const { parts } = message as unknown as UIMessage;
        return (
          <li key={run} data-testid="colleague" data-agent={agent} data-status={status}>
            <header>
              <AgentIcon />
              <b>{agent}</b>
              <span className={`run-status run-${status}`}>{status}</span>
              {(status === "running" || status === "queued") && (
                <button
                  type="button"
                  className="text-button"
                  data-testid="colleague-stop"
                  aria-label={`Stop ${agent}`}
                  onClick={() => chat.attempt(() => stop({ run }))}
                >
                  Stop
                </button>
              )}
            </header>
            {parts.map((part, index) => (
              <Part
                // biome-ignore lint/suspicious/noArrayIndexKey: parts only grow at the end and have no id of their own
                key={index}
                chat={chat}
                messageId={message.id}
                part={part}
                isUser={false}
                live={false}
              />
            ))}
          </li>
        );
      })}
    </ul>
  );
}
