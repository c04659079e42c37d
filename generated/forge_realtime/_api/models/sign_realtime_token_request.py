from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..models.sign_realtime_token_request_permissions_item import (
    SignRealtimeTokenRequestPermissionsItem,
    check_sign_realtime_token_request_permissions_item,
)
from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.realtime_token_claims import RealtimeTokenClaims


T = TypeVar("T", bound="SignRealtimeTokenRequest")


@_attrs_define
class SignRealtimeTokenRequest:
    channel_name: str
    claims: RealtimeTokenClaims
    permissions: list[SignRealtimeTokenRequestPermissionsItem] | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        channel_name = self.channel_name

        claims = self.claims.to_dict()

        permissions: list[str] | Unset = UNSET
        if not isinstance(self.permissions, Unset):
            permissions = []
            for permissions_item_data in self.permissions:
                permissions_item: str = permissions_item_data
                permissions.append(permissions_item)

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "channelName": channel_name,
                "claims": claims,
            }
        )
        if permissions is not UNSET:
            field_dict["permissions"] = permissions

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.realtime_token_claims import RealtimeTokenClaims  # noqa: PLC0415

        d = dict(src_dict)
        channel_name = d.pop("channelName")

        claims = RealtimeTokenClaims.from_dict(d.pop("claims"))

        _permissions = d.pop("permissions", UNSET)
        permissions: list[SignRealtimeTokenRequestPermissionsItem] | Unset = UNSET
        if _permissions is not UNSET:
            permissions = []
            for permissions_item_data in _permissions:
                permissions_item = check_sign_realtime_token_request_permissions_item(permissions_item_data)

                permissions.append(permissions_item)

        sign_realtime_token_request = cls(
            channel_name=channel_name,
            claims=claims,
            permissions=permissions,
        )

        sign_realtime_token_request.additional_properties = d
        return sign_realtime_token_request

    @property
    def additional_keys(self) -> list[str]:
        return list(self.additional_properties.keys())

    def __getitem__(self, key: str) -> Any:
        return self.additional_properties[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.additional_properties[key] = value

    def __delitem__(self, key: str) -> None:
        del self.additional_properties[key]

    def __contains__(self, key: str) -> bool:
        return key in self.additional_properties
