"""Names for addresses: on the reporter's side, from files that are not trusted."""
