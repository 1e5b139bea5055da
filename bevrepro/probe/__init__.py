"""Asking the machine: everything here reads, nothing here judges. `machine.collect` puts it together."""
