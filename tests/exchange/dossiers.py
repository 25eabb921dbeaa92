"""A dossier made of real records, so that writers are tested without a lab."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from studbook.exchange.dossier import Ancestor, Compared, Dataset, Dossier, Making, Member
from studbook.models.shape import SlmShape
from studbook.models.slm import Slm, parse_slm, write_slm
from studbook.models.tokenizers import ByteTokenizer
from studbook.records import (
    Agreement,
    Blob,
    CandidateManifest,
    Comparison,
    Expected,
    Header,
    InputDigest,
    LineageTemplate,
    LogitDigest,
    LoraSource,
    Measure,
    OperatorReceipt,
    ProducerSignature,
    Rung,
    RuntimeSmoke,
    Scorecard,
    SourceManifest,
    SuiteManifest,
    SuiteResult,
    WorkerLimits,
    digest,
)
from studbook.seal import SigningKey

HEADER = Header(source="studbook", version="0.1.0", environment="cpython-3.11 numpy-2.4.6 linux-x86_64", owner="ann")
KEY = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
BASE, FIRST, SECOND, LAB = ("0b" * 32, "1f" * 32, "25" * 32, "ab" * 32)
POLICY, CLUSTER, DATA, DECISION, LOOK = ("aa" * 32, "c1" * 32, "da" * 32, "de" * 32, "10" * 32)
THREE = frozenset((Rung.STRUCTURAL, Rung.SMOKE, Rung.TRAINED))
RECIPE: dict[str, Any] = {"operator": "blend/1", "weights": [0.25, 0.75]}


@cache
def model() -> tuple[bytes, Slm]:
    """A container of several chunks, and what it holds."""
    shape = SlmShape(260, 128, 2, 4, 2, 32, 256, 32, 10000.0, 1e-5, True)
    values = {spec.name: np.ones(spec.dims, np.float32) for spec in shape.tensors()}
    data = write_slm(shape, ByteTokenizer(), values)
    return data, parse_slm(data)


def candidate(**changes: Any) -> Dossier:
    """A bred model with a scorecard on two suites, a comparison on selection and one on sealed items."""
    artifact = Blob(sha256=model()[1].sha256, size=model()[1].size)
    making, manifest = _made(artifact)
    suites = {digest(suite): suite for suite in (_suite("skill", "task"), _suite("sure", "calibration"))}
    card = _card(artifact.sha256, tuple(suites))
    first = next(iter(suites))
    fields: dict[str, Any] = {
        "header": HEADER,
        "lab": LAB,
        "name": manifest.name,
        "artifact": artifact.sha256,
        "form": "slm",
        "files": (Member(path="blend-1.slm", sha256=artifact.sha256, size=artifact.size),),
        "licence": "CC0-1.0",
        "record": digest(manifest),
        "manifest": manifest,
        "recorded": "2026-01-02T03:04:07.000000Z",
        "making": making,
        "signed": (),
        "ancestors": (
            Ancestor(name="base", artifact=BASE, role="base", licence="CC0-1.0"),
            Ancestor(name="one", artifact=FIRST, role="parent", licence="MIT"),
            Ancestor(name="two", artifact=SECOND, role="parent", licence=None),
        ),
        "data": (Dataset(name="rows", record=DATA, sha256="d0" * 32, size=12),),
        "smoke": (digest(_smoke(artifact.sha256)), _smoke(artifact.sha256)),
        "cards": ((digest(card), card),),
        "suites": suites,
        "compared": (
            Compared(record=DECISION, role="selection", against="one", suites=(first,), comparison=_row("skill", 0.25)),
            Compared(record=LOOK, role="sealed", against="base", suites=(first,), comparison=_row("skill", -0.125)),
        ),
        "claim": Rung.TRAINED,
        "evidence": THREE,
    }
    return Dossier(**(fields | changes))


def lora(**changes: Any) -> Dossier:
    """A registered LoRA folder: nothing was measured, and it claims nothing."""
    source = LoraSource(rank=4, tensors=8, base_name="some/base-model", licence=None)
    manifest = SourceManifest(
        header=HEADER,
        name="tuned",
        artifact=Blob(sha256="70" * 32, size=9),
        files=(),
        source=source,
        unsupported=("other bases",),
    )
    fields: dict[str, Any] = {
        "header": HEADER,
        "lab": LAB,
        "name": "tuned",
        "artifact": "70" * 32,
        "form": "lora",
        "files": (
            Member(path="adapter_config.json", sha256="71" * 32, size=3),
            Member(path="adapter_model.safetensors", sha256="72" * 32, size=6),
        ),
        "licence": None,
        "record": digest(manifest),
        "manifest": manifest,
        "recorded": "2026-01-02T03:04:05.000000Z",
        "making": None,
        "signed": (("51" * 32, signature("tuned by *nobody* | you know")),),
        "ancestors": (),
        "data": (),
        "smoke": None,
        "cards": (),
        "suites": {},
        "compared": (),
        "claim": None,
        "evidence": frozenset((Rung.STRUCTURAL,)),
    }
    return Dossier(**(fields | changes))


def signature(name: str) -> ProducerSignature:
    """A producer's signature over the LoRA folder."""
    return ProducerSignature(
        header=HEADER,
        artifact="70" * 32,
        source="5e" * 32,
        form="oms",
        key_sha256="4e" * 32,
        document_sha256="d1" * 32,
        name=name,
        covered=("adapter_config.json", "adapter_model.safetensors"),
        absent=(),
    )


def with_texts(text: str) -> Dossier:
    """A dossier with a foreign text in every place where one can stand, past what records themselves refuse."""
    plain = candidate()
    replace = msgspec.structs.replace
    manifest = replace(plain.manifest, unsupported=(text,), trade_offs=(text,), family=text)
    row = replace(plain.compared[0].comparison, on=text, method=text)
    assert plain.making is not None
    recipe = RECIPE | {"skip": [text]}
    return replace(
        plain,
        name=text,
        licence=text,
        manifest=manifest,
        making=replace(plain.making, template=replace(plain.making.template, operator=recipe)),
        files=(replace(plain.files[0], path=text),),
        ancestors=(replace(plain.ancestors[0], name=text, licence=text),),
        data=(replace(plain.data[0], name=text),),
        compared=(replace(plain.compared[0], against=text, comparison=row),),
    )


def _made(artifact: Blob) -> tuple[Making, CandidateManifest]:
    limits = WorkerLimits(seconds=60, memory_bytes=1 << 30, output_bytes=1 << 27)
    expected = Expected(
        layout_sha256=model()[1].layout_sha256,
        tokenizer_sha256=model()[1].tokenizer_sha256,
        label="f32",
        size_bytes=artifact.size,
        delta_norm=2.0,
        relative_delta=0.5,
    )
    template = LineageTemplate(
        header=HEADER,
        purpose="candidate",
        cluster=CLUSTER,
        policy=POLICY,
        compatibility=None,
        base=BASE,
        parents=(FIRST, SECOND),
        operator=RECIPE,
        recipe_sha256=digest(RECIPE),
        numeric_contract="0c" * 32,
        limits=limits,
        expected=expected,
    )
    roles: tuple[Any, ...] = (("base", BASE), ("parent", FIRST), ("parent", SECOND))
    receipt = OperatorReceipt(
        header=HEADER,
        template=digest(template),
        operator=RECIPE,
        inputs=tuple(InputDigest(role=role, before=found, after=found) for role, found in roles),
        numeric_contract="0c" * 32,
        isolation=("seccomp",),
        output=artifact,
        delta_norm=1.5,
        reproducibility="exact",
    )
    manifest = CandidateManifest(
        header=HEADER,
        name="blend-1",
        artifact=artifact,
        family="blend",
        purpose="candidate",
        template=digest(template),
        receipt=digest(receipt),
        checks=(),
        licence="CC0-1.0",
        data=(DATA,),
        claim=Rung.STRUCTURAL,
        unsupported=("long texts",),
        trade_offs=("moved a little",),
        fallback=BASE,
    )
    times = {"started": "2026-01-02T03:04:05.000000Z", "finished": "2026-01-02T03:04:06.000000Z"}
    return Making(template=template, receipt=receipt, **times), manifest


def _suite(name: str, dimension: Any) -> SuiteManifest:
    return SuiteManifest(
        header=HEADER,
        name=f"selection-{name}",
        role="selection",
        dimension=dimension,
        cluster=name,
        items=Blob(sha256=digest(name), size=4),
        count=4,
        scorer="exact-match" if dimension == "task" else "proper-scores",
        scorer_sha256="5c" * 32,
        max_new_tokens=4,
        pass_mark=0.5,
        licence="CC0-1.0",
        floor="f1" * 32,
    )


def _card(artifact: str, suites: tuple[str, ...]) -> Scorecard:
    rows = [("skill", "task", "1101", ""), ("sure", "calibration", "1111", "100000 200000 300000 400000")]
    results = tuple(
        SuiteResult(
            suite=suite,
            cluster=cluster,
            dimension=dimension,
            items_before="11" * 32,
            items_after="11" * 32,
            expected_calls=4,
            actual_calls=4,
            correct=correct,
            loglik_micro="-1 -2 -3 -4",
            brier_micro=briers,
            written="",
            verdict="pass",
            detail="",
        )
        for suite, (cluster, dimension, correct, briers) in zip(suites, rows, strict=True)
    )
    return Scorecard(
        header=HEADER,
        artifact=artifact,
        role="selection",
        evaluator="e7" * 32,
        mode="score",
        agreement=Agreement(sampled=2, agreed=2),
        results=results,
        cost=(Measure(value=1024.0, unit="bytes", basis="observed", method="size of the artifact"),),
        isolation=("seccomp",),
    )


def _smoke(artifact: str) -> RuntimeSmoke:
    return RuntimeSmoke(
        header=HEADER,
        artifact=artifact,
        evaluator="e7" * 32,
        engine="b2" * 32,
        prompts="b0" * 32,
        outputs_sha256="b1" * 32,
        tokens=8,
        logits=LogitDigest(positions=63, sha256="b3" * 32),
        fuel=1,
        finite=True,
        deterministic=True,
        passed=True,
        detail="",
    )


def _row(on: str, difference: float) -> Comparison:
    return Comparison(
        test="superiority",
        against=BASE,
        on=on,
        items=4,
        wins=2,
        losses=1,
        difference=difference,
        lower=difference - 0.1,
        upper=difference + 0.1,
        p_value=0.5,
        threshold=0.0,
        passed=difference > 0,
        method="paired, by item",
        scorecards=(),
    )
