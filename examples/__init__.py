"""Short programs that sample models of other people with pelton."""
