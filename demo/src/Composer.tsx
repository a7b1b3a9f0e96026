import { type FormEvent, type KeyboardEvent, useLayoutEffect, useRef, useState } from "react";
import { SendIcon, StopIcon } from "./icons";
import type { How } from "./useOpenChat";

interface Props {
  running: boolean;
  onSend(text: string, how: How): void;
  onStop(): void;
}

const HOW: Record<How, { label: string; note: string }> = {
  interrupt: { label: "Interrupt", note: "Ends this reply and what is queued." },
  steer: { label: "Tell it", note: "The agent hears it while it writes." },
  queue: { label: "Queue", note: "Answered after this reply." },
};

export function Composer({ running, onSend, onStop }: Props) {
  const [text, setText] = useState("");
  const [how, setHow] = useState<How>("interrupt");
  const box = useRef<HTMLTextAreaElement>(null);

  // biome-ignore lint/correctness/useExhaustiveDependencies: the text is what the height depends on
  useLayoutEffect(() => {
    const area = box.current;
    if (!area) return;
    area.style.height = "auto";
    area.style.height = `${Math.min(area.scrollHeight, 200)}px`;
  }, [text]);

  const submit = (event?: FormEvent) => {
    event?.preventDefault();
    const said = text.trim();
    if (!said) return;
    setText("");
    onSend(said, how);
    box.current?.focus();
  };
  const key = (event: KeyboardEvent) => {
    if (event.key !== "Enter" || event.shiftKey || event.nativeEvent.isComposing) return;
    event.preventDefault();
    submit();
  };
  return (
    <form className="composer" onSubmit={submit}>
      {running && (
        <fieldset className="how" data-testid="how">
          <legend className="sr-only">What a message does while a reply is being written</legend>
          {(Object.keys(HOW) as How[]).map((one) => (
            <label key={one}>
              <input
                type="radio"
                name="how"
                value={one}
                checked={how === one}
                onChange={() => setHow(one)}
                data-testid={`how-${one}`}
              />
              <span>{HOW[one].label}</span>
            </label>
          ))}
          <p>{HOW[how].note}</p>
        </fieldset>
      )}
      <div className="composer-row">
        <textarea
          ref={box}
          data-testid="composer"
          aria-label="Your message"
          placeholder="Message"
          rows={1}
          value={text}
          onChange={(event) => setText(event.target.value)}
          onKeyDown={key}
        />
        {running && (
          <button
            type="button"
            className="round stop"
            data-testid="stop"
            onClick={onStop}
            aria-label="Stop the reply"
            title="Stop"
          >
            <StopIcon />
          </button>
        )}
        <button
          type="submit"
          className="round send"
          data-testid="send"
          disabled={text.trim() === ""}
          aria-label="Send"
          title="Send"
        >
          <SendIcon />
        </button>
      </div>
    </form>
  );
}
