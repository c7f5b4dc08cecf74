"""What Prometheus makes of the gateway (`make test-observe`): dashboards and alerts, asked of a real Prometheus."""
