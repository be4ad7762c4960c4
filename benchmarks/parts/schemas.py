"""Ten JSON schemas of the size that people send: what tools take, and what is read out of texts."""

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
SHORT: Schema = {"type": "string", "maxLength": 80}
NUMBER: Schema = {"type": "number"}
COUNT: Schema = {"type": "integer", "minimum": 0}
FLAG: Schema = {"type": "boolean"}
DATE: Schema = {"type": "string", "format": "date"}
MOMENT: Schema = {"type": "string", "format": "date-time"}


def thing(required: int | None = None, /, **properties: Schema) -> Schema:
    """Describe an object, of whose properties the first ones must be there; by default all."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties)[:required],
        "additionalProperties": False,
    }


def many(items: Schema, most: int | None = None) -> Schema:
    """Describe a list."""
    return {"type": "array", "items": items, **({} if most is None else {"maxItems": most})}


def one_of(*values: str) -> Schema:
    """Describe a choice."""
    return {"enum": list(values)}


ADDRESS = thing(
    3, street=SHORT, city=SHORT, country={"type": "string", "pattern": "^[A-Z]{2}$"}, zip=SHORT
)
PERSON = thing(2, name=SHORT, email={"type": "string", "format": "email"}, phones=many(SHORT, 3))
MONEY = thing(amount=NUMBER, currency=one_of("EUR", "USD", "GBP", "JPY", "CHF"))

SCHEMAS: dict[str, Schema] = {
    "weather call": thing(
        2, city=SHORT, unit=one_of("celsius", "fahrenheit"), days={**COUNT, "maximum": 14}
    ),
    "search call": thing(
        1,
        query=TEXT,
        sites=many(SHORT, 5),
        newest=DATE,
        order=one_of("relevance", "date", "votes"),
        page=COUNT,
        is_exact=FLAG,
    ),
    "sentiment": thing(
        label=one_of("positive", "neutral", "negative"), score=NUMBER, reasons=many(TEXT, 4)
    ),
    "contact": thing(1, person=PERSON, home=ADDRESS, work=ADDRESS, born=DATE, tags=many(SHORT)),
    "invoice": thing(
        number={"type": "string", "pattern": "^[A-Z]{2}-[0-9]{4,8}$"},
        issued=DATE,
        seller=thing(2, name=SHORT, address=ADDRESS, tax_id=SHORT),
        buyer=thing(2, name=SHORT, address=ADDRESS, tax_id=SHORT),
        lines=many(thing(3, text=TEXT, count=COUNT, price=MONEY, discount=NUMBER)),
        total=MONEY,
        is_paid=FLAG,
    ),
    "calendar": thing(
        title=SHORT,
        starts=MOMENT,
        ends=MOMENT,
        people=many(thing(1, person=PERSON, answer=one_of("yes", "no", "maybe")), 20),
        place={"anyOf": [ADDRESS, {"type": "string", "format": "uri"}, {"type": "null"}]},
        repeats=thing(1, every=one_of("day", "week", "month", "year"), until=DATE, times=COUNT),
    ),
    "resume": thing(
        3,
        person=PERSON,
        summary=TEXT,
        work=many(thing(3, company=SHORT, title=SHORT, since=DATE, until=DATE, did=many(TEXT))),
        schools=many(thing(2, name=SHORT, degree=SHORT, ended=DATE, grade=NUMBER)),
        languages=many(thing(name=SHORT, level=one_of("A1", "A2", "B1", "B2", "C1", "C2"))),
        skills=many(SHORT, 30),
    ),
    "product": thing(
        4,
        sku=SHORT,
        name=SHORT,
        price=MONEY,
        stock=COUNT,
        **{f"attribute_{number}": rotating for number, rotating in enumerate([SHORT, NUMBER] * 15)},
        images=many({"type": "string", "format": "uri"}, 8),
    ),
    "tree": {
        "$defs": {
            "node": thing(1, name=SHORT, value=NUMBER, children=many({"$ref": "#/$defs/node"}))
        },
        "$ref": "#/$defs/node",
    },
    "deployment": thing(
        3,
        name={"type": "string", "pattern": "^[a-z][a-z0-9-]{0,40}$"},
        image=SHORT,
        replicas={**COUNT, "maximum": 100},
        ports=many(thing(1, port={**COUNT, "maximum": 65535}, protocol=one_of("TCP", "UDP"))),
        env=many(thing(name=SHORT, value=TEXT)),
        labels={"type": "object", "additionalProperties": SHORT},
        limits=thing(0, cpu=SHORT, memory={"type": "string", "pattern": "^[0-9]+(Mi|Gi)$"}),
        probes=many(thing(2, kind=one_of("http", "tcp"), path=SHORT, port=COUNT, every_s=COUNT), 3),
    ),
}
