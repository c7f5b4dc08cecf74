// What is said where there is nothing to show, and what went wrong.
import type { ComponentChildren } from "preact";
import { Icon, type IconName } from "./icons";

interface EmptyProps {
  icon: IconName;
  title: string;
  children?: ComponentChildren;
}

/** There is nothing yet: what will be here, and how it comes. */
export function Empty({ icon, title, children }: EmptyProps) {
  return (
    <div class="empty">
      <Icon name={icon} />
      <h2>{title}</h2>
      {children}
    </div>
  );
}

export function Failure({ children }: { children: ComponentChildren }) {
  return (
    <p class="failure" role="alert" dir="auto">
      <Icon name="warning" />
      <span>{children}</span>
    </p>
  );
}

export function Loading({ label }: { label: string }) {
  return (
    <p class="loading" role="status">
      <span class="dots" aria-hidden="true" />
      {label}
    </p>
  );
}
