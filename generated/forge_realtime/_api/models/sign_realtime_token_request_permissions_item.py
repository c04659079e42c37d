from typing import Literal

SignRealtimeTokenRequestPermissionsItem = Literal["publish", "subscribe"]

SIGN_REALTIME_TOKEN_REQUEST_PERMISSIONS_ITEM_VALUES: set[SignRealtimeTokenRequestPermissionsItem] = {
    "publish",
    "subscribe",
}


def check_sign_realtime_token_request_permissions_item(value: str) -> SignRealtimeTokenRequestPermissionsItem:
    if value in SIGN_REALTIME_TOKEN_REQUEST_PERMISSIONS_ITEM_VALUES:
        return value
    raise TypeError(
        f"Unexpected value {value!r}. Expected one of {SIGN_REALTIME_TOKEN_REQUEST_PERMISSIONS_ITEM_VALUES!r}"
    )
