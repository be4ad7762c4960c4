"""Random JSON schemas, such as people write, and the answers to them."""

import json
import random
import string
from typing import Any

from jsonschema import Draft202012Validator

Schema = dict[str, Any]


def random_schema(rng: random.Random) -> Schema:
    """Make up an object's schema, up to three levels deep."""
    return _object(rng, 2)


def assert_valid(text: str, schema: Schema) -> None:
    """Fail unless the text is JSON that the schema describes."""
    Draft202012Validator(schema).validate(json.loads(text))


def _object(rng: random.Random, depth: int) -> Schema:
    names = ["".join(rng.choices(string.ascii_lowercase, k=rng.randint(1, 6))) for _ in range(4)]
    names = list(dict.fromkeys(names))[: rng.randint(1, 4)]
    schema: Schema = {
        "type": "object",
        "properties": {name: _any(rng, depth) for name in names},
        "required": [name for name in names if rng.random() < 0.6],
    }
    if rng.random() < 0.8:
        schema["additionalProperties"] = False
    return schema


def _any(rng: random.Random, depth: int) -> Schema:
    makers = [_integer, _number, _text, _pattern, _enum, _simple]
    if depth:
        makers += [_array, _object, _either]
    return rng.choice(makers)(rng, depth)


def _integer(rng: random.Random, depth: int) -> Schema:
    low = rng.randint(-1000, 1000)
    return {"type": "integer", "minimum": low, "maximum": low + rng.randint(0, 5000)}


def _number(rng: random.Random, depth: int) -> Schema:
    return rng.choice([{"type": "number"}, {"type": "number", "exclusiveMinimum": 0}])


def _text(rng: random.Random, depth: int) -> Schema:
    if rng.random() < 0.2:
        return {"type": "string"}
    least = rng.randint(0, 3)
    return {"type": "string", "minLength": least, "maxLength": least + rng.randint(0, 6)}


def _pattern(rng: random.Random, depth: int) -> Schema:
    if rng.random() < 0.5:
        return {"type": "string", "format": rng.choice(["date", "time", "uuid", "ipv4"])}
    return {
        "type": "string",
        "pattern": rng.choice([r"^[a-z]{2,5}$", r"^\d{3}-\d{4}$", "^(a|bc)+$"]),
    }


def _enum(rng: random.Random, depth: int) -> Schema:
    values = ["red", "grün", 'a "b" \\ c', 3, -1.5, None, True, ""]
    if rng.random() < 0.2:
        return {"const": rng.choice(values)}
    return {"enum": rng.sample(values, rng.randint(1, 5))}


def _simple(rng: random.Random, depth: int) -> Schema:
    return {"type": rng.choice(["boolean", "null", ["boolean", "null"]])}


def _array(rng: random.Random, depth: int) -> Schema:
    least = rng.randint(0, 2)
    return {
        "type": "array",
        "items": _any(rng, depth - 1),
        "minItems": least,
        "maxItems": least + rng.randint(0, 2),
    }


def _either(rng: random.Random, depth: int) -> Schema:
    return {"anyOf": [_any(rng, depth - 1), _object(rng, depth - 1)]}
