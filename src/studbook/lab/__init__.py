"""The door: one `Lab` for everything the command line can do, each verb one method.

`round` is the blueprint, `rounds` holds it line for line; `founding` makes a lab, `sources` lets parents in, `suites`
freezes what judges, `breeding` makes candidates, `judging` scores them, `channels` moves them, `canaries` tries them on
requests, `rollbacks` goes back, `review` packs what a person reads first, `audit` walks everything, `reading` looks.
Only this package writes the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from studbook.breeding.produce import CHUNK
from studbook.errors import UsageError
from studbook.lab import (
    approvals,
    assembling,
    breeding,
    channels,
    checkpoints,
    demo,
    doctor,
    evolving,
    founding,
    halting,
    judging,
    mating,
    moving,
    populations,
    publish,
    pull,
    readiness,
    rounds,
    search,
    serving,
    sources,
    storage,
)
from studbook.lab.adapters import Adapters
from studbook.lab.desk import Desk, default_keys
from studbook.lab.evaluators import Evaluators
from studbook.lab.experiments import Experiments
from studbook.lab.export import export
from studbook.lab.keys import Keys
from studbook.lab.looks import Looks
from studbook.lab.moves import Moves
from studbook.lab.package_host import finish_packages
from studbook.lab.packages import Packages
from studbook.lab.papers import Papers
from studbook.lab.partitions import Partitions
from studbook.lab.pending import Signed, waits
from studbook.lab.policies import Policies
from studbook.lab.producers import Producer
from studbook.lab.progress import Progress
from studbook.lab.proposals import Proposals
from studbook.lab.redteam import red_team
from studbook.lab.routes import Routes
from studbook.lab.serving import Servers
from studbook.lab.stages import approve_stage
from studbook.lab.suites import Suites
from studbook.population import PoolMethod
from studbook.records import (
    CompatibilityReport,
    ParentApproval,
    Policy,
    ReadinessRecord,
    RedTeamReport,
    SourceManifest,
)
from studbook.seal import Passphrase

__all__ = ["Lab"]


class Lab(Moves, Looks):
    """An opened lab.

    Args:
        path: The lab's folder.
        keys: Folder of private keys; ``<lab>.keys`` beside it by default.
        writer: Take the lock, and finish what a crash left; False only reads.
        still: As a reader, refuse while somebody writes, and keep writers out meanwhile.
        progress: Where long steps are shown; nowhere by default.
        passphrase: Asked for the passphrase of an encrypted key file; such keys stay closed by default.
        witness: Folder of the lab's witness; ``<lab>.witness`` beside it by default.

    Raises:
        StudbookError: any of its kinds, if the folder is not a lab or its ledger does not verify.
    """

    def __init__(
        self,
        path: Path | str,
        keys: Path | None = None,
        *,
        writer: bool = True,
        still: bool = False,
        progress: Progress | None = None,
        passphrase: Passphrase | None = None,
        witness: Path | None = None,
    ) -> None:
        super().__init__(
            Desk(
                Path(path), keys, writer=writer, still=still, progress=progress, passphrase=passphrase, witness=witness
            )
        )
        self.suites = Suites(self.desk)
        self.adapters = Adapters(self.desk)
        self.experiments = Experiments(self.desk)
        self.keys = Keys(self.desk)
        self.policies = Policies(self.desk)
        self.packages = Packages(self.desk)
        self.partitions = Partitions(self.desk)
        self.proposals = Proposals(self.desk)
        self.evaluators = Evaluators(self.desk)
        self.routes = Routes(self.desk)
        self.servers = Servers(self.desk)
        if writer:
            channels.finish_aliases(self.desk)
            storage.finish_withdrawals(self.desk)
            finish_packages(self.desk)
            halting.finish_halts(self.desk)

    def __enter__(self) -> Lab:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the lab for the next process; what running trials saw is written first."""
        self.canaries.flush()
        self.desk.close()

    @classmethod
    def init(
        cls,
        path: Path,
        owner: str,
        keys: Path | None = None,
        policy: Policy | None = None,
        witness: Path | None = None,
    ) -> Path:
        """Make a new lab: keys, root, policy, witness. Returns the folder of the keys."""
        return founding.found(path, owner, keys, policy, witness)

    def witness(self) -> int:
        """Let a new witness begin with the lab as it is; returns how many entries it saw."""
        return founding.appoint(self.desk)

    def register(
        self, path: Path, name: str | None = None, licence: str | None = None, producer: Producer | None = None
    ) -> tuple[SourceManifest, ...]:
        """Register a founder folder, a model, a manifest, a checkpoint or a LoRA folder, signed or not."""
        return sources.register(self.desk, path, name, licence, producer)

    def approve(
        self, name: str, person: str, clusters: Sequence[str] = ("*",), until: str = "", reason: str = ""
    ) -> ParentApproval | Signed:
        """A person's yes: to a registered model as a parent, to a candidate before a stage, or to a record that waits.

        Args:
            name: The model, the candidate, or the digest of what waits.
            person: Who approves.
            clusters: The clusters a parent is approved for; for a candidate its stage, ``shadow`` or ``champion``.
            until: Last day of a parent's approval; a year from today by default.
            reason: Why.

        Raises:
            UsageError: if there is nothing of that name, or what was said means nothing for it.
            NotAuthorised: if the person's key is not at hand.
            OutOfOrder: if the lab does not carry the record, or the candidate does not stand before that stage.
        """
        if waits(self.desk, name):
            if tuple(clusters) != ("*",) or until or reason:
                advice = "Leave --for, --until and --reason out: the record says itself what is signed."
                raise UsageError("names a record that waits", where=name, advice=advice, reason="usage.ignored")
            return channels.approve_waiting(self.desk, name, person)
        if stage := approvals.stage_of(self.desk, name, clusters, until):
            return approve_stage(self.desk, self.desk.find_model(name), stage, person, reason)
        return approvals.approve(self.desk, name, person, clusters, until, reason)

    def compare(self, base: str, parents: Sequence[str], cluster: str | None = None) -> CompatibilityReport:
        """Whether parents fit their base and each other; with a cluster, also the interpolation barrier."""
        found = self.desk.find_model(base)
        if cluster and sources.slice_of(self.desk, cluster, found) is None:
            raise UsageError(f"{base} has no training slice for {cluster!r}", where="--cluster")
        rows = sources.slice_of(self.desk, cluster, found) if cluster else None
        names = [self.desk.find_model(p) for p in parents]
        return sources.compare_parents(self.desk, found, names, rows[1] if rows else None)[1]

    def breed(
        self,
        cluster: str | None,
        recipe: Mapping[str, Any],
        parents: Sequence[str] | None = None,
        base: str | None = None,
        threads: int | None = None,
    ) -> str:
        """Breed one candidate without judging it; returns its artifact's digest.

        Args:
            cluster: The failure cluster it is bred for; None for checkpoints, which no suite here can judge.
            recipe: An operator record; for checkpoints also a whole recipe (it has ``parents``), or
                ``{"mergekit": text, "where": name}``.
            parents: Names of the parents; for a cluster every approved one by default.
            base: Name of the checkpoints' shared base, where the operator needs one.
            threads: Threads of a checkpoint's worker; every processor by default.

        Raises:
            UsageError: if base or threads are named beside a cluster, where nothing would read them; ``usage.ignored``.
        """
        if cluster is not None:
            for option, value in (("base", base), ("threads", threads)):
                if value is not None:
                    advice = "A cluster's parents have their base on record, and are bred side by side. Leave it out."
                    raise UsageError("is for checkpoints", where=option, advice=advice, reason="usage.ignored")
            return rounds.breed_one(self.desk, cluster, recipe, parents)
        return checkpoints.breed(self.desk, recipe, parents or (), base, threads)

    def export(self, name: str, folder: Path, papers: Papers | None = None) -> dict[str, str]:
        """Write a checkpoint as a folder, or an SLM1 model as a file, with its records and the documents asked for."""
        return export(self.desk, name, folder, papers)

    def evaluate(self, names: Sequence[str]) -> dict[str, judging.Card]:
        """Scorecards of some models on the development suites, which may be looked at freely.

        Selection and sealed suites are opened by a round alone: whoever looks at them at will learns to pass them.
        """
        artifacts = [self.desk.find_model(n) for n in names]
        judging.require_smoke(self.desk, artifacts)
        return judging.evaluate(self.desk, artifacts, "development")

    def decide(self, cluster: str, candidates: Sequence[str]) -> rounds.Outcome:
        """Judge candidates that were bred already; nothing is released."""
        return rounds.decide_only(self.desk, cluster, candidates)

    def round(
        self,
        cluster: str,
        recipes: Sequence[Mapping[str, Any]] | None = None,
        parents: Sequence[str] | None = None,
        ceiling: str | None = None,
        scope: Sequence[str] = (),
    ) -> rounds.Outcome:
        """One whole round: select, breed, evaluate, decide, release to shadow or archive with reasons.

        With a scope it is for a specialist: those clusters alone are protected, and the winner can only be packaged.
        """
        return rounds.run_round(self.desk, cluster, recipes, parents, ceiling, scope)

    def search(self, cluster: str, request: search.Request, *, resume: bool = False) -> search.Found:
        """Search for a recipe on development items and breed the best one; nothing is judged or released."""
        return search.search(self.desk, cluster, request, resume=resume)

    def review(self) -> populations.Reviewed:
        """Who lives in which population, who dominates whom, and who stands for retirement; moves nothing."""
        return populations.review(self.desk)

    def parents(
        self, label: str, method: PoolMethod = "niches", size: int = 5, seed: int = 1, *, keep: bool = False
    ) -> mating.Mates:
        """Who would have children together for a cluster, and why; breeds nothing, and keeps the draw only if asked."""
        return mating.mates(self.desk, label, method, size, seed, keep=keep)

    def evolve(self, plan: evolving.Plan, person: str | None = None, folder: Path | None = None) -> evolving.Evolution:
        """Hold generations: parents, recipes, a round, and with a person's key the promotion of its winner."""
        return evolving.evolve(self.desk, plan, person, folder)

    def reproduce(
        self, name: str, folder: Path | None = None, threads: int = 1, chunk: int = CHUNK, *, restore: bool = False
    ) -> str:
        """Breed a candidate again from its receipt and compare digests."""
        return breeding.reproduce(self.desk, name, folder=folder, threads=threads, chunk=chunk, restore=restore)

    def ready(self) -> ReadinessRecord:
        """Run the five exit criteria and record the result."""
        return readiness.readiness(self.desk)

    def redteam(self) -> RedTeamReport:
        """Run every candidate that cheats against the evaluator, and record whether each was rejected for its reason."""
        return red_team(self.desk)[1]

    def gc(self, *, dry_run: bool = False) -> storage.Cleared:
        """Free what nothing needs and a receipt makes again, with a record of it."""
        return storage.clear(self.desk, dry_run=dry_run)

    def withdraw(self, name: str, person: str, reason: str) -> storage.Withdrawal:
        """A person takes back a model or data: a signed tombstone stays, the bytes go."""
        return storage.withdraw(self.desk, name, person, reason)

    def backup(self, folder: Path) -> moving.Copied:
        """Copy the lab to a folder that is a lab itself, or bring an earlier copy up to date; wants a still reader."""
        return moving.backup(self.desk, folder)

    @classmethod
    def restore(cls, copy: Path, path: Path, keys: Path | None = None, witness: Path | None = None) -> moving.Copied:
        """Make a lab anew from a copy, after all of the copy was verified."""
        desk = Desk(copy, keys or default_keys(path), writer=False, still=True)
        try:
            return moving.restore(desk, path, witness, keys)
        finally:
            desk.close()

    @classmethod
    def upgrade(cls, path: Path, keys: Path | None = None, witness: Path | None = None) -> moving.Upgraded:
        """Bring a lab of an older format to this one, after all of it was verified."""
        desk = Desk(path, keys, witness=witness, older=True)
        try:
            return moving.upgrade(desk)
        finally:
            desk.close()

    def assemble(self, channel: str, folder: Path, wanted: assembling.Wanted | None = None) -> assembling.Assembled:
        """Write what a channel points at as a bundle: a page, and everything it verifies before it runs the model."""
        return assembling.assemble(self.desk, channel, folder, wanted or assembling.Wanted())

    def publish(self, folder: Path, days: int = publish.DAYS) -> publish.Published:
        """Enter a snapshot of the channels and bring a folder up to it, for those who have no lab."""
        return publish.publish(self.desk, folder, days)

    @classmethod
    def pull(cls, request: pull.Request, progress: Progress | None = None) -> pull.Pulled:
        """Bring a channel's artifact here from a publication, verified from a root of keys alone; needs no lab."""
        return pull.pull(request, progress)

    def serve(self, wanted: serving.Serving, ready: Callable[[str], None]) -> None:
        """Answer requests with the champion, and the trials beside it, until told to stop; `ready` is told the address."""
        serving.serve(self, wanted, ready)

    @classmethod
    def doctor(cls, folder: Path = Path(), progress: Progress | None = None) -> doctor.Examination:
        """Warm the kernels and look at the machine; needs no lab."""
        return doctor.examine(folder, lambda tag: progress.say(f"kernels of {tag}") if progress else None)

    @classmethod
    def demo(cls, folder: Path, progress: Progress | None = None) -> demo.DemoReport:
        """Two rounds under one policy on the shipped founders: one promotes, one is an honest no-op."""
        return demo.run(cls, folder, progress)
