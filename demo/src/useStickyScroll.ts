import { type RefObject, useCallback, useEffect, useLayoutEffect, useRef, useState } from "react";

interface StickyScroll {
  ref: RefObject<HTMLDivElement | null>;
  content: RefObject<HTMLDivElement | null>;
  atEnd: boolean;
  onScroll(): void;
  toEnd(): void;
}

const NEAR = 48;

/** Stays at the end while content grows, until the reader scrolls away; comes back when the reader does. */
export function useStickyScroll(content: readonly unknown[]): StickyScroll {
  const ref = useRef<HTMLDivElement>(null);
  const inner = useRef<HTMLDivElement>(null);
  const following = useRef(true);
  const [atEnd, setAtEnd] = useState(true);
  const isEmpty = content.length === 0;

  const toEnd = useCallback(() => {
    following.current = true;
    setAtEnd(true);
    const box = ref.current;
    if (box) box.scrollTop = box.scrollHeight;
  }, []);

  const onScroll = useCallback(() => {
    const box = ref.current;
    if (!box) return;
    const near = box.scrollHeight - box.scrollTop - box.clientHeight < NEAR;
    following.current = near || isEmpty;
    setAtEnd(near || isEmpty);
  }, [isEmpty]);

  const follow = useCallback(() => {
    const box = ref.current;
    if (following.current && box && !isEmpty) box.scrollTop = box.scrollHeight;
  }, [isEmpty]);

  // biome-ignore lint/correctness/useExhaustiveDependencies: the content is what makes the box grow
  useLayoutEffect(follow, [content, follow]);
  useEffect(() => {
    const observer = new ResizeObserver(follow);
    if (ref.current) observer.observe(ref.current);
    if (inner.current) observer.observe(inner.current);
    return () => observer.disconnect();
  }, [follow]);

  return { ref, content: inner, atEnd, onScroll, toEnd };
}
