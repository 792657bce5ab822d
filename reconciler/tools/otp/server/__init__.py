"""A key storage module (KSM) and validation server for Yubico OTP, on the files and tables of the old ones.

Runs on a plain Debian host as one file (see `reconciler.tools.otp.single_file`): standard library, `cryptography`, and
`psycopg` or `psycopg2` where the database is PostgreSQL. So nothing here imports the rest of the project.
"""
