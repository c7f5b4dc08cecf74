"""The systemd unit and the Helm chart as their users have them: a real systemd, Helm's own renderer."""
