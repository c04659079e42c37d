"""Start of the service: `python main.py`. The platform sets SERVER_PORT and FORGE_EGRESS_PROXY_URL."""

import logging
import os
import sys

import uvicorn

from forge_realtime.logs import JsonFormatter

REQUEST_SECONDS = 30
"""Seconds that requests in progress have after SIGTERM. Then they are cancelled, and the answers get their time."""


def main() -> None:
    """Serve until SIGTERM. The log is JSON lines on standard output, each with its invocation."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.captureWarnings(capture=True)
    uvicorn.run(
        "app:app",
        host="0.0.0.0",
        port=int(os.environ.get("SERVER_PORT", "8080")),
        log_config=None,
        access_log=False,  # It would consist of health checks.
        timeout_graceful_shutdown=REQUEST_SECONDS,
    )


if __name__ == "__main__":
    main()
