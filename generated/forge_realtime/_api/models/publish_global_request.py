from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import define as _attrs_define
from attrs import field as _attrs_field

from ..types import UNSET, Unset

if TYPE_CHECKING:
    from ..models.publish_global_options import PublishGlobalOptions


T = TypeVar("T", bound="PublishGlobalRequest")


@_attrs_define
class PublishGlobalRequest:
    name: str
    payload: str
    options: PublishGlobalOptions | Unset = UNSET
    additional_properties: dict[str, Any] = _attrs_field(init=False, factory=dict)

    def to_dict(self) -> dict[str, Any]:
        name = self.name

        payload = self.payload

        options: dict[str, Any] | Unset = UNSET
        if not isinstance(self.options, Unset):
            options = self.options.to_dict()

        field_dict: dict[str, Any] = {}
        field_dict.update(self.additional_properties)
        field_dict.update(
            {
                "name": name,
                "payload": payload,
            }
        )
        if options is not UNSET:
            field_dict["options"] = options

        return field_dict

    @classmethod
    def from_dict(cls: type[T], src_dict: Mapping[str, Any]) -> T:
        from ..models.publish_global_options import PublishGlobalOptions  # noqa: PLC0415

        d = dict(src_dict)
        name = d.pop("name")

        payload = d.pop("payload")

        _options = d.pop("options", UNSET)
        options: PublishGlobalOptions | Unset
        if isinstance(_options, Unset):
            options = UNSET
        else:
            options = PublishGlobalOptions.from_dict(_options)

        publish_global_request = cls(
            name=name,
            payload=payload,
            options=options,
        )

        publish_global_request.additional_properties = d
        return publish_global_request

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
