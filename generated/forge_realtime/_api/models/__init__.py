"""Contains all the data models used in inputs/outputs"""

from .publish_global_options import PublishGlobalOptions
from .publish_global_request import PublishGlobalRequest
from .publish_global_response import PublishGlobalResponse
from .publish_options import PublishOptions
from .publish_request import PublishRequest
from .publish_response import PublishResponse
from .realtime_token_claims import RealtimeTokenClaims
from .sign_realtime_token_request import SignRealtimeTokenRequest
from .sign_realtime_token_request_permissions_item import (
    SignRealtimeTokenRequestPermissionsItem,
)
from .sign_realtime_token_response import SignRealtimeTokenResponse

__all__ = (
    "PublishGlobalOptions",
    "PublishGlobalRequest",
    "PublishGlobalResponse",
    "PublishOptions",
    "PublishRequest",
    "PublishResponse",
    "RealtimeTokenClaims",
    "SignRealtimeTokenRequest",
    "SignRealtimeTokenRequestPermissionsItem",
    "SignRealtimeTokenResponse",
)
