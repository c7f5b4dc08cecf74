"""app/relay/tracing/trace_context.py: the `traceparent` header, and which traces are sampled."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased

from app.relay.tracing.trace_context import TraceContext, is_sampled, parsed

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = TraceContext(TRACE, SPAN, 1)
VALID = {
    f"00-{TRACE}-{SPAN}-01": PARENT,
    f" 00-{TRACE}-{SPAN}-01 ": PARENT,
    f"00-{TRACE}-{SPAN}-00": TraceContext(TRACE, SPAN, 0),
    f"00-{TRACE}-{SPAN}-03": TraceContext(TRACE, SPAN, 3),
    f"00-{TRACE}-{SPAN}-ff": TraceContext(TRACE, SPAN, 3),  # what is not known is not passed on
    f"00-{TRACE}-{SPAN}-fc": TraceContext(TRACE, SPAN, 0),
    f"cc-{TRACE}-{SPAN}-01": PARENT,
    f"cc-{TRACE}-{SPAN}-01-what-the-future-holds": PARENT,
}
INVALID = (
    *(None, "", "00", f"00-{TRACE}-{SPAN}", f"00-{TRACE}-{SPAN}-01-more", f"ff-{TRACE}-{SPAN}-01"),
    *(f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE.upper()}-{SPAN}-01"),
    *(f"00-{TRACE}-{SPAN}-1", f"0-{TRACE}-{SPAN}-01", f"00-{TRACE[1:]}-{SPAN}-01", f"00-{TRACE}-{SPAN}-0g"),
)


@pytest.mark.parametrize(("header", "context"), VALID.items())
def test_a_valid_header_is_read(header: str, context: TraceContext) -> None:
    assert parsed(header) == context


@pytest.mark.parametrize("header", INVALID)
def test_what_is_not_valid_counts_as_absent(header: str | None) -> None:
    assert parsed(header) is None


@pytest.mark.parametrize("flags", [0, 1, 3])
def test_what_is_written_is_read_again(flags: int) -> None:
    context = TraceContext(TRACE, SPAN, flags)

    assert parsed(context.header) == context


SAMPLERS = {
    # with a sampled parent, with one that is not, without one
    "always_on": (True, True, True),
    "always_off": (False, False, False),
    "parentbased_always_on": (True, False, True),
    "parentbased_always_off": (True, False, False),
}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sampler_does_what_its_name_says(sampler: str) -> None:
    parents = (PARENT, PARENT._replace(flags=0), None)

    assert tuple(is_sampled(sampler, 1.0, parent, 7) for parent in parents) == SAMPLERS[sampler]


@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.5, 1.0])
def test_a_share_is_the_same_traces_that_opentelemetry_chooses(ratio: float) -> None:
    theirs = TraceIdRatioBased(ratio)
    ids = [(number * 0x9E3779B97F4A7C15F39CC0605CEDC835) % (1 << 128) for number in range(1, 500)]

    for trace_id in ids:
        chosen = theirs.should_sample(None, trace_id, "n").decision is Decision.RECORD_AND_SAMPLE
        assert is_sampled("traceidratio", ratio, None, trace_id) is chosen
        assert is_sampled("parentbased_traceidratio", ratio, None, trace_id) is chosen
        assert is_sampled("parentbased_traceidratio", ratio, PARENT, trace_id)
