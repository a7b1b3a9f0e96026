import { type KeyboardEvent, useEffect, useRef, useState } from "react";

interface Props {
  text: string;
  onSave(text: string): void;
  onCancel(): void;
}

/** A user message being edited. Saving sends it again: the earlier version and its reply stay in the log. */
export function EditBox({ text, onSave, onCancel }: Props) {
  const [draft, setDraft] = useState(text);
  const box = useRef<HTMLTextAreaElement>(null);
  useEffect(() => {
    box.current?.focus();
    box.current?.select();
  }, []);
  const save = () => {
    const said = draft.trim();
    if (said) onSave(said);
  };
  const key = (event: KeyboardEvent) => {
    if (event.key === "Escape") onCancel();
    if (event.key !== "Enter" || event.shiftKey || event.nativeEvent.isComposing) return;
    event.preventDefault();
    save();
  };
  return (
    <div className="edit-box">
      <textarea
        ref={box}
        data-testid="edit-text"
        aria-label="Edit your message"
        rows={2}
        value={draft}
        onChange={(event) => setDraft(event.target.value)}
        onKeyDown={key}
      />
      <div>
        <button type="button" className="button small" data-testid="edit-cancel" onClick={onCancel}>
          Cancel
        </button>
        <button
          type="button"
          className="button small primary"
          data-testid="edit-save"
          onClick={save}
          disabled={!draft.trim()}
        >
          Send
        </button>
      </div>
    </div>
  );
}
