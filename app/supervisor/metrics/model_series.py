"""The series of public names: what their certificates say, and which pairs they are in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily, Metric

from app.certificate.certificate import Outcome

_MODEL = "gen_ai_request_model"


@dataclass(frozen=True, slots=True)
class PairMember:
    """One model of a pair of the configuration; `role`: `base` for the first, `tuned` for those held against it."""

    pair: str
    role: str
    model: str


def model_series(outcomes: Sequence[tuple[str, str, Outcome]], members: Sequence[PairMember]) -> Iterator[Metric]:
    """All of them; a family without a model is there too. `outcomes`: as (public name, backend, outcome)."""
    certificates = GaugeMetricFamily(
        "modelport_certificate",
        "1 for what a model's certificate comes to: verified, partly_verified, unverified, failed, or outdated.",
        labels=[_MODEL, "modelport_backend", "verdict"],
    )
    for model, backend, outcome in outcomes:
        certificates.add_metric([model, backend, outcome.value], 1.0)
    yield certificates
    pairs = GaugeMetricFamily(
        "modelport_pair_info", "1 for each model of each pair of the configuration.", labels=["pair", "role", _MODEL]
    )
    for member in members:
        pairs.add_metric([member.pair, member.role, member.model], 1.0)
    yield pairs
