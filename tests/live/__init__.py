"""The gateway with a real vLLM (`make test-vllm`)."""
