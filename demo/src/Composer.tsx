import { type FormEvent, type KeyboardEvent, useLayoutEffect, useRef, useState } from "react";
import { SendIcon, StopIcon } from "./icons";

interface Props {
  running: boolean;
  onSend(text: string): void;
  onStop(): void;
}

export function Composer({ running, onSend, onStop }: Props) {
  const [text, setText] = useState("");
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
    onSend(said);
    box.current?.focus();
  };
  const key = (event: KeyboardEvent) => {
    if (event.key !== "Enter" || event.shiftKey || event.nativeEvent.isComposing) return;
    event.preventDefault();
    submit();
  };
  return (
    <form className="composer" onSubmit={submit}>
      <textarea
        ref={box}
        data-testid="composer"
        aria-label="Your message"
        placeholder={running ? "Interrupt the reply" : "Message"}
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
    </form>
  );
}
