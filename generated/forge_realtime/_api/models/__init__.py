"""Contains all the data models used in inputs/outputs"""

from .publish_answer import PublishAnswer
from .publish_global_answer import PublishGlobalAnswer
from .publish_global_options import PublishGlobalOptions
from .publish_global_request import PublishGlobalRequest
from .publish_options import PublishOptions
from .publish_request import PublishRequest
from .realtime_token_claims import RealtimeTokenClaims
from .sign_realtime_token_answer import SignRealtimeTokenAnswer
from .sign_realtime_token_request import SignRealtimeTokenRequest
from .sign_realtime_token_request_permissions_item import (
    SignRealtimeTokenRequestPermissionsItem,
)

__all__ = (
    "PublishAnswer",
    "PublishGlobalAnswer",
    "PublishGlobalOptions",
    "PublishGlobalRequest",
    "PublishOptions",
    "PublishRequest",
    "RealtimeTokenClaims",
    "SignRealtimeTokenAnswer",
    "SignRealtimeTokenRequest",
    "SignRealtimeTokenRequestPermissionsItem",
)
