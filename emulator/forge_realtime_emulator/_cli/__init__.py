"""Commands `emulate`, `exec`, `listen`, `fail` and `init` of the command line `forge-realtime`.

The client's command line imports these modules even for `--help` and completion, so each command imports the extra's
packages only when it runs.
"""
