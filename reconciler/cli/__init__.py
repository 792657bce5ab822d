"""The command line. Each module here has an `app` whose commands `main` takes in; nothing is imported before it is
needed, so that `reconciler --help` stays fast."""
