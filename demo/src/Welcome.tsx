import { ChevronIcon } from "./icons";

const PROMPTS: { text: string; note: string }[] = [
  { text: "How does Strandline work?", note: "Refresh, or drop the connection" },
  { text: "count to 200 every 100 ms", note: "Stop it in a second tab" },
  { text: "delete report.pdf", note: "Approve or deny, on any device" },
  { text: "plan 10 days in Lisbon", note: "Interrupt, tell it, or queue" },
  { text: "research tides", note: "Two more agents report beside it" },
  { text: "think 5", note: "Regenerate it, edit, switch back" },
  { text: "call weather Lisbon", note: "A tool call, streamed" },
  { text: "fail after 7", note: "An agent that raises" },
];

/** What an empty chat shows. */
export function Welcome({ onPick }: { onPick(text: string): void }) {
  return (
    <section className="welcome">
      <h2>Conversations that survive</h2>
      <p>
        Start a reply, then refresh, drop the connection or open this chat in a second tab. Both tabs can
        approve, steer, queue, edit and stop: nothing is lost, nothing comes twice, and everybody sees the
        same.
      </p>
      <ul>
        {PROMPTS.map(({ text, note }) => (
          <li key={text}>
            <button type="button" className="prompt" onClick={() => onPick(text)}>
              <span className="prompt-text">{text}</span>
              <span className="prompt-note">{note}</span>
              <ChevronIcon />
            </button>
          </li>
        ))}
      </ul>
    </section>
  );
}
