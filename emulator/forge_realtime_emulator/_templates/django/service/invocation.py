"""The middleware of this service."""

from forge_realtime.django import InvocationMiddleware


class RefusingMiddleware(InvocationMiddleware):
    """Make the invocation of a request current, and refuse it to tasks that outlive the request."""

    after_end = "refuse"
