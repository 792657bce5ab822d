"""SOPS files with age recipients (https://getsops.io/docs/), read and written without the sops program.

cipher.py      one value: typed text <-> `ENC[AES256_GCM,...]`, and the MAC over all values
yamltext.py    YAML as text with places: values are replaced in place, all else stays byte for byte
jsontext.py    the same for JSON
document.py    one file: open, verify, change, close
age.py         identities and recipients, the data key wrapped for each
rules.py       `.sops.yaml`: for whom a new file is encrypted
"""
