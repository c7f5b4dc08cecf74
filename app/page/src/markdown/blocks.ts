// Markdown as blocks: marked's lexer, kept from texts that would cost it too much.
import { Lexer, type Token } from "marked";

// A paragraph longer than this is shown as it stands: searching emphasis in one takes time with the square of its length.
const LONGEST_INLINE = 20_000;

/** The text's blocks. What the lexer cannot take (nesting without end) is one block of plain text. */
export function blocks(text: string): Token[] {
  try {
    const lexer = new Lexer({ gfm: true });
    lexer.blockTokens(text.replace(/\r\n?/g, "\n"), lexer.tokens);
    for (const { src, tokens } of lexer.inlineQueue) {
      if (src.length <= LONGEST_INLINE) lexer.inlineTokens(src, tokens);
      else tokens.push({ type: "text", raw: src, text: src, escaped: false });
    }
    return lexer.tokens;
  } catch {
    return [{ type: "code", raw: text, text }];
  }
}
