from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, cast

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

T = TypeVar("T", bound="PublishResponse")


@_attrs_define
class PublishResponse:
    event_id: None | str | Unset = UNSET
    """ Null when nobody was subscribed, which is not an error. """
    event_timestamp: float | None | str | Unset = UNSET
    """ Epoch milliseconds. """
    errors: Any | Unset = UNSET
    """ Present when the operation failed although the status is 200. """
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        event_id: None | str | Unset
        if isinstance(self.event_id, Unset):
            event_id = UNSET
        else:
            event_id = self.event_id

        event_timestamp: float | None | str | Unset
        if isinstance(self.event_timestamp, Unset):
            event_timestamp = UNSET
        else:
            event_timestamp = self.event_timestamp

        errors = self.errors

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update({})
        if event_id is not UNSET:
            field_dict["eventId"] = event_id
        if event_timestamp is not UNSET:
            field_dict["eventTimestamp"] = event_timestamp
        if errors is not UNSET:
            field_dict["errors"] = errors

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        d = dict(src_dict)

        def _parse_event_id(data: object) -> None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(None | str | Unset, data)

        event_id = _parse_event_id(d.pop("eventId", UNSET))

        def _parse_event_timestamp(data: object) -> float | None | str | Unset:
            if data is None:
                return data
            if isinstance(data, Unset):
                return data
            return cast(float | None | str | Unset, data)

        event_timestamp = _parse_event_timestamp(d.pop("eventTimestamp", UNSET))

        errors = d.pop("errors", UNSET)

        publish_response = cls(
            event_id=event_id,
            event_timestamp=event_timestamp,
            errors=errors,
        )

        publish_response.additional_properties = d
        return publish_response

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
