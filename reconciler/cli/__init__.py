"""The command line. Each module here has an `app`, whose commands `commands` finds without importing it; and nothing is
imported before it is needed, so that `reconciler --help` stays fast."""
