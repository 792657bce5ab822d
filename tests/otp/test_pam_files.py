"""users.oath and ~/.google_authenticator: what the modules remember stays, and used codes stay used."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.tools.otp import google_authenticator, oath_users
from reconciler.tools.otp.google_authenticator import FileDamaged, UserFile
from reconciler.tools.otp.oath_users import UserToken

ALICE, BOB = "00" * 20, "11" * 20
USERS = f"""\
# Our tokens; keep this line.

HOTP/T30/6 alice  -\t{ALICE}\t7\t328482\t2026-11-22T09:41:30L
HOTP carol + aabb 5 123456 2026-11-22T09:41:31L
nonsense that the module skips
HOTP/T60/8\tdave\t-\tccdd
"""


class TestOathUsers:
    def test_what_stays_is_not_touched(self) -> None:
        assert oath_users.merge(USERS, [], []) == USERS
        assert oath_users.merge(USERS, [UserToken("alice", ALICE)], ["alice"]) == USERS
        assert (
            oath_users.merge(USERS, [UserToken("alice", ALICE.upper()), UserToken("dave", "CCDD", "HOTP/T60/8")])
            == USERS
        )
        assert oath_users.merge(USERS, [UserToken("carol", "aabb", "HOTP/E/6")]) == USERS, "HOTP is HOTP/E/6"

    def test_another_user_does_not_reset_a_memory(self) -> None:
        found = oath_users.merge(USERS, [UserToken("alice", ALICE), UserToken("bob", BOB)], ["alice", "bob"])
        assert found == USERS + f"HOTP/T30/6\tbob\t-\t{BOB}\n"

    def test_a_new_secret_starts_without_memory(self) -> None:
        found = oath_users.merge(USERS, [UserToken("alice", BOB)])
        assert found == USERS.replace(USERS.splitlines()[2], f"HOTP/T30/6\talice\t-\t{BOB}")

    def test_another_type_starts_without_memory(self) -> None:
        found = oath_users.merge(USERS, [UserToken("alice", ALICE, "HOTP/T30/8")])
        assert f"HOTP/T30/8\talice\t-\t{ALICE}\n" in found
        assert "328482" not in found

    def test_a_pin_changes_alone(self) -> None:
        found = oath_users.merge(USERS, [UserToken("alice", ALICE, pin="1234")])
        assert f"HOTP/T30/6\talice\t1234\t{ALICE}\t7\t328482\t2026-11-22T09:41:30L\n" in found

    def test_removal(self) -> None:
        assert oath_users.merge(USERS, [], ["alice"]) == USERS.replace(USERS.splitlines(True)[2], "")
        assert oath_users.merge(USERS, [], ["nobody"]) == USERS

    def test_duplicates(self) -> None:
        twice = USERS + f"HOTP/T30/6 alice - {ALICE}\nHOTP/T30/6 alice - {BOB}\n"
        assert oath_users.merge(twice, [UserToken("alice", ALICE)]) == USERS

    def test_two_tokens_of_a_user(self) -> None:
        wanted = [UserToken("alice", ALICE), UserToken("alice", BOB, "HOTP/E/6")]
        found = oath_users.merge(USERS, wanted)
        assert found == USERS + f"HOTP/E/6\talice\t-\t{BOB}\n"
        assert oath_users.merge(found, wanted) == found
        with pytest.raises(ValueError, match="two tokens of one type"):
            oath_users.merge("", [UserToken("alice", ALICE), UserToken("alice", BOB)])

    def test_from_nothing(self) -> None:
        assert oath_users.merge("", [UserToken("alice", ALICE, pin="-")]) == f"HOTP/T30/6\talice\t-\t{ALICE}\n"
        assert oath_users.merge("# x", [UserToken("a", "00")]) == "# x\nHOTP/T30/6\ta\t-\t00\n"

    @pytest.mark.parametrize(
        ("fields", "message"),
        [
            (("", ALICE), "cannot be a user"),
            (("#alice", ALICE), "cannot be a user"),
            (("al ice", ALICE), "cannot be a user"),
            (("a\nHOTP root - 00", ALICE), "cannot be a user"),
            (("alice", "abc"), "hexadecimal"),
            (("alice", ""), "hexadecimal"),
            (("alice", "zz"), "hexadecimal"),
            (("alice", ALICE + "\n"), "hexadecimal"),
            (("alice", ALICE, "TOTP"), "must be HOTP"),
            (("alice", ALICE, "HOTP/T45"), "must be HOTP"),
            (("alice", ALICE, "HOTP/T30/9"), "must be HOTP"),
            (("alice", ALICE, "HOTP", "1 2"), "PIN"),
        ],
    )
    def test_what_does_not_fit(self, fields: tuple[str, ...], message: str) -> None:
        with pytest.raises(ValueError, match=message):
            UserToken(*fields)

    def test_not_shown(self) -> None:
        assert ALICE not in repr(UserToken("alice", ALICE, pin="1234"))
        assert "1234" not in repr(UserToken("alice", ALICE, pin="1234"))
        assert ALICE not in repr(oath_users.parse(USERS))

    @given(
        st.text(max_size=200),
        st.lists(
            st.sampled_from([UserToken("alice", ALICE), UserToken("bob", BOB), UserToken("bob", ALICE, "HOTP")]),
            unique=True,
        ),
    )
    def test_merging_again_changes_nothing(self, text: str, wanted: list[UserToken]) -> None:
        found = oath_users.merge(text, wanted, ["alice", "bob"])
        assert oath_users.merge(found, wanted, ["alice", "bob"]) == found
        lines = {line.identity for line in oath_users.parse(found)}
        assert {token.identity for token in wanted} <= lines

    @given(
        st.lists(st.sampled_from([*USERS.splitlines(True), "\n", "# x\n", f"HOTP/T30/6 alice - {BOB} 3\n"]), max_size=8)
    )
    def test_foreign_lines_stay_in_order(self, rows: list[str]) -> None:
        found = oath_users.merge("".join(rows), [UserToken("alice", ALICE)]).splitlines(True)
        assert [r for r in found if " alice " not in r and "\talice\t" not in r] == [
            r for r in rows if " alice " not in r
        ]


SECRET, NEW = "4LRW4HZQCC52QP7NIEMCIT4FXYOLWI75", "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
FILE = f"""\
{SECRET}
" RATE_LIMIT 3 30 1795322000 1795322090
" WINDOW_SIZE 5
" DISALLOW_REUSE 59844066 59844069
" TOTP_AUTH
" TIME_SKEW 1
" LAST0 1795322090
11111111
33333333
"""
WANTED = UserFile(SECRET, window=5, scratch_codes=["11111111", "22222222", "33333333"])


class TestGoogleAuthenticator:
    def test_a_new_file(self) -> None:
        assert google_authenticator.merge(None, WANTED) == (
            f'{SECRET}\n" RATE_LIMIT 3 30\n" WINDOW_SIZE 5\n" DISALLOW_REUSE\n" TOTP_AUTH\n'
            "11111111\n22222222\n33333333\n"
        )

    def test_memory_stays_and_used_codes_do_not_come_back(self) -> None:
        assert google_authenticator.merge(FILE, WANTED) == FILE

    def test_options_change_alone(self) -> None:
        found = google_authenticator.merge(FILE, UserFile(SECRET, rate_limit=(5, 60)))
        assert '" RATE_LIMIT 5 60 1795322000 1795322090\n' in found
        assert "WINDOW_SIZE" not in found
        assert '" DISALLOW_REUSE 59844066 59844069\n' in found
        assert found.endswith('" TIME_SKEW 1\n" LAST0 1795322090\n11111111\n33333333\n')

    def test_a_new_secret_starts_without_memory(self) -> None:
        found = google_authenticator.merge(FILE, UserFile(NEW, scratch_codes=WANTED.scratch_codes))
        assert found == f'{NEW}\n" RATE_LIMIT 3 30\n" DISALLOW_REUSE\n" TOTP_AUTH\n11111111\n33333333\n'

    def test_new_scratch_codes_on_demand(self) -> None:
        wanted = UserFile(SECRET, window=5, scratch_codes=["44444444"])
        assert google_authenticator.merge(FILE, wanted, new_scratch_codes=True).endswith("LAST0 1795322090\n44444444\n")

    def test_hotp_counter_is_the_modules_own(self) -> None:
        wanted = UserFile(SECRET, counter=1)
        first = google_authenticator.merge(None, wanted)
        assert first == f'{SECRET}\n" RATE_LIMIT 3 30\n" HOTP_COUNTER 1\n'
        later = first.replace("COUNTER 1", "COUNTER 42")
        assert google_authenticator.merge(later, wanted) == later

    @pytest.mark.parametrize("text", ["", "\n", "secret", '" TOTP_AUTH\n', "4LRW4HZ\n"])
    def test_damaged(self, text: str) -> None:
        with pytest.raises(FileDamaged):
            google_authenticator.merge(text, WANTED)

    @pytest.mark.parametrize(
        "fields",
        [
            {"secret": SECRET.lower()},
            {"secret": SECRET + "="},
            {"secret": "AAAA"},
            {"secret": SECRET + '\n" X'},
            {"secret": SECRET, "scratch_codes": ["1"]},
            {"secret": SECRET, "scratch_codes": ["11111111", "11111111"]},
            {"secret": SECRET, "window": 0},
            {"secret": SECRET, "period": 61},
            {"secret": SECRET, "counter": 0},
            {"secret": SECRET, "rate_limit": (0, 1)},
        ],
    )
    def test_what_does_not_fit(self, fields: dict[str, object]) -> None:
        with pytest.raises(ValueError, match=r"secret|code|window|counter|limit"):
            UserFile(**fields)  # type: ignore[arg-type]

    def test_not_shown(self) -> None:
        assert SECRET not in repr(WANTED)
        assert "11111111" not in repr(WANTED)

    @given(st.text(max_size=200))
    def test_whatever_stands_in_the_file(self, rest: str) -> None:
        text = f"{SECRET}\n{rest}"
        found = google_authenticator.merge(text, WANTED)
        assert google_authenticator.merge(found, WANTED) == found
        codes = google_authenticator.parse(found).scratch_codes
        assert codes == google_authenticator.parse(text).scratch_codes
