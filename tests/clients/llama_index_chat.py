"""LlamaIndex's OpenAILike, streaming: `llama_index_chat.py BASE_URL MODEL QUESTION` prints pieces and answer."""

import sys

from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

base_url, model, question = sys.argv[1:]
chat = OpenAILike(
    api_base=base_url, api_key="none", model=model, temperature=0, max_tokens=16, is_chat_model=True, max_retries=0
)
messages = [ChatMessage(role="user", content=question)]
pieces = [piece.delta or "" for piece in chat.stream_chat(messages)]
text = "".join(pieces)
whole = chat.chat(messages).message.content
assert text == whole, (text, whole)
print(len(pieces))
print(text)
