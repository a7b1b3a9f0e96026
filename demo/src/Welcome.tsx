import { ChevronIcon } from "./icons";

const PROMPTS: { text: string; note: string }[] = [
  { text: "How does Strandline work?", note: "A long reply in Markdown" },
  { text: "count to 50 every 100 ms", note: "Refresh in the middle" },
  { text: "think 5", note: "Reasoning, then an answer" },
  { text: "call weather Lisbon", note: "A tool call, streamed" },
  { text: "fail after 7", note: "An agent that raises" },
  { text: "say nothing", note: "A reply without text" },
];

/** What an empty chat shows. */
export function Welcome({ onPick }: { onPick(text: string): void }) {
  return (
    <section className="welcome">
      <h2>Replies that survive</h2>
      <p>
        Start a reply, then refresh, close the tab, drop the connection or open this chat on your phone.
        Nothing you have seen is lost, and nothing comes twice.
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
