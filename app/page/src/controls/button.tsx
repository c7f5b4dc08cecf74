// Buttons: with words, or an icon with its words for those who ask.
import type { ComponentChildren } from "preact";
import { Icon, type IconName } from "./icons";

interface Props {
  icon?: IconName;
  label: string;
  onClick?: () => void;
  kind?: "plain" | "primary" | "quiet" | "danger";
  /** Only the icon is seen. */
  iconOnly?: boolean;
  disabled?: boolean;
  pressed?: boolean;
  expanded?: boolean;
  small?: boolean;
  type?: "button" | "submit";
  children?: ComponentChildren;
}

export function Button({ icon, label, onClick, kind = "plain", iconOnly, disabled, pressed, expanded, small, type = "button" }: Props) {
  return (
    <button
      type={type}
      class={`${kind}${iconOnly ? " icon-only" : ""}${small ? " small" : ""}`}
      onClick={onClick}
      disabled={disabled}
      aria-pressed={pressed}
      aria-expanded={expanded}
      aria-label={iconOnly ? label : undefined}
      title={iconOnly ? label : undefined}
    >
      {icon && <Icon name={icon} />}
      {!iconOnly && <span>{label}</span>}
    </button>
  );
}
