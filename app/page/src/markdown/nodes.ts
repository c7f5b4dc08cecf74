// From Markdown's tokens to nodes of the page. Everything a model wrote becomes text; nothing is parsed as HTML.
import type { Token, Tokens } from "marked";

const DEEPEST = 40;

/** What the page adds to an answer: words of its own, and what its buttons do. */
export interface Surroundings {
  copy: string;
  copied: string;
  image: string;
  onCopy(text: string): Promise<boolean>;
}

/** The address, if a link may lead there: to another page or into a mail program, never to a script or to data. */
export function allowed(href: string): string | null {
  if (!/^(?:https?:\/\/|mailto:)/i.test(href)) return null;
  return URL.canParse(href) ? href : null;
}

function element(name: string, children: (Node | string)[] = [], attributes: Record<string, string> = {}): HTMLElement {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

/** The nodes of some tokens. */
export function nodes(tokens: readonly Token[] | undefined, around: Surroundings, depth = 0): Node[] {
  if (depth > DEEPEST) return (tokens ?? []).map((each) => document.createTextNode(each.raw));
  return (tokens ?? []).map((each) => node(each as Tokens.Generic, around, depth));
}

function node(token: Tokens.Generic, around: Surroundings, depth: number): Node {
  const inside = () => nodes(token.tokens, around, depth + 1);
  switch (token.type) {
    case "space":
      return document.createTextNode("");
    case "heading":
      // The page has headings of its own above an answer's.
      return element(`h${Math.min(6, Number(token.depth) + 2)}`, inside(), { dir: "auto" });
    case "paragraph":
      return element("p", inside(), { dir: "auto" });
    case "text":
      return token.tokens ? element("span", inside()) : document.createTextNode(token.text);
    case "escape":
      return document.createTextNode(token.text);
    case "strong":
    case "em":
    case "del":
    case "blockquote":
      return element(token.type, inside());
    case "codespan":
      return element("code", [token.text]);
    case "code":
      return code(token, around);
    case "hr":
    case "br":
      return element(token.type);
    case "list":
      return list(token as Tokens.List, around, depth);
    case "checkbox":
      return box(Boolean(token.checked));
    case "table":
      return table(token as Tokens.Table, around, depth);
    case "link":
      return link(token, inside());
    case "image":
      return link(token, [`${around.image}: ${token.text || token.href}`]);
    default:
      return document.createTextNode(token.raw);
  }
}

function link(token: Tokens.Generic, children: (Node | string)[]): Node {
  const href = allowed(String(token.href));
  if (href === null) return element("span", children);
  return element("a", children, { href, target: "_blank", rel: "noopener noreferrer nofollow", title: href });
}

function box(checked: boolean): Node {
  const made = element("input", [], { type: "checkbox", disabled: "" }) as HTMLInputElement;
  made.checked = checked;
  return made;
}

function list(token: Tokens.List, around: Surroundings, depth: number): Node {
  const items = token.items.map((item) => {
    const children = nodes(item.tokens, around, depth + 1);
    const hasBox = item.tokens.some((each) => each.type === "checkbox");
    if (item.task && !hasBox) children.unshift(box(Boolean(item.checked)));
    return element("li", children, item.task ? { class: "task" } : {});
  });
  // The side of the marks follows the text, so the direction is the whole list's.
  return element(token.ordered ? "ol" : "ul", items, { dir: "auto", ...(token.ordered ? { start: `${token.start}` } : {}) });
}

function table(token: Tokens.Table, around: Surroundings, depth: number): Node {
  const cell = (name: string, each: Tokens.TableCell) =>
    element(name, nodes(each.tokens, around, depth + 1), { dir: "auto", ...(each.align ? { class: `to-${each.align}` } : {}) });
  const head = element("thead", [element("tr", token.header.map((each) => cell("th", each)))]);
  const body = element("tbody", token.rows.map((row) => element("tr", row.map((each) => cell("td", each)))));
  return element("div", [element("table", [head, body])], { class: "wide", tabindex: "0" });
}

function code(token: Tokens.Generic, around: Surroundings): Node {
  const text = element("code", [token.text]);
  const button = element("button", [around.copy], { type: "button", class: "quiet small" });
  button.addEventListener("click", () => {
    void around.onCopy(text.textContent ?? "").then((done) => {
      if (!done) return;
      button.textContent = around.copied;
      setTimeout(() => button.replaceChildren(around.copy), 1500);
    });
  });
  const bar = element("div", [element("span", [String(token.lang ?? "").split(/\s/)[0] ?? ""]), button], { class: "code-bar" });
  return element("div", [bar, element("pre", [text], { tabindex: "0", dir: "ltr" })], { class: "code" });
}
