"""Resource types: how to probe and change one type of object, one file each, found by themselves."""
