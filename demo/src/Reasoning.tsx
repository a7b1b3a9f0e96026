import { useState } from "react";
import { ChevronIcon } from "./icons";

/** What the agent thought: open while it thinks, folded away afterwards, unless the reader says otherwise. */
export function Reasoning({ text, live }: { text: string; live: boolean }) {
  const [chosen, setChosen] = useState<boolean | null>(null);
  const open = chosen ?? live;
  return (
    <div className={open ? "fold fold-open" : "fold"} data-testid="reasoning">
      <button type="button" className="fold-head" aria-expanded={open} onClick={() => setChosen(!open)}>
        <ChevronIcon />
        <span className={live ? "shimmer" : undefined}>{live ? "Thinking…" : "Thinking"}</span>
      </button>
      {open && <p className="fold-body">{text}</p>}
    </div>
  );
}
