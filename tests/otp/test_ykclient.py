"""Yubico's own client library, which pam_yubico uses, against our daemon."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes.util import find_library

import pytest

from reconciler.tools.otp.software_yubikey import SoftwareYubiKey
from tests.otp.installation import Installation
from tests.otp.vectors import CLIENT_SECRET

# Of ykclient_errors.h and ykclient_server_response.h.
OK, BAD_OTP, REPLAYED_OTP, BAD_SERVER_SIGNATURE = 0, 1, 2, 107
LIBRARY = find_library("ykclient")


@pytest.mark.skipif(LIBRARY is None, reason="libykclient is not installed: python -m tests.otp.prepare")
class TestLibykclient:
    @pytest.fixture
    def site(self, make: Callable[..., Installation], key: SoftwareYubiKey) -> Installation:
        site = make(signatures="required")
        site.set_up(key)
        site.start()
        return site

    def verify(self, site: Installation, otp: str, secret: str = CLIENT_SECRET, client: int = 7) -> int:
        assert LIBRARY is not None
        urls = (ctypes.c_char_p * 1)(f"http://127.0.0.1:{site.port}/wsapi/2.0/verify".encode())
        call = ctypes.CDLL(LIBRARY).ykclient_verify_otp_v2
        return int(call(None, otp.encode(), client, None, 1, urls, secret.encode()))

    def test_right_and_replayed(self, site: Installation, key: SoftwareYubiKey) -> None:
        """Its requests are signed as we read them, and it accepts the signatures of our answers."""
        first, second = key.press(), key.press()
        assert self.verify(site, first) == OK
        assert self.verify(site, first) == REPLAYED_OTP
        assert self.verify(site, second.upper()) == OK
        assert self.verify(site, second) == REPLAYED_OTP

    def test_wrong(self, site: Installation, key: SoftwareYubiKey) -> None:
        assert self.verify(site, SoftwareYubiKey.new().press()) == BAD_OTP
        assert self.verify(site, SoftwareYubiKey.new(key.public_id).press()) == BAD_OTP
        site.apply(removeKeys=[key.public_id])
        assert self.verify(site, key.press()) == BAD_OTP

    def test_with_another_secret_neither_believes_the_other(self, site: Installation, key: SoftwareYubiKey) -> None:
        assert self.verify(site, key.press(), "AAAA") == BAD_SERVER_SIGNATURE
        assert self.verify(site, key.press(), client=9) == BAD_SERVER_SIGNATURE
        assert site.row(key)["counter"] == -1
