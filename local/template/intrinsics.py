"""CloudFormation's intrinsic functions, conditions and parameters, as far as a local run needs them.

The rules are those of the CloudFormation template reference ("Intrinsic function reference", "Conditions",
"Parameters", "Pseudo parameters"). Values are resolved only when asked for, so a parameter that only a real
deployment needs (a VPC, a cluster ARN) may stay without a value here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from ..aws_account import ACCOUNT_ID, REGION, function_arn

NO_VALUE = object()
_SUB = re.compile(r"\$\{(!?)([^}]+)\}")


class TemplateError(ValueError):
    """The template cannot be served; the message is a sentence that names the place and says why."""


class _Loader(yaml.SafeLoader):
    """SafeLoader that turns `!Sub x` into `{"Fn::Sub": x}`, the long form of the same function."""


def _short_form(loader: _Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)
        value = loader.construct_mapping(node, deep=True)
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _short_form)


def parse(text: str) -> dict[str, Any]:
    """The template as plain data, intrinsics in long form. Raises TemplateError if it is no YAML mapping."""
    try:
        document = yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe one, with the intrinsics
    except yaml.YAMLError as error:
        raise TemplateError(f"The template is not valid YAML: {error}") from error
    if not isinstance(document, dict):
        raise TemplateError("The template is not a YAML mapping.")
    return document


class Intrinsics:
    """Resolves the values of one template under given parameter values."""

    def __init__(self, document: Mapping[str, Any], parameters: Mapping[str, str]) -> None:
        self._resources: Mapping[str, Any] = document.get("Resources") or {}
        self._conditions: Mapping[str, Any] = document.get("Conditions") or {}
        self._mappings: Mapping[str, Any] = document.get("Mappings") or {}
        self._declared: Mapping[str, Any] = document.get("Parameters") or {}
        self._given = parameters
        self._open_conditions: list[str] = []
        self._pseudo: dict[str, Any] = {
            "AWS::AccountId": ACCOUNT_ID,
            "AWS::NoValue": NO_VALUE,
            "AWS::NotificationARNs": [],
            "AWS::Partition": "aws",
            "AWS::Region": REGION,
            "AWS::StackId": f"arn:aws:cloudformation:{REGION}:{ACCOUNT_ID}:stack/local/local",
            "AWS::StackName": "local",
            "AWS::URLSuffix": "amazonaws.com",
        }
        for name in parameters:
            if name not in self._declared and name not in self._pseudo:
                known = ", ".join(sorted(self._declared)) or "none"
                raise TemplateError(f"The template has no parameter {name!r}; it has: {known}.")

    def resolve(self, value: Any, where: str) -> Any:
        """The value with every intrinsic replaced; keys and items that are AWS::NoValue are dropped.

        `where` names the place in error messages. Raises TemplateError.
        """
        if isinstance(value, list):
            items = [self.resolve(item, where) for item in value]
            return [item for item in items if item is not NO_VALUE]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            name, argument = next(iter(value.items()))
            if name in ("Ref", "Condition") and isinstance(argument, str):
                return self._ref(argument, where) if name == "Ref" else self.condition(argument, where)
            if isinstance(name, str) and name.startswith("Fn::"):
                return self._function(name[4:], argument, where)
        resolved = {key: self.resolve(item, f"{where}.{key}") for key, item in value.items()}
        return {key: item for key, item in resolved.items() if item is not NO_VALUE}

    def condition(self, name: str, where: str) -> bool:
        """Whether the named condition of the template holds. Raises TemplateError."""
        if name not in self._conditions:
            raise TemplateError(f"{where}: the template has no condition {name!r}.")
        if name in self._open_conditions:
            raise TemplateError(f"{where}: condition {name!r} depends on itself.")
        self._open_conditions.append(name)
        try:
            return bool(self.resolve(self._conditions[name], f"Conditions.{name}"))
        finally:
            self._open_conditions.pop()

    def _ref(self, name: str, where: str) -> Any:
        if name in self._declared:
            return self._parameter(name, where)
        if name in self._pseudo:
            return self._given.get(name, self._pseudo[name])
        if name not in self._resources:
            raise TemplateError(f"{where}: the template has no parameter or resource {name!r}.")
        resource = self._resources[name]
        if resource.get("Type") == "AWS::S3::Bucket":
            return self._bucket_name(name, resource)
        return name

    def _bucket_name(self, name: str, resource: Mapping[str, Any]) -> str:
        properties = resource.get("Properties") or {}
        chosen = self.resolve(properties.get("BucketName", NO_VALUE), f"{name}.BucketName")
        return name.lower() if chosen is NO_VALUE else str(chosen)

    def _parameter(self, name: str, where: str) -> str | list[str]:
        declared = self._declared[name]
        if name in self._given:
            value = self._given[name]
        elif "Default" in declared:
            value = text(declared["Default"])
        else:
            raise TemplateError(f"{where}: parameter {name!r} has no default; give it a value.")
        allowed = [text(item) for item in declared.get("AllowedValues", [])]
        if allowed and value not in allowed:
            raise TemplateError(f"Parameter {name!r} is {value!r}; allowed are {', '.join(allowed)}.")
        kind = str(declared.get("Type", "String"))
        if kind == "Number":
            _check_number(name, value, declared)
        if kind == "CommaDelimitedList" or kind.startswith("List<"):
            return [item.strip() for item in value.split(",")] if value else []
        return value

    def _get_att(self, name: str, attribute: str, where: str) -> str:
        if name not in self._resources:
            raise TemplateError(f"{where}: the template has no resource {name!r}.")
        resource = self._resources[name]
        kind = resource.get("Type", "")
        if attribute == "Arn" and kind in ("AWS::Serverless::Function", "AWS::Lambda::Function"):
            return function_arn(name)
        if attribute == "Arn" and kind == "AWS::S3::Bucket":
            return f"arn:aws:s3:::{self._bucket_name(name, resource)}"
        return f"{name}.{attribute}"

    def _function(self, name: str, argument: Any, where: str) -> Any:
        place = f"{where} (Fn::{name})"
        match name, argument:
            case "Sub", str() as pattern:
                return self._sub(pattern, {}, place)
            case "Sub", [str() as pattern, dict() as values]:
                return self._sub(pattern, self.resolve(values, place), place)
            case "GetAtt", [str() as resource, *rest] if rest:
                return self._get_att(resource, ".".join(str(part) for part in rest), place)
            case "If", [str() as condition, then, otherwise]:
                return self.resolve(then if self.condition(condition, place) else otherwise, where)
            case "Equals", [left, right]:
                return text(self.resolve(left, place)) == text(self.resolve(right, place))
            case "Not", [only]:
                return not self.resolve(only, place)
            case "And", [*items] if items:
                return all(self.resolve(item, place) for item in items)
            case "Or", [*items] if items:
                return any(self.resolve(item, place) for item in items)
            case "Join", [str() as delimiter, items]:
                return delimiter.join(text(item) for item in self._list(items, place))
            case "Split", [str() as delimiter, source]:
                return text(self.resolve(source, place)).split(delimiter)
            case "Select", [index, items]:
                chosen, number = self._list(items, place), text(self.resolve(index, place))
                if not number.isdigit() or int(number) >= len(chosen):
                    raise TemplateError(f"{place}: no item {number!r} in a list of {len(chosen)}.")
                return chosen[int(number)]
            case "FindInMap", [_, _, _]:
                table, first, second = (text(item) for item in self._list(argument, place))
                try:
                    return self._mappings[table][first][second]
                except (KeyError, TypeError):
                    raise TemplateError(f"{place}: no entry {table}.{first}.{second} in Mappings.") from None
        raise TemplateError(f"{place}: this function or this form of it is not supported in a local run.")

    def _list(self, items: Any, where: str) -> list[Any]:
        resolved = self.resolve(items, where)
        if not isinstance(resolved, list):
            raise TemplateError(f"{where}: expected a list, found {resolved!r}.")
        return resolved

    def _sub(self, pattern: str, values: Mapping[str, Any], where: str) -> str:
        def replace(match: re.Match[str]) -> str:
            literal, name = match.groups()
            if literal:
                return f"${{{name}}}"
            if name in values:
                return text(values[name])
            if "." in name:
                resource, attribute = name.split(".", 1)
                return self._get_att(resource, attribute, where)
            return text(self._ref(name, where))

        return _SUB.sub(replace, pattern)


def _check_number(name: str, value: str, declared: Mapping[str, Any]) -> None:
    low, high = declared.get("MinValue", float("-inf")), declared.get("MaxValue", float("inf"))
    try:
        fits = float(low) <= float(value) <= float(high)
    except ValueError:
        raise TemplateError(f"Parameter {name!r} is {value!r}, not a number.") from None
    if not fits:
        raise TemplateError(f"Parameter {name!r} is {value}; it must be from {low} to {high}.")


def text(value: Any) -> str:
    """A scalar the way CloudFormation writes it into a string property (booleans as true and false)."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(text(item) for item in value)
    return str(value)
