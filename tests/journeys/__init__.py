"""What users do with the whole program: SDKs, curl, crashes, streams that break."""
