"""LangChain's ChatOpenAI, streaming: `langchain_chat.py BASE_URL MODEL QUESTION` prints pieces and answer."""

import sys

from langchain_openai import ChatOpenAI

base_url, model, question = sys.argv[1:]
chat = ChatOpenAI(base_url=base_url, api_key="none", model=model, temperature=0, max_tokens=16, stream_usage=True)
pieces = list(chat.stream([("human", question)]))
whole = chat.invoke([("human", question)])
text = "".join(str(piece.content) for piece in pieces)
assert text == whole.content, (text, whole.content)
usage = [piece.usage_metadata for piece in pieces if piece.usage_metadata]
assert usage, pieces
assert usage[-1]["output_tokens"] >= 1, usage
print(len(pieces))
print(text)
