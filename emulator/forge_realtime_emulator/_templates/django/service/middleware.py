"""The middleware of the service."""

from django.http import HttpRequest, JsonResponse

from forge_realtime import ForgeRealtimeError
from forge_realtime.django import InvocationMiddleware


class ServiceMiddleware(InvocationMiddleware):
    """Make the invocation of a request current, and refuse it to tasks that outlive the request."""

    after_end = "refuse"

    def process_exception(self, _: HttpRequest, error: Exception) -> JsonResponse | None:
        """Tell the page whether an event may have arrived all the same."""
        if not isinstance(error, ForgeRealtimeError):
            return None
        return JsonResponse({"error": type(error).__name__, "delivery": error.delivery.value}, status=502)
