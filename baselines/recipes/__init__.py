"""What commands of `baselines/external.py` may use in their own environments; not for import here."""
