import type { DynamicToolUIPart, ToolUIPart, UIMessage } from "ai";
import { useState } from "react";
import { Approval } from "./Approval";
import { ChevronIcon, ToolIcon } from "./icons";
import type { OpenChat } from "./useOpenChat";

type AnyTool = ToolUIPart | DynamicToolUIPart;

export function isTool(part: UIMessage["parts"][number]): part is AnyTool {
  return part.type === "dynamic-tool" || part.type.startsWith("tool-");
}

const STATES: Record<string, string> = {
  "input-streaming": "Writing the input",
  "input-available": "Running",
  "approval-requested": "Waiting for approval",
  "approval-responded": "Approved, running",
  "output-available": "Done",
  "output-error": "Failed",
  "output-denied": "Denied",
};

const json = (value: unknown) => (typeof value === "string" ? value : (JSON.stringify(value, null, 2) ?? ""));

/** A tool call: its name and state, and what went in and came out. */
export function Tool({ chat, messageId, part }: { chat: OpenChat; messageId: string; part: AnyTool }) {
  const [open, setOpen] = useState(true);
  const name = part.type === "dynamic-tool" ? part.toolName : part.type.slice("tool-".length);
  const failed = part.state === "output-error" || part.state === "output-denied";
  const active = part.state === "input-streaming" || part.state === "input-available";
  const { approval } = part;
  return (
    <section className="tool" data-testid="tool" data-state={part.state} aria-label={`Tool ${name}`}>
      <button type="button" className="tool-head" aria-expanded={open} onClick={() => setOpen(!open)}>
        <ToolIcon />
        <code className="tool-name">{name}</code>
        <span className={`tool-state${failed ? " tool-failed" : ""}${active ? " shimmer" : ""}`}>
          {STATES[part.state] ?? part.state}
        </span>
        <ChevronIcon />
      </button>
      {open && (
        <div className="tool-body">
          {part.input !== undefined && (
            <div>
              <h4>Input</h4>
              <pre>{json(part.input)}</pre>
            </div>
          )}
          {part.state === "output-available" && (
            <div>
              <h4>Output</h4>
              <pre>{json(part.output)}</pre>
            </div>
          )}
          {part.state === "output-error" && <p className="tool-error">{part.errorText}</p>}
          {approval?.approved !== undefined && (
            <p className="tool-decided" data-testid="decided">
              {approval.approved ? "Approved" : "Denied"}
              {approval.reason && ` · ${approval.reason}`}
            </p>
          )}
        </div>
      )}
      <Approval
        chat={chat}
        messageId={messageId}
        toolCallId={part.toolCallId}
        reason={approval?.requestReason}
      />
    </section>
  );
}
