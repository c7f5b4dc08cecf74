// An answer that grows: what is complete stays as it is, and only its last block is read again.
import type { Token } from "marked";
import { blocks } from "./blocks";
import { nodes, type Surroundings } from "./nodes";

/** Shows a growing text as Markdown in one element. */
export class GrowingMarkdown {
  private shown = "";
  /** Where the last block begins; everything before it is never read again. */
  private settled = 0;
  /** The nodes of the last block, which are made anew with each piece. */
  private last: ChildNode[] = [];

  constructor(
    private readonly host: HTMLElement,
    private readonly around: Surroundings,
  ) {}

  /** Show this text: more of the one before, or another. */
  show(text: string): void {
    if (!text.startsWith(this.shown)) {
      this.host.replaceChildren();
      this.settled = 0;
      this.last = [];
    } else if (text.length === this.shown.length) return;
    this.shown = text;
    const tail = text.slice(this.settled);
    const tokens = blocks(tail);
    const open = lastBlock(tokens);
    this.last.forEach((each) => each.remove());
    this.host.append(...nodes(tokens.slice(0, open), this.around));
    this.last = nodes(tokens.slice(open), this.around) as ChildNode[];
    this.host.append(...this.last);
    // The lexer has one kind of line end only, so of a text with others it is not told where a block begins.
    if (!tail.includes("\r")) this.settled += tokens.slice(0, open).reduce((sum, each) => sum + each.raw.length, 0);
  }
}

/** Where the block begins that more text may still change: the last one that is not only space. */
function lastBlock(tokens: readonly Token[]): number {
  let open = tokens.length - 1;
  while (open > 0 && tokens[open]!.type === "space") open--;
  return Math.max(0, open);
}
