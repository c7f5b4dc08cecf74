// Server-sent events, read from a response as they come.

export interface ServerEvent {
  event: string;
  data: string;
}

/** Every whole event of the stream. It rejects when the connection is cut; leaving the loop ends the request. */
export async function* events(response: Response): AsyncGenerator<ServerEvent> {
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  const feed = eventReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield* feed(value);
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

/** A function from pieces of a stream, cut anywhere, to the events that each piece completes. */
export function eventReader(): (piece: string) => ServerEvent[] {
  let rest = "";
  let event = "";
  let data: string[] = [];
  return (piece) => {
    const complete: ServerEvent[] = [];
    const lines = (rest + piece).split("\n");
    rest = lines.pop()!;
    for (const each of lines) {
      const line = each.endsWith("\r") ? each.slice(0, -1) : each;
      if (line === "") {
        if (data.length) complete.push({ event: event || "message", data: data.join("\n") });
        event = "";
        data = [];
      } else if (line.startsWith("data:")) data.push(line.slice(line[5] === " " ? 6 : 5));
      else if (line.startsWith("event:")) event = line.slice(6).trim();
    }
    return complete;
  };
}
