import type { ReactNode } from "react";

const icon = (path: ReactNode) => () => (
  <svg
    className="icon"
    viewBox="0 0 20 20"
    fill="none"
    stroke="currentColor"
    strokeWidth="1.6"
    aria-hidden="true"
  >
    {path}
  </svg>
);

export const MenuIcon = icon(<path strokeLinecap="round" d="M3.5 6h13M3.5 10h13M3.5 14h8" />);
export const PlusIcon = icon(<path strokeLinecap="round" d="M10 4.5v11M4.5 10h11" />);
export const CloseIcon = icon(<path strokeLinecap="round" d="m5.5 5.5 9 9m0-9-9 9" />);
export const SendIcon = icon(
  <path strokeLinecap="round" strokeLinejoin="round" d="M10 15.5v-11m-4.5 4.5L10 4.5 14.5 9" />,
);
export const StopIcon = icon(<rect x="5.5" y="5.5" width="9" height="9" rx="1.5" fill="currentColor" />);
export const RetryIcon = icon(
  <path strokeLinecap="round" strokeLinejoin="round" d="M15.5 10a5.5 5.5 0 1 1-1.7-4m.2-2.5V6.2h-2.7" />,
);
export const EditIcon = icon(<path strokeLinejoin="round" d="m4.5 15.5.7-3 7.8-7.8 2.3 2.3-7.8 7.8-3 .7Z" />);
export const ChevronIcon = icon(<path strokeLinecap="round" strokeLinejoin="round" d="m7.5 5 5 5-5 5" />);
export const BackIcon = icon(<path strokeLinecap="round" strokeLinejoin="round" d="m12.5 5-5 5 5 5" />);
export const BinIcon = icon(
  <path
    strokeLinecap="round"
    strokeLinejoin="round"
    d="M4 6h12M8 6V4h4v2m-6.5 0 .7 10h7.6l.7-10M8.5 9v4.5m3-4.5v4.5"
  />,
);
export const ThumbUpIcon = icon(
  <path
    strokeLinejoin="round"
    d="M6.5 9 9.8 3.6c1.2 0 1.9 1 1.7 2.1l-.4 2.3h3.7c1 0 1.7.9 1.5 1.9l-1 4.7c-.2.8-.8 1.4-1.6 1.4H6.5m0-7v7m0-7h-3v7h3"
  />,
);
export const ThumbDownIcon = icon(
  <path
    strokeLinejoin="round"
    d="M13.5 11l-3.3 5.4c-1.2 0-1.9-1-1.7-2.1l.4-2.3H5.2c-1 0-1.7-.9-1.5-1.9l1-4.7C4.9 4.6 5.5 4 6.3 4h7.2m0 7V4m0 7h3V4h-3"
  />,
);
export const AgentIcon = icon(
  <>
    <rect x="4" y="7" width="12" height="9" rx="2.5" />
    <path strokeLinecap="round" d="M10 7V4M7.8 11v1.5m4.4-1.5v1.5" />
  </>,
);
export const NewTabIcon = icon(
  <path strokeLinecap="round" strokeLinejoin="round" d="M8.5 5H5v10h10v-3.5M11 4.5h4.5V9m0-4.5L9.5 10.5" />,
);
export const DownIcon = icon(
  <path strokeLinecap="round" strokeLinejoin="round" d="M10 4.5v11m4.5-4.5L10 15.5 5.5 11" />,
);
export const PanelIcon = icon(
  <>
    <rect x="3" y="4" width="14" height="12" rx="2" />
    <path d="M12 4v12" />
  </>,
);
export const CutIcon = icon(
  <path strokeLinecap="round" d="M3 10h4m6 0h4M9 6.5 8 4m3 2.5L12 4M9 13.5 8 16m3-2.5 1 2.5" />,
);
export const CloudIcon = icon(
  <path
    strokeLinecap="round"
    strokeLinejoin="round"
    d="M4 4l12 12M3 8.5a11 11 0 0 1 3-1.9m3-.6a10.5 10.5 0 0 1 8 2.5M5.7 11.3A7 7 0 0 1 9 9.6m3.5.5c.7.3 1.3.7 1.8 1.2M10 14.5h.01"
  />,
);
export const ToolIcon = icon(
  <path
    strokeLinejoin="round"
    d="M12.7 3.7a3.8 3.8 0 0 0-4.6 5L3.7 13a1.8 1.8 0 1 0 2.6 2.6l4.3-4.4a3.8 3.8 0 0 0 5-4.6l-2.3 2.3-2.1-.7-.7-2.1 2.2-2.4Z"
  />,
);

export const Logo = () => (
  <svg className="logo" viewBox="0 0 32 32" aria-hidden="true">
    <rect width="32" height="32" rx="8" fill="var(--brand)" />
    <g fill="none" stroke="#fff" strokeWidth="2.6" strokeLinecap="round">
      <path d="M6 12.5c3.3-3 6.7-3 10 0s6.7 3 10 0" />
      <path d="M6 20c3.3-3 6.7-3 10 0s6.7 3 10 0" opacity=".6" />
    </g>
  </svg>
);
