import json
import re
from pathlib import Path
from typing import Annotated, ClassVar

import msgspec
import pytest
from msgspec import Meta

from studbook.records import KINDS, Record, Zone

SCHEMAS = Path(__file__).resolve().parents[2] / "schemas"


@pytest.fixture
def schemas(tool):
    return tool("schemas")


def test_there_is_one_schema_a_kind_and_nothing_else():
    names = {path.name for path in SCHEMAS.iterdir()}
    assert names == {f"{kind.replace('/', '-')}.json" for kind in KINDS} | {"shipped.json"}


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_shipped_kind_never_changes(schemas, name):
    shipped = json.loads((SCHEMAS / "shipped.json").read_text(encoding="utf-8"))
    assert schemas.rules_sha256(KINDS[name]) == shipped[name], f"{name} was shipped: give the new rules a new version"


@pytest.mark.parametrize("name", sorted(KINDS))
def test_a_kind_is_strict_versioned_and_without_defaults(name):
    kind = KINDS[name]
    assert re.fullmatch(r"[a-z-]+/[1-9]\d*", name)
    assert isinstance(kind.zone, Zone)
    schema = json.loads((SCHEMAS / f"{name.replace('/', '-')}.json").read_text(encoding="utf-8"))
    for rules in schema["$defs"].values():
        if rules.get("type") == "object" and "properties" in rules:
            assert rules["additionalProperties"] is False
            assert sorted(rules["required"]) == sorted(rules["properties"])


def _kinds_like(rule: str, words: str) -> type[Record]:
    class Swan(Record, frozen=True, kw_only=True, tag="swan/1"):
        zone: ClassVar[Zone] = Zone.REGISTRY
        number: Annotated[str, Meta(pattern=rule, description=words)]

    return Swan


def test_the_digest_of_the_rules_follows_the_rules_and_not_the_words(schemas):
    first = schemas.rules_sha256(_kinds_like(r"^\d+\Z", "a number"))
    assert schemas.rules_sha256(_kinds_like(r"^\d+\Z", "said in another way")) == first
    assert schemas.rules_sha256(_kinds_like(r"^\d\Z", "a number")) != first


def test_patterns_are_written_for_readers_that_are_not_python(schemas):
    text = msgspec.json.encode(schemas.schema_of(_kinds_like(r"\Aa+\Z", "a"))).decode()
    assert '"^a+$"' in text
    assert not [p.name for p in SCHEMAS.iterdir() if re.search(r"\\\\[AZ]", p.read_text(encoding="utf-8"))]


def test_a_shipped_kind_that_changed_is_refused_and_not_overwritten(schemas, tmp_path, capsys):
    assert schemas.main(["--folder", str(tmp_path)]) == 0
    path = tmp_path / "shipped.json"
    shipped = json.loads(path.read_text(encoding="utf-8"))
    name = sorted(shipped)[0]
    path.write_text(json.dumps(shipped | {name: "0" * 64}), encoding="utf-8")
    assert schemas.main(["--folder", str(tmp_path)]) == 1
    assert f"changed after it was shipped: {name}" in capsys.readouterr().out
    assert json.loads(path.read_text(encoding="utf-8"))[name] == "0" * 64
