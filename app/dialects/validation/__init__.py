"""What is checked before an engine sees a request: OpenAI's types and ranges, where media come from, prompts that
cannot fit, and schemas that would cost the engine too much.

May import: app.dialects, app.errors, backends.endpoint, backends.engine_profile, backends.errors,
backends.prompt_too_long.
"""
