"""The command line of natstats; installs as natstats_cli."""
