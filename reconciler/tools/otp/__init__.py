"""One-time passwords: the formats, the algorithms, and a validation server of our own.

Pure modules (no input or output):
    `oath`                  HOTP and TOTP codes (RFC 4226, RFC 6238): `OathKey.code`, `OathKey.verify`
    `otpauth`               the URI that authenticator apps scan: `uri`, `disclosures`
    `qr`                    a URI as QR code: `terminal`, `png`, `svg` (needs the extra `otp`)
    `oath_users`            libpam-oath's users.oath: `merge(text, wanted, owned) -> text`
    `google_authenticator`  ~/.google_authenticator: `merge(text, wanted) -> text`
    `credentials`           Yubico OTP credentials: `parse` of the three CSV formats, `commands` for programming
    `software_yubikey`      a YubiKey in software, for tests and rehearsals
    `enrolment`             documents and secrets of new YubiKeys
    `single_file`           the validation server as one Python text for a Debian host

`server` is what runs on that host. It imports nothing but the standard library, `cryptography` and, for PostgreSQL,
`psycopg` or `psycopg2`; nothing in it may import the rest of this project:
    `server.modhex`         ModHex, Dvorak
    `server.token`          what a YubiKey encrypts: `Token`, `crc16`, `encrypt`, `decrypt`
    `server.aead`           AEAD files: `seal`, `Aead.parse`, `Aead.open`, `path_in`
    `server.ksm`            keys.json and the folder of AEADs: `KeyStorage`
    `server.signature`      HMAC of requests and responses
    `server.verification`   the verdict about a request: `Validator.verify`
    `server.database`       clients and counters, in SQLite or PostgreSQL
    `server.document`       the JSON document that says who may use the server: `parse`
    `server.roster`         `apply` of that document, and `present`: what is there
    `server.settings`       the configuration file
    `server.web`            the HTTP server
    `server.__main__`       `serve`, `apply`, `state`, `check`
"""
