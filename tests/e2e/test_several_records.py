# Copyright (c) 2026, the keeperpam.azure contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Several records name one application, or a record comes to name another: what one shows, no run for another removes.

A run knows of it by the secret's name in Entra (``keeper/<record uid>/<run id>``), or because it has read the record.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import FORMS, SCRIPT, Result, World, make_world, run_module, run_script
from judge import Judge

from sandbox.vault import VaultRecord

BY = pytest.mark.parametrize("by", ["object_id", "client_id"])


def two_records(world: World, by: str = "object_id") -> VaultRecord:
    """Let the world's record A show a secret of its own, and return a second record B that does."""
    other = world.add_record("billing-batch", None, by)
    world.publish(other, world.add_marked(other, hours=48))
    mine = world.add_marked(world.record)
    world.app.remove_secret(world.old.key_id)
    world.publish(world.record, mine)
    return other


def rotate(world: World, form: str, record: VaultRecord, **options: object) -> Result:
    """Rotate one of the records; it must end complete."""
    result = FORMS[form](world.seen_from(record), **options)
    assert result.status == "rotated", result.said()
    return result


@BY
def test_one_after_the_other(form: str, by: str) -> None:
    with make_world() as world:
        other = two_records(world, by)
        judge = Judge(world, form)
        for record in (world.record, other, world.record, other):
            result = rotate(world, form, record)
            assert not judge.verdict.problems, judge.verdict.problems
            assert world.seen_from(world.record).alive()
            assert world.seen_from(other).alive()
            assert len(world.live()) == 2
            assert len(result.kept()) == 1


@BY
def test_both_at_once(form: str, by: str) -> None:
    with make_world() as world:
        other = two_records(world, by)
        judge = Judge(world, form)
        with ThreadPoolExecutor(2) as pool:
            results = list(pool.map(lambda record: rotate(world, form, record), (world.record, other)))
        assert not judge.verdict.problems, judge.verdict.problems
        assert {world.shows(), other.value("client_secret_id")} <= world.live()
        assert all(one.changed for one in results)
        for record in (world.record, other):
            rotate(world, form, record)
        assert not judge.verdict.problems, judge.verdict.problems
        assert world.live() == {world.shows(), other.value("client_secret_id")}


def test_a_copy_is_not_kept_up_but_loses_nothing_for_others(form: str) -> None:
    with make_world() as world:
        mine = world.add_marked(world.record)
        world.publish(world.record, mine)
        copy = world.sandbox.vault.copy(world.record.uid)
        judge = Judge(world, form)
        judge.unknowable(copy.uid)  # it shows what the other record shows, and no name in Entra says so
        rotate(world, form, world.record)
        assert world.alive()
        for record in (copy, world.record, copy):
            rotate(world, form, record)
            assert world.alive()
            assert world.seen_from(copy).alive()
        assert not judge.verdict.problems, judge.verdict.problems
        assert world.live() == {world.shows(), copy.value("client_secret_id")}


def test_the_doctor_names_the_other_records(world: World) -> None:
    others = [world.add_record("billing-batch", world.old), world.add_record("billing-jobs", None, "client_id")]
    said = run_script(world, "--doctor").said()
    assert all(other.uid in said for other in others)


def test_a_secret_by_hand_in_two_records_is_unknown_to_a_run_that_reads_one(form: str) -> None:
    with make_world() as world:
        other = world.add_record("billing-batch", world.old)
        judge = Judge(world, form)
        judge.unknowable(other.uid)
        rotate(world, form, world.record)
        assert world.agrees()
        assert judge.verdict.exempt == 1
        rotate(world, form, other)
        assert not judge.verdict.problems, judge.verdict.problems
        assert world.alive()
        assert world.seen_from(other).alive()


def test_a_secret_by_hand_that_an_attached_record_shows_is_kept(world: World) -> None:
    other = world.add_record("billing-batch", world.old)
    world.sandbox.vault.attach_script(world.record, SCRIPT, credentials=[other.uid])
    judge = Judge(world, "script")
    result = rotate(world, "script", world.record)
    assert world.old.key_id in result.kept()
    assert world.seen_from(other).alive()
    assert not judge.verdict.problems, judge.verdict.problems


class TestTheMarkOfAnotherRecord:
    """A secret that bears another record's name."""

    def test_it_is_kept_where_that_record_shows_it_whatever_adopt_says(self, form: str) -> None:
        with make_world() as world:
            other = two_records(world)
            world.record.edit("adopt", other.uid)
            judge = Judge(world, form)
            result = rotate(world, form, world.record)
            assert other.value("client_secret_id") in result.kept()
            assert not judge.verdict.problems, judge.verdict.problems

    @pytest.mark.parametrize("hidden", [False, True], ids=["does not show it", "cannot be seen"])
    def test_it_is_kept_with_a_warning_and_adopt_makes_it_old(self, form: str, hidden: bool) -> None:
        with make_world() as world:
            other = two_records(world)
            lost = world.add_marked(other, hours=72)
            if hidden:
                world.sandbox.vault.remove(other.uid)
            result = rotate(world, form, world.record)
            assert lost.key_id in result.kept()
            assert other.uid in result.words()
            world.record.edit("adopt", other.uid)
            judge = Judge(world, form)
            result = rotate(world, form, world.record)
            assert lost.key_id in result.output["removed"]
            assert len(world.live()) == (1 if hidden else 2)
            assert not judge.verdict.problems, judge.verdict.problems

    def test_adopt_is_an_option_of_the_module(self, world: World) -> None:
        other = two_records(world)
        world.sandbox.vault.remove(other.uid)
        rotate(world, "module", world.record, adopt=[other.uid])
        assert world.agrees()

    def test_a_name_without_a_uid_is_that_of_a_record_that_cannot_be_seen(self, form: str) -> None:
        with make_world() as world:
            odd = world.add_marked("no uid at all")
            result = rotate(world, form, world.record)
            assert odd.key_id in result.kept()
            assert odd.key_id in world.live()


class TestAnotherApplication:
    """The record comes to name another application than the one that it shows a secret of."""

    @staticmethod
    def _others(world: World) -> tuple[World, str, str]:
        other = world.sandbox.directory.add_application("other", owners=[world.admin.client_id])
        seen = world.seen_from(world.record, other)
        by_hand = other.add_secret("by hand", days=200)
        return seen, by_hand.key_id, seen.add_marked("AAAAAAAAAAAAAAAAAAAAAA").key_id

    def test_nothing_of_it_is_removed_in_the_first_run(self, form: str) -> None:
        with make_world() as world:
            seen, by_hand, marked = self._others(world)
            world.record.edit("application_object_id", seen.app.object_id)
            result = rotate(seen, form, world.record)
            assert {by_hand, marked} <= set(result.kept())
            assert {by_hand, marked} <= seen.live()
            assert by_hand in result.message
            assert " Next: " in result.message
            assert seen.alive()
            result = rotate(seen, form, world.record)
            assert result.output["removed"]
            assert seen.live() == {seen.shows(), marked}
            assert world.live() == {world.old.key_id}

    @pytest.mark.parametrize("secret", ["not-a-secret-of-this-application", None], ids=["a dead secret", "none"])
    def test_a_key_id_that_the_application_never_had(self, form: str, secret: str | None) -> None:
        never = "0b5b5b4e-0000-4000-8000-000000000001"
        with make_world(client_secret_id=never, client_secret=secret) as world:
            result = rotate(world, form, world.record)
            assert world.old.key_id in result.kept()
            assert world.old.key_id in result.message
            assert never in result.words()
            rotate(world, form, world.record)
            assert world.agrees()

    def test_a_secret_that_signs_in_is_of_this_application_whatever_the_key_id(self, form: str) -> None:
        with make_world(client_secret_id="0b5b5b4e-0000-4000-8000-000000000001") as world:
            world.app.add_secret("second", days=100)
            rotate(world, form, world.record)
            assert world.agrees()


class TestTheAdminApplication:
    """No record but its own may become a holder of the admin application's secrets."""

    @staticmethod
    def _refused(result: Result, before: dict, world: World) -> None:
        assert result.status in ("refused", "bad_input"), result.said()
        assert result.changed is False
        assert world.sandbox.vault.snapshot() == before
        assert [one.key_id for one in world.admin.live_secrets()] == [world.admin_secret.key_id]
        assert not set(world.operations()) & {"addPassword", "removePassword", "update_secret"}

    @pytest.mark.parametrize("typed_in", [False, True], ids=["named", "application_client_id typed in"])
    @pytest.mark.parametrize("by", ["object_id", "client_id"])
    @pytest.mark.parametrize("days", ["365", "36500"])
    def test_of_the_pam_configuration(self, form: str, typed_in: bool, by: str, days: str) -> None:
        with make_world(retire="none", lifetime_days=days) as world:
            world.admin.owners.append(world.admin.client_id)
            world.record.edit("application_object_id", getattr(world.admin, by))
            if typed_in:
                world.record.edit("application_client_id", world.admin.client_id)
                world.record.edit("tenant_id", world.sandbox.tenant_id)
            before = world.sandbox.vault.snapshot()
            self._refused(FORMS[form](world), before, world)

    def test_of_an_attached_record(self, form: str) -> None:
        with make_world(retire="none") as world:
            world.admin.owners.append(world.admin.client_id)
            attached = world.sandbox.vault.pam_user(
                "rotator",
                application_client_id=world.admin.client_id,
                client_secret=world.admin_secret.text,
                tenant_id=world.sandbox.tenant_id,
            )
            world.record.edit("application_object_id", world.admin.object_id)
            if form == "script":
                world.sandbox.vault.attach_script(world.record, SCRIPT, credentials=[attached.uid])
            before = world.sandbox.vault.snapshot()
            if form == "script":
                self._refused(run_script(world), before, world)
            else:
                self._refused(run_module(world, admin_record=attached.uid), before, world)

    @pytest.mark.parametrize("days", ["731", "36500"])
    def test_a_record_gives_no_secret_for_more_than_two_years(self, form: str, days: str) -> None:
        with make_world(lifetime_days=days) as world:
            assert FORMS[form](world).status == "bad_input"
            assert world.untouched()
